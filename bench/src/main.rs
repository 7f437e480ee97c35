//! What Portico costs: its programs a packet, its plan and drivers a change, its daemon in memory.
//!
//! Each section prints tables of medians with the range they were found in, and can be run alone. Nothing but
//! `generate`, which is told to, and `nf_conntrack_max`, for as long as more flows need it, touches the network namespace,
//! the pins or the cgroups of the machine itself.

mod aim;
mod daemon;
mod datapath;
mod delay;
mod disruption;
mod generate;
mod generator;
mod growth;
mod host;
mod limits;
mod load;
mod maglev;
mod memory;
mod plan;
mod programs;
mod report;
mod resources;
mod rig;
mod ruleset;
mod scene;
mod sockets;
mod stats;
mod sweep;
mod variants;
mod workload;

use std::{
    fs::File,
    io::{BufWriter, Write as _},
    path::PathBuf,
};

use anyhow::{Context as _, ensure};
use clap::{Parser, ValueEnum};

use crate::{host::Host, report::Report, scene::gateway::Binaries, variants::Variant, workload::Size};

/// Measures what Portico's programs, plan, drivers and daemon cost.
///
/// Needs root: programs are loaded and run, and network namespaces made, all of which are gone at the end, after an
/// interruption too.
#[derive(Debug, Parser)]
#[command(name = "portico-bench", version)]
struct Options {
    /// What to measure.
    #[arg(value_enum, default_value_t = Choice::All)]
    section: Choice,
    /// Write the figures to a file too, as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// The CPU to measure on (the daemon runs on all) [default: the last].
    #[arg(long, value_name = "N")]
    cpu: Option<usize>,
    /// Numbers of services for plan and daemon.
    #[arg(long, value_name = "N", value_delimiter = ',', default_values_t = [1_000, 10_000])]
    services: Vec<u32>,
    /// How many endpoints each of them has.
    #[arg(long, value_name = "N", default_value_t = 10)]
    endpoints: u32,
    /// More of everything: IPv6, more rounds, more services. Takes an hour rather than minutes.
    #[arg(long)]
    full: bool,
    #[command(flatten)]
    packets: datapath::Arguments,
    /// What makes packets.
    #[arg(long, value_enum, default_value_t = generator::Kind::Auto)]
    generator: generator::Kind,
    /// Only these ways through the gateway [default: all].
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    variants: Vec<Variant>,
    /// How often each variant has its turn.
    #[arg(long, value_name = "N", default_value_t = 5)]
    rounds: u32,
    /// How long a turn takes.
    #[arg(long, value_name = "MS", default_value_t = 200)]
    turn_ms: u64,
    #[command(flatten)]
    agent: sockets::Agent,
    /// Connections that stay open, for disruption.
    #[arg(long, value_name = "N", default_value_t = 300)]
    connections: u32,
    /// The binary that sections run [default: portico beside this program].
    #[arg(long, value_name = "PATH")]
    portico: Option<PathBuf>,
    #[command(flatten)]
    generate: generate::Arguments,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Choice {
    /// All sections, in less than ten minutes.
    All,
    /// Nanoseconds a packet of the XDP and tc programs.
    Programs,
    /// Maglev tables: time, balance, disruption.
    Maglev,
    /// Planning and writing to the kernel, cold and for one endpoint.
    Plan,
    /// A `portico run` on manifests: start, changes, restart, memory.
    Daemon,
    /// Packets of established flows: Portico, bare XDP, the kernel, rules as kube-proxy's.
    Datapath,
    /// The same and new flows as services become more, and a flood of SYNs.
    Growth,
    /// How late packets arrive at several loads.
    Latency,
    /// CPU at several loads, and memory as flows and services become more.
    Resources,
    /// Connections and requests a second by real sockets, and how long connect takes on the gateway.
    Sockets,
    /// Connections that break or stand still when backends change, the daemon restarts or somebody flushes.
    Disruption,
    /// Only makes packets, on an interface of this network namespace (not one of all).
    Generate,
}

impl Options {
    fn binary(&self) -> anyhow::Result<PathBuf> {
        let binary = match &self.portico {
            Some(path) => path.clone(),
            None => std::env::current_exe().context("cannot find this program")?.with_file_name("portico"),
        };
        ensure!(binary.is_file(), "{} is missing; see --portico", binary.display());
        Ok(binary)
    }

    fn extent(&self) -> datapath::Extent {
        datapath::Extent {
            arguments: self.packets.clone(),
            full: self.full,
            rounds: self.rounds,
            turn: std::time::Duration::from_millis(self.turn_ms),
            variants: self.variants(),
            generator: self.generator,
        }
    }

    fn growth(&self) -> growth::Extent {
        let most = if self.full { 10_000 } else { 1_000 };
        growth::Extent {
            services: [1, 100, 1_000, 10_000].into_iter().filter(|services| *services <= most).collect(),
            rounds: self.rounds.min(if self.full { self.rounds } else { 3 }),
            turn: std::time::Duration::from_millis(self.turn_ms),
            new: if self.full { 100_000 } else { 50_000 },
            floods: if self.full { 3 } else { 1 },
            masquerade: self.packets.masquerade,
            variants: self.variants(),
            generator: self.generator,
        }
    }

    fn delay(&self) -> delay::Extent {
        delay::Extent {
            loads: if self.full {
                vec![50_000, 100_000, 200_000, 400_000, 800_000, 1_600_000]
            } else {
                vec![100_000, 300_000, 1_000_000]
            },
            rounds: self.rounds.min(3),
            turn: std::time::Duration::from_millis(self.turn_ms),
            variants: self.variants(),
            generator: self.generator,
        }
    }

    fn resources(&self) -> resources::Extent {
        let most = |short, full| if self.full { full } else { short };
        let up_to = |all: &[u32], most| all.iter().copied().filter(|number| *number <= most).collect();
        resources::Extent {
            loads: vec![100_000, 300_000, 1_000_000],
            rounds: most(3, 5),
            turn: std::time::Duration::from_millis(most(300, 1_000).into()),
            flows: up_to(&[1, 1_000, 100_000, 1_000_000], most(100_000, 1_000_000)),
            services: up_to(&[1, 100, 1_000, 10_000], most(1_000, 10_000)),
            variants: self.variants(),
            generator: self.generator,
        }
    }

    fn sockets(&self) -> sockets::Extent {
        sockets::Extent {
            workers: 32,
            requests: if self.full { vec![1_000, 5_000, 10_000, 20_000] } else { vec![5_000] },
            connections: if self.full { vec![500, 1_000, 2_000, 4_000] } else { vec![1_000] },
            rounds: if self.full { self.rounds } else { 3 },
            turn: std::time::Duration::from_millis(if self.full { 1_000 } else { 500 }),
            connects: 1_000,
            families: self.packets.families(self.full),
            variants: self.variants(),
        }
    }

    fn disruption(&self) -> disruption::Extent {
        disruption::Extent {
            connections: self.connections,
            window: std::time::Duration::from_millis(if self.full { 5_000 } else { 2_000 }),
            rounds: if self.full { 3 } else { 1 },
            families: self.packets.families(self.full),
            variants: self.variants(),
        }
    }

    fn variants(&self) -> Vec<Variant> {
        if self.variants.is_empty() { Variant::ALL.to_vec() } else { self.variants.clone() }
    }
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    if options.agent.run()? {
        return Ok(());
    }
    ensure!(nix::unistd::geteuid().is_root(), "programs are loaded into the kernel, which takes root");
    let room = 1..=workload::MAX_ENDPOINTS;
    ensure!(
        options.services.iter().all(|n| room.contains(&n.saturating_mul(options.endpoints))),
        "--services times --endpoints is to be 1 to {}",
        room.end()
    );
    sweep::install()?;
    let endpoints = options.endpoints;
    let sizes: Vec<Size> = options.services.iter().map(|&services| Size { services, endpoints }).collect();
    let cpu = host::pin(options.cpu)?;
    let mut report = Report::new(Host::look(cpu)?);
    let wanted = |section| [Choice::All, section].contains(&options.section);
    if wanted(Choice::Programs) {
        report.add(programs::measure().context("programs")?);
    }
    if wanted(Choice::Maglev) {
        report.add(maglev::measure());
    }
    if wanted(Choice::Plan) {
        report.add(plan::measure(&sizes).context("plan")?);
    }
    // From here on only those threads are pinned that make packets.
    host::unpin()?;
    if wanted(Choice::Daemon) {
        report.add(daemon::measure(&options.binary()?, &sizes).context("daemon")?);
    }
    if wanted(Choice::Datapath) {
        let binaries = Binaries::new(options.binary()?)?;
        report.add(datapath::measure(&options.extent(), &binaries, cpu).context("datapath")?);
    }
    if wanted(Choice::Growth) {
        let binaries = Binaries::new(options.binary()?)?;
        report.add(growth::measure(&options.growth(), &binaries, cpu).context("growth")?);
    }
    if wanted(Choice::Latency) {
        let binaries = Binaries::new(options.binary()?)?;
        report.add(delay::measure(&options.delay(), &binaries, cpu).context("latency")?);
    }
    if wanted(Choice::Resources) {
        let binaries = Binaries::new(options.binary()?)?;
        report.add(resources::measure(&options.resources(), &binaries, cpu).context("resources")?);
    }
    if wanted(Choice::Sockets) {
        let binaries = Binaries::new(options.binary()?)?;
        report.add(sockets::measure(&options.sockets(), &binaries).context("sockets")?);
    }
    if wanted(Choice::Disruption) {
        let binaries = Binaries::new(options.binary()?)?;
        report.add(disruption::measure(&options.disruption(), &binaries).context("disruption")?);
    }
    if options.section == Choice::Generate {
        let Options { generate, packets, generator, .. } = &options;
        report.add(generate::measure(generate, packets, *generator, cpu).context("generate")?);
    }
    report.finish();
    write!(std::io::stdout().lock(), "{report}")?;
    if let Some(path) = options.json {
        let file = File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
        serde_json::to_writer_pretty(BufWriter::new(file), &report)?;
    }
    Ok(())
}

/// Says on standard error what is being done.
fn progress(text: impl std::fmt::Display) {
    eprintln!("portico-bench: {text}");
}

//! What Portico costs: its programs a packet, its plan and drivers a change, its daemon in memory.
//!
//! Each section prints tables of medians with the range they were found in, and can be run alone. Nothing touches the
//! network namespace, the pins or the cgroups of the machine itself.

mod aim;
mod conditions;
mod daemon;
mod datapath;
mod delay;
mod generator;
mod growth;
mod host;
mod maglev;
mod memory;
mod plan;
mod programs;
mod progress;
mod report;
mod rig;
mod ruleset;
mod scene;
mod stats;
mod variants;
mod workload;

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum};

use crate::{
    conditions::Conditions,
    host::Host,
    progress::progress,
    report::Report,
    scene::{gateway::Binaries, objects::Family},
    variants::Variant,
    workload::Size,
};

/// Measures what Portico's programs, plan, drivers and daemon cost.
///
/// Needs root: programs are loaded and run, and network namespaces made, all of which are gone at the end. Figures are
/// printed as text, with medians and the ranges they were found in; --out has them as a page with charts, too.
#[derive(Debug, Parser)]
#[command(name = "portico-bench", version, after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
struct Options {
    #[command(subcommand)]
    command: Option<Action>,
    /// What to measure.
    #[arg(value_enum, value_name = "SECTION", default_values_t = [Choice::All])]
    sections: Vec<Choice>,
    /// Leave all outputs in a directory: report.html, .txt, .md and .json, csv/ with every table and single
    /// measurement, hgrm/ with percentiles for the plotters of HdrHistogram.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
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
    /// Numbers of established flows [default: 1,1000,100000].
    #[arg(long, value_name = "N", value_delimiter = ',')]
    flows: Option<Vec<u32>>,
    /// Only these ways through the gateway [default: all].
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    variants: Vec<Variant>,
    /// How often each variant has its turn.
    #[arg(long, value_name = "N", default_value_t = 5)]
    rounds: u32,
    /// How long a turn takes.
    #[arg(long, value_name = "MS", default_value_t = 200)]
    turn_ms: u64,
    /// Bytes of a frame, without its checksum.
    #[arg(long, value_name = "BYTES", default_value_t = 60)]
    size: usize,
    /// Datagrams in place of TCP segments.
    #[arg(long)]
    udp: bool,
    /// The binary that sections run [default: portico beside this program].
    #[arg(long, value_name = "PATH")]
    portico: Option<PathBuf>,
}

const EXAMPLES: &str = "\
Examples:
  portico-bench --out report                      everything, the page is report/report.html
  portico-bench datapath latency --rounds 9       two sections, with narrower ranges
  portico-bench datapath --variants redirect,fast-path,nftables --flows 1,1000000
  portico-bench all --full --out report           all that there is to measure
  portico-bench render --from report/report.json --out again";

#[derive(Debug, Subcommand)]
enum Action {
    /// Make the outputs of a finished run again, without measuring (and without root).
    Render {
        /// The report.json of that run.
        #[arg(long, value_name = "FILE")]
        from: PathBuf,
        /// Where to leave the outputs.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Choice {
    /// All sections.
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
            flows: self.flows.clone().unwrap_or_else(|| vec![1, 1_000, 100_000]),
            rounds: self.rounds,
            turn: Duration::from_millis(self.turn_ms),
            families: if self.full { vec![Family::V4, Family::V6] } else { vec![Family::V4] },
            size: self.size,
            udp: self.udp,
            variants: self.variants(),
        }
    }

    fn growth(&self) -> growth::Extent {
        let most = if self.full { 10_000 } else { 1_000 };
        growth::Extent {
            services: [1, 100, 1_000, 10_000].into_iter().filter(|services| *services <= most).collect(),
            rounds: self.rounds.min(3),
            turn: Duration::from_millis(self.turn_ms),
            variants: self.variants(),
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
            turn: Duration::from_millis(self.turn_ms),
            variants: self.variants(),
        }
    }

    /// The sections asked for, in the order of their turns.
    fn wanted(&self) -> impl Iterator<Item = Choice> {
        let all = self.sections.contains(&Choice::All);
        let sections = Choice::value_variants().iter().copied().filter(|section| *section != Choice::All);
        sections.filter(move |section| all || self.sections.contains(section))
    }

    /// About how long a section takes; two busy CPUs took that.
    fn expected(&self, section: Choice) -> Duration {
        match section {
            Choice::All => Duration::ZERO,
            Choice::Programs => Duration::from_secs(10),
            Choice::Maglev => Duration::from_secs(2),
            Choice::Plan | Choice::Daemon => {
                // Objects of each size, planned or started with several times.
                let objects: u32 = self.services.iter().map(|n| n.saturating_mul(self.endpoints)).sum();
                Duration::from_secs(2) + Duration::from_micros(150) * objects
            }
            Choice::Datapath => self.extent().expected(),
            Choice::Growth => self.growth().expected(),
            Choice::Latency => self.delay().expected(),
        }
    }

    fn variants(&self) -> Vec<Variant> {
        if self.variants.is_empty() { Variant::ALL.to_vec() } else { self.variants.clone() }
    }
}

fn main() -> anyhow::Result<()> {
    let matches = Options::command().get_matches();
    let options = Options::from_arg_matches(&matches)?;
    if let Some(Action::Render { from, out }) = &options.command {
        return leave(&Report::read(from)?, out);
    }
    ensure!(nix::unistd::geteuid().is_root(), "programs are loaded into the kernel, which takes root");
    let room = 1..=workload::MAX_ENDPOINTS;
    ensure!(
        options.services.iter().all(|n| room.contains(&n.saturating_mul(options.endpoints))),
        "--services times --endpoints is to be 1 to {}",
        room.end()
    );
    let endpoints = options.endpoints;
    let sizes: Vec<Size> = options.services.iter().map(|&services| Size { services, endpoints }).collect();
    let cpu = host::pin(options.cpu)?;
    let conditions = Conditions::look(&matches, options.binary().ok().as_deref());
    let mut report = Report::new(Host::look(cpu)?, conditions);
    let expected = progress::expect(options.wanted().map(|section| options.expected(section)).collect());
    let wanted = |section| {
        let wanted = options.wanted().any(|wanted| wanted == section);
        if wanted {
            progress::enter();
        }
        wanted
    };
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
    report.finish();
    drop(expected);
    write!(std::io::stdout().lock(), "{report}")?;
    if let Some(dir) = options.out {
        leave(&report, &dir)?;
    }
    Ok(())
}

/// Leaves all outputs in a directory, and says where to look.
fn leave(report: &Report, dir: &Path) -> anyhow::Result<()> {
    report.write(dir)?;
    let dir = dir.canonicalize().with_context(|| format!("cannot find {}", dir.display()))?;
    eprintln!("portico-bench: the page is file://{}", dir.join(report::PAGE).display());
    Ok(())
}

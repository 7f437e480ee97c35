//! What Portico costs: its programs a packet, its plan and drivers a change, its daemon in memory.
//!
//! Each section prints tables of medians with the range they were found in, and can be run alone. Nothing touches the
//! network namespace, the pins or the cgroups of the machine itself.

mod aim;
mod daemon;
mod host;
mod maglev;
mod memory;
mod plan;
mod programs;
mod report;
mod rig;
mod stats;
mod workload;

use std::{
    fs::File,
    io::{BufWriter, Write as _},
    path::PathBuf,
};

use anyhow::{Context as _, ensure};
use clap::{Parser, ValueEnum};

use crate::{host::Host, report::Report, workload::Size};

/// Measures what Portico's programs, plan, drivers and daemon cost.
///
/// Needs root: programs are loaded and run, and network namespaces made, all of which are gone at the end.
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
    /// The binary that the daemon section runs [default: portico beside this program].
    #[arg(long, value_name = "PATH")]
    portico: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Choice {
    /// All sections, in less than three minutes.
    All,
    /// Nanoseconds a packet of the XDP and tc programs.
    Programs,
    /// Maglev tables: time, balance, disruption.
    Maglev,
    /// Planning and writing to the kernel, cold and for one endpoint.
    Plan,
    /// A `portico run` on manifests: start, changes, restart, memory.
    Daemon,
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
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
    if wanted(Choice::Daemon) {
        host::unpin()?;
        let binary = match options.portico {
            Some(path) => path,
            None => std::env::current_exe().context("cannot find this program")?.with_file_name("portico"),
        };
        ensure!(binary.is_file(), "{} is missing; see --portico", binary.display());
        report.add(daemon::measure(&binary, &sizes).context("daemon")?);
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

//! What Portico costs: its programs a packet, its plan and drivers a change, its daemon in memory.
//!
//! Each section prints tables of medians with the range they were found in, and can be run alone. Nothing but
//! `generate`, which is told to, and `nf_conntrack_max`, for as long as more flows need it, touches the network namespace,
//! the pins or the cgroups of the machine itself.

mod aim;
mod conditions;
mod daemon;
mod datapath;
mod delay;
mod disruption;
mod flood;
mod generate;
mod generator;
mod growth;
mod host;
mod limits;
mod load;
mod maglev;
mod memory;
mod options;
mod plan;
mod programs;
mod progress;
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

use std::{io::Write as _, path::Path};

use anyhow::{Context as _, ensure};
use clap::{CommandFactory as _, FromArgMatches as _};

use crate::{
    conditions::Conditions,
    host::Host,
    options::{Action, Choice, Options},
    progress::progress,
    report::Report,
    scene::gateway::Binaries,
    workload::Size,
};

fn main() -> anyhow::Result<()> {
    let mut command = Options::command();
    let matches = command.get_matches_mut();
    let options = Options::from_arg_matches(&matches)?;
    if options.agent.run()? {
        return Ok(());
    }
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
    sweep::install()?;
    let endpoints = options.endpoints;
    let sizes: Vec<Size> = options.services.iter().map(|&services| Size { services, endpoints }).collect();
    let cpu = host::pin(options.cpu)?;
    let conditions = Conditions::look(&command, &matches, options.binary().ok().as_deref());
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
    if wanted(Choice::Flood) {
        let binaries = Binaries::new(options.binary()?)?;
        report.add(flood::measure(&options.flood(), &binaries, cpu).context("flood")?);
    }
    if wanted(Choice::Generate) {
        let Options { generate, packets, generator, .. } = &options;
        report.add(generate::measure(generate, packets, *generator, cpu).context("generate")?);
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

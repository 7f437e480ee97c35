//! What the daemon says of itself, put together.

use std::{path::Path, time::Instant};

use tracing::warn;

use super::{attachments::Watch, interfaces::Interfaces, settings::Settings, translation::Watchman};
use crate::{
    config::Options,
    driver::pins::PinDir,
    error::chain,
    log,
    plan::{Index, NodeFacts},
    reconcile::Reconciler,
    view::{CounterReport, GuardReport, MissingReport, Report, TrafficReport, Trouble},
};

/// The parts of the daemon that have something to say.
pub(super) struct Parts<'a> {
    pub(super) options: &'a Options,
    pub(super) pins: &'a PinDir,
    pub(super) started: Instant,
    pub(super) synced: bool,
    pub(super) former: Option<u32>,
    pub(super) reconciler: &'a Reconciler,
    pub(super) index: &'a Index,
    pub(super) interfaces: &'a Interfaces,
    pub(super) cgroup: &'a Path,
    pub(super) watch: &'a Watch,
    pub(super) missing: Vec<MissingReport>,
    pub(super) translation: &'a Watchman,
    pub(super) facts: &'a NodeFacts,
    pub(super) settings: &'a Settings,
}

/// The report.
pub(super) fn report(parts: Parts<'_>) -> Report {
    let Parts {
        options,
        pins,
        started,
        synced,
        former,
        reconciler,
        index,
        interfaces,
        cgroup,
        watch,
        missing,
        translation,
        facts,
        settings,
    } = parts;
    let planner = reconciler.planner();
    let progress = reconciler.progress();
    let counters = reconciler.kernel().maps.counters.load().unwrap_or_else(|error| {
        warn!(reason = chain(&error), "cannot read the counters");
        Vec::new()
    });
    let traffic = TrafficReport::list(&reconciler.kernel().maps).unwrap_or_else(|error| {
        warn!(reason = chain(&error), "cannot read what was forwarded");
        Vec::new()
    });
    let guards = GuardReport::list(&reconciler.kernel().maps).unwrap_or_else(|error| {
        warn!(reason = chain(&error), "cannot read what the guard sees");
        Vec::new()
    });
    Report {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        pin_dir: pins.name().display().to_string(),
        node: options.node_name.clone(),
        source: options.source.to_string(),
        uptime_seconds: started.elapsed().as_secs(),
        synced: synced && progress.error.is_none() && former.is_none(),
        former_schema: former,
        pending: planner.pending(),
        rounds: progress.rounds,
        entries: progress.entries,
        latest_round_milliseconds: progress.latest.as_secs_f64() * 1_000.0,
        error: progress.error.clone(),
        services: planner.services().count(),
        frontends: planner.services().map(|service| service.frontends.len()).sum(),
        kept: planner.kept(),
        interfaces: interfaces.report(),
        missing,
        repairs: watch.repairs().map(|(kind, count)| (kind.name().to_owned(), count)).collect(),
        cgroup: cgroup.display().to_string(),
        translation: translation.report().clone(),
        node_port_addresses: facts.node_port_addresses.iter().map(ToString::to_string).collect(),
        log_lines_lost: log::lost(),
        sysctls: settings.sysctls.clone(),
        counters: counters
            .into_iter()
            .map(|(hook, counter, count)| CounterReport {
                hook: hook.name().to_owned(),
                reason: counter.name().to_owned(),
                count,
            })
            .collect(),
        traffic,
        guards,
        rejected: index.rejections().chain(planner.rejections()).map(Trouble::from).collect(),
        notes: options.notes.iter().map(Trouble::from).chain(index.notes().map(Trouble::from)).collect(),
    }
}

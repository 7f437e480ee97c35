//! What happens to a gateway.

use anyhow::Context as _;

use crate::{
    ruleset,
    scene::{
        gateway::{Portico, feed},
        hosts::Hosts,
    },
    variants::Variant,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    Nothing,
    BackendAdded,
    BackendRemoved,
    DaemonKilled,
    DaemonRestarted,
    ConntrackFlushed,
    RulesFlushed,
    RouteChanged,
}

impl Event {
    pub(super) const ALL: [Self; 8] = [
        Self::Nothing,
        Self::BackendAdded,
        Self::BackendRemoved,
        Self::DaemonKilled,
        Self::DaemonRestarted,
        Self::ConntrackFlushed,
        Self::RouteChanged,
        // Last, since it breaks most.
        Self::RulesFlushed,
    ];

    /// For tables.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::BackendAdded => "backend added",
            Self::BackendRemoved => "backend removed",
            Self::DaemonKilled => "daemon killed and started",
            Self::DaemonRestarted => "daemon stopped and started",
            Self::ConntrackFlushed => "conntrack -F",
            Self::RulesFlushed => "nft flush ruleset",
            Self::RouteChanged => "other interface to backends",
        }
    }

    /// Whether it can happen to a variant.
    pub(super) const fn concerns(self, variant: Variant) -> bool {
        match self {
            Self::DaemonKilled | Self::DaemonRestarted => variant.is_portico(),
            _ => true,
        }
    }

    pub(super) fn act(self, hosts: &mut Hosts) -> anyhow::Result<()> {
        let endpoints = hosts.services.endpoints;
        match self {
            Self::Nothing => Ok(()),
            Self::BackendAdded => hosts.endpoints(endpoints + 1),
            Self::BackendRemoved => hosts.endpoints(endpoints - 1),
            Self::DaemonKilled => Ok(portico(hosts)?.daemon.start_again()?),
            Self::DaemonRestarted => {
                let daemon = &mut portico(hosts)?.daemon;
                daemon.terminate()?;
                Ok(daemon.start_again()?)
            }
            Self::ConntrackFlushed => hosts.flush_conntrack(),
            Self::RulesFlushed => hosts.flush_rules(),
            Self::RouteChanged => hosts.route(true),
        }
    }

    /// Makes everything as it was before; says if that took more than it should.
    pub(super) fn undo(self, hosts: &mut Hosts) -> anyhow::Result<Option<String>> {
        let endpoints = hosts.services.endpoints;
        match self {
            Self::Nothing | Self::ConntrackFlushed => {}
            Self::BackendAdded => hosts.endpoints(endpoints - 1)?,
            Self::BackendRemoved => hosts.endpoints(endpoints + 1)?,
            Self::DaemonKilled | Self::DaemonRestarted => portico(hosts)?.wait_synced()?,
            Self::RouteChanged => hosts.route(false)?,
            Self::RulesFlushed => return rules(hosts),
        }
        Ok(None)
    }
}

fn portico(hosts: &mut Hosts) -> anyhow::Result<&mut Portico> {
    hosts.gateway.portico_mut().context("there is no daemon")
}

/// Writes flushed rules again.
fn rules(hosts: &mut Hosts) -> anyhow::Result<Option<String>> {
    let (variant, services) = (hosts.variant, hosts.services);
    let there = hosts.middle.command("nft").args(["list", "table", "inet", "portico"]).output();
    let there = there.context("cannot run nft")?.status.success();
    match hosts.gateway.portico_mut() {
        None => feed(&hosts.middle, "nft", &["-f", "-"], &ruleset::nft(&services)).map(|()| None),
        Some(_) if there => Ok(None),
        Some(portico) => {
            portico.daemon.start_again()?;
            portico.wait_synced()?;
            Ok(Some(format!("{}: flushed rules were not there again at the end; restarted.", variant.name())))
        }
    }
}

//! What Portico changes about the host besides its own objects, and changing it back.

mod conntrack;

use std::collections::BTreeSet;

use anyhow::Context as _;
use tracing::{info, warn};

use crate::{
    config::Conntrack,
    driver::{
        link::Links,
        maps::{Hash, Maps, Text},
        sysctl,
    },
    model::link::Snapshot,
    view::SysctlReport,
};

const QDISC: &str = "qdisc/";

/// The kernel settings in force.
#[derive(Clone, Debug, Default)]
pub(super) struct Settings {
    pub(super) sysctls: Vec<SysctlReport>,
    /// Those that cannot be changed here, which has been said.
    refused: BTreeSet<&'static str>,
}

impl Settings {
    /// Sets what is needed, remembering what was found the first time. What conntrack would better be set to is not
    /// needed: the size of its table can be changed in the initial network namespace alone. With `fast`, what established
    /// flows need that XDP forwards.
    pub(super) fn apply(
        &mut self,
        maps: &Maps,
        snapshot: &Snapshot,
        options: &Conntrack,
        fast: bool,
    ) -> anyhow::Result<()> {
        let mut reports = Vec::new();
        keep_advertised_routes(maps, snapshot)?;
        let fast = fast.then_some(sysctl::NEEDED_FAST);
        for (name, value, reason) in sysctl::NEEDED.into_iter().chain(fast) {
            let now = set(maps, name, value, |found| found == value)
                .with_context(|| format!("needed because {reason}"))?;
            reports.push(report(name, now, reason.to_owned()));
        }
        for wanted in conntrack::wanted(options, conntrack::cpus()) {
            let (name, value) = (wanted.name, wanted.value.to_string());
            let is_met = |found: &str| wanted.is_met(found);
            match set(maps, name, &value, is_met) {
                Ok(now) => reports.push(report(name, now, wanted.reason.to_owned())),
                Err(error) if error.downcast_ref().is_some_and(sysctl::Error::is_forbidden) => {
                    let now = sysctl::read(name).unwrap_or_default();
                    if self.refused.insert(name) {
                        warn!(
                            name,
                            now,
                            wanted = value,
                            "sysctl stays: it cannot be changed in this network namespace"
                        );
                    }
                    let reason = format!("{}; {value} is wanted but cannot be set here", wanted.reason);
                    reports.push(report(name, now, reason));
                }
                Err(error) => return Err(error),
            }
        }
        self.sysctls = reports;
        Ok(())
    }
}

fn report(name: &str, value: String, reason: String) -> SysctlReport {
    SysctlReport { name: name.to_owned(), value, reason }
}

/// Sets a sysctl unless the value found will do, and returns the value now. Nothing is remembered of one that cannot be
/// set.
fn set(maps: &Maps, name: &str, value: &str, is_met: impl Fn(&str) -> bool) -> anyhow::Result<String> {
    let found = match sysctl::read(name) {
        Ok(found) => found,
        Err(error) if error.is_absent() => return Ok("absent".to_owned()),
        Err(error) => return Err(error.into()),
    };
    if is_met(&found) {
        return Ok(found);
    }
    sysctl::writable(name)?;
    if maps.saved.get(&Text::new(name))?.is_none() {
        let along = sysctl::swept_along(name)?;
        let along = along.iter().map(|(name, found)| (Text::new(name), Text::new(found)));
        let own = (Text::new(name), Text::new(&found));
        // Its own last: it says that all is remembered.
        maps.saved.put(&along.chain([own]).collect::<Vec<_>>())?;
    }
    sysctl::write(name, value)?;
    info!(name, was = found, value, "sysctl set");
    Ok(value.to_owned())
}

/// A host that begins to forward drops the default routes it has from router advertisements, and hears no more of them,
/// unless `accept_ra` is 2.
fn keep_advertised_routes(maps: &Maps, snapshot: &Snapshot) -> anyhow::Result<()> {
    let uplinks =
        snapshot.interfaces.iter().filter(|interface| snapshot.default_v6.contains(&interface.index));
    for interface in uplinks {
        let name = |setting| format!("net/ipv6/conf/{}/{setting}", interface.name);
        let (accept, forwarding) = (name("accept_ra"), name("forwarding"));
        let is = |name: &str, value: &str| sysctl::read(name).is_ok_and(|found| found == value);
        if is(&forwarding, "0") && is(&accept, "1") {
            maps.saved.put(&[(Text::new(&accept), Text::new("1"))])?;
            sysctl::write(&accept, "2").context("needed to keep routes that routers advertise")?;
            info!(name = accept, was = "1", value = "2", "sysctl set");
        }
    }
    Ok(())
}

/// Remembers that these interfaces had no clsact qdisc before.
pub(super) fn record_qdiscs(maps: &Maps, interfaces: Vec<String>) -> anyhow::Result<()> {
    let entries: Vec<(Text, Text)> =
        interfaces.iter().map(|name| (Text::new(&format!("{QDISC}{name}")), Text::new("clsact"))).collect();
    Ok(maps.saved.put(&entries)?)
}

/// Remembers by their new names interfaces that were renamed, if they are remembered.
pub(super) fn rename_qdiscs(maps: &Maps, renamed: Vec<(String, String)>) -> anyhow::Result<()> {
    for (before, now) in renamed {
        let key = Text::new(&format!("{QDISC}{before}"));
        if maps.saved.get(&key)?.is_some() {
            record_qdiscs(maps, vec![now])?;
            maps.saved.delete(&[key])?;
        }
    }
    Ok(())
}

/// Changes everything back, and says what was changed.
///
/// # Errors
///
/// Something cannot be changed back.
pub async fn restore(
    saved: &Hash<Text, Text>,
    links: &Links,
    snapshot: &Snapshot,
) -> anyhow::Result<Vec<String>> {
    let mut done = Vec::new();
    let mut saved = saved.load()?;
    // Those that sweep others along go first.
    saved.sort_by_key(|(key, _)| !sysctl::NEEDED.iter().any(|(name, ..)| *name == key.as_str()));
    for (key, value) in saved {
        let (key, value) = (key.as_str(), value.as_str());
        if let Some(interface) = key.strip_prefix(QDISC) {
            let found = snapshot.interfaces.iter().find(|candidate| candidate.name == interface);
            if let Some(found) = found {
                links.delete_clsact(found.index).await.with_context(|| format!("qdisc of {interface}"))?;
                done.push(format!("qdisc clsact of {interface}"));
            }
        } else if key.starts_with("net/") && sysctl::read(key).is_ok_and(|now| now != value) {
            match sysctl::write(key, value) {
                Ok(()) => done.push(format!("sysctl {key} = {value}")),
                // As of an interface that is gone.
                Err(error) if error.is_absent() => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(done)
}

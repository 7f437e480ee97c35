//! What the guard sees of service ports.

use std::collections::BTreeMap;

use datapath::{
    abi::{Guard, Name},
    guard::Time,
};
use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use crate::driver::maps::{self, Maps};

/// A service port's guard.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GuardReport {
    /// Service port.
    pub service: String,
    /// From how many SYNs a second on clients have to prove their address by a cookie; zero: never, one: always.
    pub syn_cookies: u32,
    /// Whether they have to now.
    pub asking: bool,
    /// SYNs, and datagrams of new flows where these are limited, in the current second so far.
    pub opening: u32,
    /// Those that were let in.
    pub opened: u32,
    /// The most of those in a second; zero: any number.
    pub max_new_flows: u32,
    /// The most of one source; zero: any number.
    pub max_new_flows_per_source: u32,
}

impl GuardReport {
    /// Service ports that have a guard, by name.
    ///
    /// # Errors
    ///
    /// A map cannot be read.
    pub fn list(maps: &Maps) -> Result<Vec<Self>, maps::Error> {
        let names: BTreeMap<u32, Name> = maps.services.load()?.into_iter().collect();
        let guards: BTreeMap<u32, Guard> = maps
            .frontends
            .load()?
            .into_iter()
            .filter(|(_, frontend)| frontend.guard.is_on())
            .map(|(_, frontend)| (frontend.service, frontend.guard))
            .collect();
        let now = now();
        let mut rows = Vec::with_capacity(guards.len());
        for (id, guard) in guards {
            let rate = maps.rates.get(id)?;
            let [opening, opened] = rate.latest(now);
            rows.push(Self {
                service: names.get(&id).map_or_else(|| format!("#{id}"), |name| name.as_str().to_owned()),
                syn_cookies: guard.cookies,
                asking: rate.asks_for_cookies(&guard, now),
                opening,
                opened,
                max_new_flows: guard.flows,
                max_new_flows_per_source: guard.source_flows,
            });
        }
        rows.sort_by(|a, b| a.service.cmp(&b.service));
        Ok(rows)
    }
}

/// The programs' clock; its beginning if it cannot be read.
fn now() -> Time {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE);
    Time(now.map_or(0, |now| now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64))
}

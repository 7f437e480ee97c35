//! Connections and requests by real sockets, through every way that chooses endpoints, and how long `connect` takes on
//! the gateway itself.

mod connect;

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

pub(crate) use self::connect::Agent;
use crate::{
    datapath::{SETUP, available},
    load::{Brief, Kept, Outcome},
    progress,
    report::{Cell, Plot, Section, Table},
    scene::{
        gateway::Binaries,
        hosts::Hosts,
        objects::{Family, Services},
    },
    stats::Range,
    variants::Variant,
};

/// Of the service.
const ENDPOINTS: u32 = 10;
/// How long a load runs before it counts.
const LEAD: Duration = Duration::from_millis(100);
/// The least way, and those that choose endpoints.
const VARIANTS: [Variant; 8] = [
    Variant::Route,
    Variant::FastPath,
    Variant::FastPathUncached,
    Variant::XdpDecides,
    Variant::TcOnly,
    Variant::Nftables,
    Variant::Iptables,
    Variant::KubeProxy,
];
/// Percentiles in the tables.
pub(super) const QUANTILES: [f64; 4] = [0.5, 0.9, 0.99, 0.999];

/// How much to measure.
#[derive(Clone, Debug)]
pub(crate) struct Extent {
    /// Connections at a time.
    pub(crate) workers: u32,
    /// Requests a second, where they are paced.
    pub(crate) requests: Vec<u32>,
    /// Connections a second, likewise.
    pub(crate) connections: Vec<u32>,
    pub(crate) rounds: u32,
    pub(crate) turn: Duration,
    /// Connects in a turn.
    pub(crate) connects: u32,
    pub(crate) families: Vec<Family>,
    pub(crate) variants: Vec<Variant>,
}

impl Extent {
    /// About how long it takes.
    pub(crate) fn expected(&self) -> Duration {
        let variants = self.variants.iter().filter(|variant| VARIANTS.contains(variant)).count() as u32;
        let turns = (self.turn + LEAD * 2) * Mode::all(self).len() as u32 * variants;
        let connects = Duration::from_micros(200) * self.connects * 2 * connect::VARIANTS.len() as u32;
        let setup = SETUP * (variants + connect::VARIANTS.len() as u32);
        ((turns + connects) * self.rounds + setup) * self.families.len() as u32
    }
}

/// A kind of load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// Connect, ask, close; as fast as can be, or so many a second.
    Connections(Option<u32>),
    /// Ask on open connections, likewise.
    Requests(Option<u32>),
}

impl Mode {
    fn all(extent: &Extent) -> Vec<Self> {
        let paced = extent.connections.iter().map(|rate| Self::Connections(Some(*rate)));
        let requests = extent.requests.iter().map(|rate| Self::Requests(Some(*rate)));
        [Self::Connections(None), Self::Requests(None)].into_iter().chain(paced).chain(requests).collect()
    }

    const fn what(self) -> &'static str {
        match self {
            Self::Connections(_) => "connections",
            Self::Requests(_) => "requests",
        }
    }

    const fn rate(self) -> Option<u32> {
        match self {
            Self::Connections(rate) | Self::Requests(rate) => rate,
        }
    }

    fn demand(self, workers: u32) -> (Kept, Brief) {
        let second = Duration::from_secs(1);
        let none = Kept { number: 0, pace: None };
        match self {
            Self::Connections(None) => (none, Brief::Workers(workers)),
            Self::Connections(Some(rate)) => (none, Brief::Every(second / rate.max(1))),
            Self::Requests(rate) => {
                let pace = rate.map(|rate| second * workers / rate.max(1));
                (Kept { number: workers, pace }, Brief::Never)
            }
        }
    }

    /// How many there were a second.
    fn achieved(self, outcome: &Outcome) -> f64 {
        match self {
            Self::Connections(_) => outcome.connections(),
            Self::Requests(_) => outcome.requests(),
        }
    }

    const fn times(self, outcome: &Outcome) -> &Histogram<u64> {
        match self {
            Self::Connections(_) => &outcome.opening,
            Self::Requests(_) => &outcome.delays,
        }
    }
}

/// Turns of a variant in one mode.
struct Turns {
    mode: Mode,
    variant: Variant,
    rates: Vec<f64>,
    all: Option<Outcome>,
}

pub(crate) fn measure(extent: &Extent, binaries: &Binaries) -> anyhow::Result<Section> {
    let mut section = Section { name: "sockets", ..Section::default() };
    let wanted: Vec<_> = VARIANTS.into_iter().filter(|variant| extent.variants.contains(variant)).collect();
    let (variants, notes) = available(&wanted, binaries);
    section.notes = notes;
    for family in &extent.families {
        let services =
            Services { family: *family, udp: false, number: 1, endpoints: ENDPOINTS, masquerade: false };
        let all = set_up(&variants, services, binaries)?;
        let turns = rounds(extent, &all, *family, &mut section)?;
        section.tables.push(fastest(&turns, *family, extent));
        section.tables.push(paced(&turns, *family, extent));
        section.histograms.extend(turns.into_iter().filter_map(|turns| histogram(turns, *family)));
        connect::measure(extent, &all, &mut section)?;
        drop(all);
        let variants: Vec<_> =
            variants.iter().copied().filter(|variant| connect::VARIANTS.contains(variant)).collect();
        let all = set_up(&variants, Services { udp: true, ..services }, binaries)?;
        connect::measure(extent, &all, &mut section)?;
    }
    section.notes.push(format!(
        "{} turns of {} ms each, by all variants in turns. Client and server are a thread each and share the CPUs with \
         what forwards. A request and its answer are 16 bytes. Paced: requests are due at equal distances, whether or not \
         those before were answered, and times count from then; connections are connected, asked and answered in that time. \
         By kernel: rate by that of {} in the same round.",
        extent.rounds,
        extent.turn.as_millis(),
        Variant::Route.name()
    ));
    section.notes.push(connect::note(extent));
    Ok(section)
}

fn set_up(variants: &[Variant], services: Services, binaries: &Binaries) -> anyhow::Result<Vec<Hosts>> {
    let mut all = Vec::new();
    for variant in variants {
        progress(format_args!(
            "sockets: {:?} {}: setting up {}",
            services.family,
            services.protocol().to_uppercase(),
            variant.name()
        ));
        all.push(Hosts::new(*variant, services, binaries)?);
    }
    Ok(all)
}

fn rounds(
    extent: &Extent,
    all: &[Hosts],
    family: Family,
    section: &mut Section,
) -> anyhow::Result<Vec<Turns>> {
    let mut results: Vec<Turns> = Vec::new();
    for mode in Mode::all(extent) {
        for hosts in all {
            results.push(Turns { mode, variant: hosts.variant, rates: Vec::new(), all: None });
        }
    }
    for round in 1..=extent.rounds {
        progress(format_args!("sockets: {family:?}: round {round} of {}", extent.rounds));
        for mode in Mode::all(extent) {
            for hosts in all {
                let outcome = turn(extent, hosts, mode)?;
                let rate = mode.achieved(&outcome);
                section.samples.push(vec![
                    ("what", mode.what().into()),
                    ("family", format!("{family:?}").into()),
                    ("variant", hosts.variant.name().into()),
                    ("paced", mode.rate().into()),
                    ("round", round.into()),
                    ("per_second", rate.into()),
                    ("failed", (outcome.failed + outcome.broken).into()),
                    ("p50_us", microseconds(mode.times(&outcome).value_at_quantile(0.5))),
                    ("p99_us", microseconds(mode.times(&outcome).value_at_quantile(0.99))),
                ]);
                let known = results.iter_mut().find(|t| t.mode == mode && t.variant == hosts.variant);
                let Some(turns) = known else { continue };
                turns.rates.push(rate);
                match &mut turns.all {
                    Some(all) => all.add(&outcome)?,
                    None => turns.all = Some(outcome),
                }
            }
        }
    }
    Ok(results)
}

fn turn(extent: &Extent, hosts: &Hosts, mode: Mode) -> anyhow::Result<Outcome> {
    let (kept, brief) = mode.demand(extent.workers);
    let mut client = hosts.client(kept, brief)?;
    client.open()?;
    let begin = Instant::now() + LEAD;
    let outcome = client.run(begin, begin + extent.turn)?;
    drop(client);
    // Entries of connections that have ended would slow down others: the hash table is all namespaces'.
    hosts.flush_conntrack()?;
    Ok(outcome)
}

pub(super) fn microseconds(ns: u64) -> Cell {
    (ns as f64 / 1e3).into()
}

fn fastest(results: &[Turns], family: Family, extent: &Extent) -> Table {
    let mut table = Table::new(
        format!("{family:?} TCP, as fast as {} connections at a time go", extent.workers),
        &["what", "variant", "per second", "by kernel", "failed", "p50, us", "p99, us"],
    )
    .plot(Plot::bars("per second").panels("what").ratio("by kernel", Variant::Route.name()).more_is_better());
    for turns in results.iter().filter(|turns| turns.mode.rate().is_none()) {
        let base = results.iter().find(|t| t.mode == turns.mode && t.variant == Variant::Route);
        let ratios = base.map(|base| turns.rates.iter().zip(&base.rates).map(|(own, base)| own / base));
        let Some(all) = &turns.all else { continue };
        let times = turns.mode.times(all);
        table.row([
            turns.mode.what().into(),
            turns.variant.name().into(),
            Range::of(turns.rates.clone()).into(),
            ratios.and_then(|ratios| Range::of(ratios.collect())).into(),
            (all.failed + all.broken).into(),
            microseconds(times.value_at_quantile(0.5)),
            microseconds(times.value_at_quantile(0.99)),
        ]);
    }
    table
}

fn paced(results: &[Turns], family: Family, extent: &Extent) -> Table {
    let mut table = Table::new(
        format!("{family:?} TCP, paced ({} connections for requests), microseconds", extent.workers),
        &["what", "per second", "variant", "made %", "failed", "p50", "p90", "p99", "p99.9", "largest"],
    )
    .plot(Plot::lines("per second", "p99").panels("what").unit("p99, us").less_is_better());
    for turns in results {
        let (Some(rate), Some(all)) = (turns.mode.rate(), &turns.all) else { continue };
        let times = turns.mode.times(all);
        let mut cells: Vec<Cell> = vec![
            turns.mode.what().into(),
            rate.into(),
            turns.variant.name().into(),
            (100.0 * turns.mode.achieved(all) / f64::from(rate)).into(),
            (all.failed + all.broken).into(),
        ];
        cells.extend(QUANTILES.map(|q| microseconds(times.value_at_quantile(q))));
        cells.push(microseconds(times.max()));
        table.row(cells);
    }
    table
}

fn histogram(turns: Turns, family: Family) -> Option<(String, Histogram<u64>)> {
    let rate = turns.mode.rate()?;
    let family = if family == Family::V6 { ", IPv6" } else { "" };
    let name = format!("{}{family}/{}/{rate} per second", turns.mode.what(), turns.variant.name());
    Some((name, turns.mode.times(&turns.all?).clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_become_paces() {
        let (kept, brief) = Mode::Requests(Some(1_000)).demand(50);
        // Fifty connections, each twenty times a second.
        assert_eq!((kept.number, kept.pace), (50, Some(Duration::from_millis(50))));
        assert!(matches!(brief, Brief::Never));
        let (kept, brief) = Mode::Connections(Some(200)).demand(50);
        assert_eq!(kept.number, 0);
        assert!(matches!(brief, Brief::Every(pace) if pace == Duration::from_millis(5)));
        assert!(matches!(Mode::Connections(None).demand(7), (_, Brief::Workers(7))));
    }
}

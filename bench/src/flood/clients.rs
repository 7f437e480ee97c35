//! Whether real clients connect while a flood comes by the same link, and what those notice that are connected.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, anyhow};
use nix::net::if_::if_nametoindex;

use super::{Extent, SERVICES, SIZE, SOURCES, Way, profile, syns};
use crate::{
    generator::{
        End, Generator, Sent,
        abi::Traffic,
        interval,
        template::{Macs, Profile, Protocol, Segment},
    },
    host,
    limits::conntrack_max,
    load::{Brief, Kept, Outcome, PATIENCE},
    progress,
    report::{Cell, Plot, Section, Table},
    scene::{MACS, NEAR, gateway::Binaries, hosts::Hosts, objects::PORT},
    variants::Variant,
};

/// How long a flood comes before clients count: conntrack's usual table is full by then.
const LEAD: Duration = Duration::from_secs(2);
/// In which all connections are tried.
const WINDOW: Duration = Duration::from_secs(1);
/// Clients that are connected before, and from one of their requests to the next.
const KEPT: Kept = Kept { number: 20, pace: Some(Duration::from_millis(50)) };
/// How often the flood looks whether it is to end.
const SLICE: Duration = Duration::from_millis(100);
/// The longest that one takes.
pub(super) const LONGEST: Duration = LEAD.saturating_add(WINDOW).saturating_add(PATIENCE);

/// What came of the floods of a variant.
struct Result {
    way: Way,
    outcome: Option<Outcome>,
    sent: Sent,
    entries: u64,
}

pub(super) fn measure(
    extent: &Extent,
    ways: &[Way],
    binaries: &Binaries,
    cpu: usize,
    generator: &mut Generator,
    section: &mut Section,
) -> anyhow::Result<()> {
    let mut stages = Vec::new();
    for way in ways.iter().filter(|way| way.variant() != Variant::Drop) {
        progress(format_args!("flood: setting up {} with clients", way.name()));
        let hosts = Hosts::new(way.variant(), SERVICES, &way.binaries(binaries))?;
        let (from, bits) = SOURCES;
        let end = hosts.expect_flood(from, bits)?;
        stages.push((hosts, end, Result { way: *way, outcome: None, sent: Sent::default(), entries: 0 }));
    }
    for round in 1..=extent.floods {
        for (hosts, end, result) in &mut stages {
            let name = result.way.name();
            progress(format_args!("flood: clients of {name}, round {round} of {}", extent.floods));
            let turn = turn(hosts, end, extent, cpu, generator).with_context(|| name)?;
            section.samples.push(row(round, result.way, &turn));
            let Turn { outcome, sent, entries, .. } = turn;
            result.sent.packets += sent.packets;
            result.sent.elapsed += sent.elapsed;
            result.entries = result.entries.max(entries);
            match &mut result.outcome {
                Some(all) => all.add(&outcome)?,
                None => result.outcome = Some(outcome),
            }
        }
    }
    let results: Vec<_> = stages.into_iter().map(|(.., result)| result).collect();
    section.tables.push(table(extent, &results)?);
    let histograms = results.into_iter().filter_map(|result| {
        let name = format!("flood/{}/{} SYN per s", result.way.name(), extent.rate);
        Some((name, result.outcome?.opening))
    });
    section.histograms.extend(histograms.filter(|(_, values)| !values.is_empty()));
    section.notes.push(format!(
        "Clients: {} connections are tried in {:.0} s, {:.0} s after the flood began, which goes on until all have ended, \
         {} time(s); connected are those that connect, ask and are answered in {} s. {} more are connected before the flood \
         and ask every {} ms: broken ones were reset or closed, stuck ones had no answer at the end. SYNs are paced and \
         made on CPU {cpu}, which also does what follows from them; client and server run on any. Endpoints drop SYNs of the flood as they come in, \
         so that what is seen is the gateway's doing. Conntrack entries: the most at the end.",
        extent.connects,
        WINDOW.as_secs_f64(),
        LEAD.as_secs_f64(),
        extent.floods,
        PATIENCE.as_secs(),
        KEPT.number,
        KEPT.pace.unwrap_or_default().as_millis(),
    ));
    Ok(())
}

/// One flood.
struct Turn {
    outcome: Outcome,
    sent: Sent,
    /// What came back to the flood's sources.
    answered: u64,
    /// Of conntrack, at the end.
    entries: u64,
}

fn turn(
    hosts: &Hosts,
    end: &End,
    extent: &Extent,
    cpu: usize,
    generator: &mut Generator,
) -> anyhow::Result<Turn> {
    hosts.flush_conntrack()?;
    let mut client = hosts.client(KEPT, Brief::Every(WINDOW / extent.connects.max(1)))?;
    client.open()?;
    let [source, destination, ..] = MACS;
    let profile = profile(Profile {
        protocol: Protocol::Tcp(Segment::Syn),
        client: SOURCES.0.into(),
        service: SERVICES.address(0),
        services: SERVICES.number,
        port: PORT,
        size: SIZE,
        macs: Macs { destination, source },
    });
    let traffic = Traffic { interval: interval(extent.rate), ..syns(&profile) };
    let size = profile.frame(false);
    let stop = AtomicBool::new(false);
    let before = end.counts()?;
    let (outcome, sent) = thread::scope(|scope| {
        let flood = scope.spawn(|| {
            hosts.client.run(|| -> anyhow::Result<Sent> {
                host::pin(Some(cpu))?;
                let interface = if_nametoindex(NEAR)?;
                let mut sent = Sent::default();
                while !stop.load(Ordering::Relaxed) {
                    sent = generator.resume(interface, &traffic, size, SLICE, sent)?;
                }
                Ok(sent)
            })
        });
        let begin = Instant::now() + LEAD;
        let outcome = client.run(begin, begin + WINDOW);
        stop.store(true, Ordering::Relaxed);
        (outcome, flood.join().map_err(|_| anyhow!("the flood panicked")))
    });
    let (sent, outcome) = (sent???, outcome?);
    let entries = hosts.flows()?;
    let answered = end.counts()?.arrived - before.arrived;
    hosts.flush_conntrack()?;
    Ok(Turn { outcome, sent, answered, entries })
}

fn milliseconds(ns: u64) -> Cell {
    (ns as f64 / 1e6).into()
}

fn tried(outcome: &Outcome) -> u64 {
    outcome.opening.len() + outcome.failed
}

fn connected(outcome: &Outcome) -> f64 {
    100.0 * outcome.opening.len() as f64 / tried(outcome).max(1) as f64
}

fn per_second(sent: &Sent) -> f64 {
    sent.packets as f64 / sent.elapsed.as_secs_f64().max(1e-9)
}

fn table(extent: &Extent, results: &[Result]) -> anyhow::Result<Table> {
    let columns = [
        "variant",
        "connected %",
        "tried",
        "p50, ms",
        "p99, ms",
        "largest, ms",
        "broken before",
        "stuck before",
        "SYNs/s",
        "conntrack entries",
        "nf_conntrack_max",
    ];
    let mut table = Table::new(format!("real clients in a flood of {} SYNs/s", extent.rate), &columns)
        .plot(Plot::bars("connected %").more_is_better());
    for Result { way, outcome, sent, entries } in results {
        let Some(outcome) = outcome else { continue };
        let times = &outcome.opening;
        let time = |ns| if times.is_empty() { Cell::None } else { milliseconds(ns) };
        table.row([
            way.name().into(),
            connected(outcome).into(),
            tried(outcome).into(),
            time(times.value_at_quantile(0.5)),
            time(times.value_at_quantile(0.99)),
            time(times.max()),
            outcome.broken.into(),
            outcome.stuck.into(),
            per_second(sent).into(),
            (*entries).into(),
            conntrack_max()?.into(),
        ]);
    }
    Ok(table)
}

/// For the CSV file.
fn row(round: u32, way: Way, turn: &Turn) -> Vec<(&'static str, Cell)> {
    let Turn { outcome, sent, answered, entries } = turn;
    vec![
        ("what", "clients".into()),
        ("variant", way.name().into()),
        ("round", round.into()),
        ("tried", tried(outcome).into()),
        ("connected", outcome.opening.len().into()),
        ("connect_p99_ms", milliseconds(outcome.opening.value_at_quantile(0.99))),
        ("broken", outcome.broken.into()),
        ("stuck", outcome.stuck.into()),
        ("syns_per_second", per_second(sent).into()),
        ("answered_percent", (100.0 * *answered as f64 / sent.packets.max(1) as f64).into()),
        ("entries", (*entries).into()),
    ]
}

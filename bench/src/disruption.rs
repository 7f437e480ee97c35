//! What connections notice of events: how many break, and for how long the others stand still.
//!
//! Real connections through a real gateway ask at a steady pace, whether or not they are answered, and new ones are
//! opened all the time. Events happen in the midst of that, and are compared with nothing happening.

mod event;

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, anyhow};
use hdrhistogram::Histogram;

use self::event::Event;
use crate::{
    datapath::{SETUP, available},
    load::{Brief, Client, Kept, Outcome},
    progress,
    report::{Cell, Plot, Section, Table},
    scene::{
        gateway::Binaries,
        hosts::Hosts,
        objects::{Family, Services},
    },
    variants::Variant,
};

/// Of the service.
const ENDPOINTS: u32 = 10;
/// From one request of a connection to its next.
const PACE: Duration = Duration::from_millis(50);
/// From one new connection to the next.
const OPEN: Duration = Duration::from_millis(5);
/// How long it runs before the event.
const LEAD: Duration = Duration::from_millis(300);
/// How long what was done may take to be undone.
const SETTLE: Duration = Duration::from_millis(600);
/// Ways that have something to disturb.
const VARIANTS: [Variant; 3] = [Variant::FastPath, Variant::TcOnly, Variant::Nftables];

/// How much to measure.
#[derive(Clone, Debug)]
pub(crate) struct Extent {
    /// Connections that stay open.
    pub(crate) connections: u32,
    /// How long to look after an event.
    pub(crate) window: Duration,
    pub(crate) rounds: u32,
    pub(crate) families: Vec<Family>,
    pub(crate) variants: Vec<Variant>,
}

impl Extent {
    /// About how long it takes.
    pub(crate) fn expected(&self) -> Duration {
        let variants: Vec<_> = VARIANTS.into_iter().filter(|v| self.variants.contains(v)).collect();
        let concerns = |event: Event| variants.iter().filter(|variant| event.concerns(**variant)).count();
        let turns = Event::ALL.into_iter().map(concerns).sum::<usize>() as u32;
        let turn = LEAD + self.window + SETTLE + Duration::from_millis(500);
        (turn * turns * self.rounds + SETUP * variants.len() as u32) * self.families.len() as u32
    }
}

/// A gateway and its clients.
struct Stage {
    hosts: Hosts,
    client: Client,
}

/// What came of an event, over all rounds.
struct Result {
    event: Event,
    variant: Variant,
    family: Family,
    outcome: Outcome,
}

pub(crate) fn measure(extent: &Extent, binaries: &Binaries) -> anyhow::Result<Section> {
    let mut section = Section { name: "disruption", ..Section::default() };
    let wanted: Vec<_> = VARIANTS.into_iter().filter(|variant| extent.variants.contains(variant)).collect();
    let (variants, notes) = available(&wanted, binaries);
    section.notes = notes;
    for family in &extent.families {
        let mut stages = set_up(extent, &variants, *family, binaries)?;
        let mut results: Vec<Result> = Vec::new();
        for round in 1..=extent.rounds {
            for event in Event::ALL {
                progress(format_args!(
                    "disruption: {family:?}: {}, round {round} of {}",
                    event.name(),
                    extent.rounds
                ));
                for stage in stages.iter_mut().filter(|stage| event.concerns(stage.hosts.variant)) {
                    let variant = stage.hosts.variant;
                    let what = || format!("{}: {}", variant.name(), event.name());
                    let (outcome, note) = stage.turn(event, extent.window).with_context(what)?;
                    section.samples.push(row(event, variant, *family, round, &outcome));
                    section.notes.extend(note);
                    let known = results.iter_mut().find(|r| r.event == event && r.variant == variant);
                    match known {
                        Some(result) => result.outcome.add(&outcome)?,
                        None => results.push(Result { event, variant, family: *family, outcome }),
                    }
                }
            }
        }
        section.tables.push(table(&results, extent, *family));
        section.histograms.extend(results.into_iter().flat_map(histograms));
    }
    section.notes.push(format!(
        "{} connections each ask every {} ms, and one new connection in {} ms is opened, asks and closes, while an event \
         happens; looked at for {:.1} s from then, {} time(s), by turns. Broken: reset or closed. Stuck: no answer for the \
         last {} s. Stall: the longest silence of each connection that did not break, above the pace. Delay: from when a \
         request was due to its answer, so that nothing is omitted while a connection stands still. Failed: new \
         connections that were refused or reset, or had no answer in {} s.",
        extent.connections,
        PACE.as_millis(),
        OPEN.as_millis(),
        extent.window.as_secs_f64(),
        extent.rounds,
        crate::load::PATIENCE.as_secs(),
        crate::load::PATIENCE.as_secs(),
    ));
    section.notes.push(
        "nftables as kube-proxy's has no daemon here: its rules are changed as kube-proxy would, in one transaction, \
         nobody writes them again when they are flushed, and there is nothing to restart."
            .to_owned(),
    );
    Ok(section)
}

fn set_up(
    extent: &Extent,
    variants: &[Variant],
    family: Family,
    binaries: &Binaries,
) -> anyhow::Result<Vec<Stage>> {
    let services = Services { family, udp: false, number: 1, endpoints: ENDPOINTS, masquerade: false };
    let mut stages = Vec::new();
    for variant in variants {
        progress(format_args!("disruption: {family:?}: setting up {}", variant.name()));
        let hosts = Hosts::new(*variant, services, binaries)?;
        let kept = Kept { number: extent.connections, pace: Some(PACE) };
        let client = hosts.client(kept, Brief::Every(OPEN))?;
        stages.push(Stage { hosts, client });
    }
    Ok(stages)
}

impl Stage {
    /// Lets the event happen under load, and undoes it.
    fn turn(&mut self, event: Event, window: Duration) -> anyhow::Result<(Outcome, Option<String>)> {
        let Self { hosts, client } = self;
        client.open()?;
        let begin = Instant::now() + LEAD;
        let (outcome, acted) = thread::scope(|scope| {
            let load = scope.spawn(|| client.run(begin, begin + window));
            thread::sleep(begin.saturating_duration_since(Instant::now()));
            let acted = event.act(hosts);
            let outcome = load.join().map_err(|_| anyhow!("the client panicked"));
            (outcome, acted)
        });
        acted?;
        let note = event.undo(hosts)?;
        thread::sleep(SETTLE);
        Ok((outcome??, note))
    }
}

fn milliseconds(ns: u64) -> Cell {
    (ns as f64 / 1e6).into()
}

fn table(results: &[Result], extent: &Extent, family: Family) -> Table {
    let mut table = Table::new(
        format!("{family:?} TCP, {} connections; milliseconds", extent.connections),
        &[
            "event",
            "variant",
            "broken",
            "stuck",
            "stall p50",
            "stall p99",
            "longest stall",
            "delay p99",
            "delay p99.9",
            "new connections",
            "failed",
            "new p99",
            "slowest new",
        ],
    )
    .plot(Plot::bars("longest stall").panels("event").unit("longest stall, ms").less_is_better());
    for event in Event::ALL {
        for Result { variant, outcome, .. } in results.iter().filter(|result| result.event == event) {
            let Outcome { stalls, delays, opening, .. } = outcome;
            table.row([
                event.name().into(),
                variant.name().into(),
                outcome.broken.into(),
                outcome.stuck.into(),
                milliseconds(stalls.value_at_quantile(0.5)),
                milliseconds(stalls.value_at_quantile(0.99)),
                milliseconds(stalls.max()),
                milliseconds(delays.value_at_quantile(0.99)),
                milliseconds(delays.value_at_quantile(0.999)),
                (opening.len() + outcome.failed).into(),
                outcome.failed.into(),
                milliseconds(opening.value_at_quantile(0.99)),
                milliseconds(opening.max()),
            ]);
        }
    }
    table
}

fn histograms(result: Result) -> [(String, Histogram<u64>); 3] {
    let Result { event, variant, family, outcome } = result;
    let family = if family == Family::V6 { ", IPv6" } else { "" };
    let name = |what| format!("{what}{family}/{}/{}", variant.name(), event.name());
    [
        (name("disruption, stalls"), outcome.stalls),
        (name("disruption, delays"), outcome.delays),
        (name("disruption, new connections"), outcome.opening),
    ]
}

/// For the CSV file.
fn row(
    event: Event,
    variant: Variant,
    family: Family,
    round: u32,
    outcome: &Outcome,
) -> Vec<(&'static str, Cell)> {
    vec![
        ("event", event.name().into()),
        ("variant", variant.name().into()),
        ("family", format!("{family:?}").into()),
        ("round", round.into()),
        ("broken", outcome.broken.into()),
        ("stuck", outcome.stuck.into()),
        ("stall_p50_ms", milliseconds(outcome.stalls.value_at_quantile(0.5))),
        ("stall_max_ms", milliseconds(outcome.stalls.max())),
        ("delay_p99_ms", milliseconds(outcome.delays.value_at_quantile(0.99))),
        ("new", (outcome.opening.len() + outcome.failed).into()),
        ("new_failed", outcome.failed.into()),
        ("new_max_ms", milliseconds(outcome.opening.max())),
    ]
}

//! How late packets of established flows arrive, at several offered loads.
//!
//! Packets have times at which they are due, whether or not the one before got through, and carry them: one that waits
//! because the machine is busy counts from when it should have been sent, not from when it could.

use std::time::Duration;

use hdrhistogram::Histogram;

use crate::{
    datapath::{SETUP, available},
    generator::{Generator, Kind, abi::Traffic, interval, latency::histogram},
    progress,
    report::{Cell, Section, Table},
    scene::{
        Scene,
        gateway::Binaries,
        objects::{Family, Services},
    },
    variants::Variant,
};

const FLOWS: u32 = 1_000;
/// Bytes of a frame; there has to be room for the time.
const SIZE: usize = 96;
/// Percentiles in the table.
const QUANTILES: [f64; 4] = [0.5, 0.9, 0.99, 0.999];

/// How much to measure.
#[derive(Clone, Debug)]
pub(crate) struct Extent {
    /// Packets a second.
    pub(crate) loads: Vec<u32>,
    pub(crate) rounds: u32,
    pub(crate) turn: Duration,
    pub(crate) variants: Vec<Variant>,
    pub(crate) generator: Kind,
}

impl Extent {
    /// About how long it takes.
    pub(crate) fn expected(&self) -> Duration {
        let turns = (self.turn + Duration::from_millis(50)) * self.rounds * self.loads.len() as u32;
        (SETUP + turns) * self.variants.len() as u32
    }
}

pub(crate) fn measure(extent: &Extent, binaries: &Binaries, cpu: usize) -> anyhow::Result<Section> {
    let mut section = Section { name: "latency", ..Section::default() };
    let wanted: Vec<_> =
        extent.variants.iter().copied().filter(|variant| *variant != Variant::Drop).collect();
    let (variants, notes) = available(&wanted, binaries);
    section.notes = notes;
    let mut generator = Generator::load(extent.generator)?;
    let services = Services { family: Family::V4, udp: false, number: 1, endpoints: 10, masquerade: false };
    let mut scenes = Vec::new();
    for variant in &variants {
        let mut scene = Scene::new(*variant, services, binaries, cpu)?;
        scene.establish(&mut generator, FLOWS)?;
        scenes.push(scene);
    }
    let mut table = Table::new(
        "microseconds from when a packet was due to its arrival",
        &["packets/s", "variant", "made %", "lost %", "p50", "p90", "p99", "p99.9", "largest"],
    );
    for load in &extent.loads {
        let mut all: Vec<Turns> = Vec::new();
        for _ in &scenes {
            all.push(Turns { values: histogram()?, made: 0, arrived: 0, seconds: 0.0 });
        }
        for round in 1..=extent.rounds {
            progress(format_args!("latency: {load} packets/s: round {round} of {}", extent.rounds));
            for (scene, turns) in scenes.iter_mut().zip(&mut all) {
                turns.add(scene, &mut generator, *load, extent.turn)?;
            }
        }
        for (scene, turns) in scenes.iter().zip(all) {
            let name = scene.variant.name();
            let expected = turns.seconds * f64::from(*load);
            let mut cells: Vec<Cell> = vec![
                (*load).into(),
                name.into(),
                (100.0 * turns.made as f64 / expected.max(1.0)).min(100.0).into(),
                (100.0 * (1.0 - turns.arrived as f64 / turns.made.max(1) as f64)).max(0.0).into(),
            ];
            let quantiles = QUANTILES.map(|q| turns.values.value_at_quantile(q));
            cells.extend(
                quantiles.into_iter().chain([turns.values.max()]).map(|ns| Cell::from(ns as f64 / 1e3)),
            );
            table.row(cells);
            section.histograms.push((format!("latency/{name}/{load} packets per second"), turns.values));
        }
    }
    section.tables.push(table);
    section.notes.push(format!(
        "Open loop: packets of {SIZE} bytes in {FLOWS} flows, due at equal distances and late from then on, so that \
         nothing is omitted when all wait. One CPU makes, forwards and drops them. Made: share of what was due in the \
         time; less than 100 is overload."
    ));
    Ok(section)
}

/// What a variant has done under one load.
struct Turns {
    values: Histogram<u64>,
    made: u64,
    arrived: u64,
    seconds: f64,
}

impl Turns {
    fn add(
        &mut self,
        scene: &mut Scene,
        generator: &mut Generator,
        load: u32,
        turn: Duration,
    ) -> anyhow::Result<()> {
        let profile = scene.profile(scene.established(), SIZE)?;
        let traffic = Traffic { interval: interval(load), ..profile.traffic(FLOWS, true) };
        scene.end().stamped(true)?;
        scene.end().latencies()?;
        let passed = scene.send(generator, &traffic, profile.frame(true), turn);
        scene.end().stamped(false)?;
        let passed = passed?;
        self.values.add(scene.end().latencies()?)?;
        self.made += passed.sent.packets;
        self.arrived += passed.arrived;
        self.seconds += passed.sent.elapsed.as_secs_f64();
        Ok(())
    }
}

//! What a packet of an established flow costs, by every way through the gateway.
//!
//! All variants exist side by side and take turns, so that whatever else the machine does falls on all of them. Each
//! turn is compared with the bare redirect of the same round.

use std::{
    collections::BTreeMap,
    fs,
    time::{Duration, Instant},
};

use anyhow::Context as _;

use crate::{
    generator::{Generator, abi::Traffic},
    progress,
    report::{Cell, Plot, Section, Table},
    scene::{
        Passed, Scene,
        gateway::Binaries,
        objects::{Family, Services},
    },
    stats::Range,
    variants::Variant,
};

/// The calibrating loop's rounds.
const SPIN: u64 = 2_000_000;

/// What it takes to set a variant up, and to establish a flow.
pub(crate) const SETUP: Duration = Duration::from_secs(1);
const ESTABLISHED: Duration = Duration::from_micros(10);

/// How much to measure.
#[derive(Clone, Debug)]
pub(crate) struct Extent {
    pub(crate) flows: Vec<u32>,
    pub(crate) rounds: u32,
    /// How long each turn takes.
    pub(crate) turn: Duration,
    pub(crate) families: Vec<Family>,
    /// Bytes of a frame.
    pub(crate) size: usize,
    pub(crate) udp: bool,
    pub(crate) variants: Vec<Variant>,
}

impl Extent {
    /// About how long it takes.
    pub(crate) fn expected(&self) -> Duration {
        let variants = self.variants.len() as u32;
        // Caches are filled and flows established before each turn.
        let turns = (self.turn * 5 / 4 + Duration::from_millis(100)) * variants * self.rounds;
        let opened = self.flows.iter().copied().fold(0, u32::saturating_add);
        let each = SETUP * variants + turns * self.flows.len() as u32 + ESTABLISHED * opened * variants;
        each * self.families.len() as u32
    }
}

/// One turn.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    pub(crate) variant: Variant,
    pub(crate) flows: u32,
    pub(crate) round: u32,
    pub(crate) nanoseconds: f64,
    pub(crate) lost: f64,
    /// Nanoseconds of the calibrating loop beside it.
    pub(crate) calibration: f64,
}

/// Which of `wanted` can be measured here, and why not the others.
pub(crate) fn available(wanted: &[Variant], binaries: &Binaries) -> (Vec<Variant>, Vec<String>) {
    let (mut here, mut notes) = (Vec::new(), Vec::new());
    for variant in wanted {
        match binaries.lack(*variant) {
            None => here.push(*variant),
            Some(reason) => notes.push(format!("Left out: {}: {reason}.", variant.name())),
        }
    }
    (here, notes)
}

/// `nf_conntrack_max`, which only the machine's own network namespace can set.
pub(crate) fn conntrack_max() -> anyhow::Result<u32> {
    let path = "/proc/sys/net/netfilter/nf_conntrack_max";
    Ok(fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?.trim().parse()?)
}

/// Nanoseconds that a loop takes which touches no memory: how fast this CPU is just now.
pub(crate) fn calibrate() -> f64 {
    let began = Instant::now();
    let mut state = 1_u64;
    for n in 0..SPIN {
        state = std::hint::black_box(state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(n));
    }
    began.elapsed().as_nanos() as f64
}

pub(crate) fn measure(extent: &Extent, binaries: &Binaries, cpu: usize) -> anyhow::Result<Section> {
    let mut section = Section { name: "datapath", ..Section::default() };
    let (variants, notes) = available(&extent.variants, binaries);
    section.notes = notes;
    let most = conntrack_max()?;
    let (flows, too_many): (Vec<u32>, Vec<u32>) =
        extent.flows.iter().partition(|flows| u64::from(**flows) + 1_000 < u64::from(most));
    for flows in too_many {
        section.notes.push(format!("Left out: {flows} flows: nf_conntrack_max is {most}."));
    }
    let mut generator = Generator::load()?;
    for family in &extent.families {
        let services =
            Services { family: *family, udp: extent.udp, number: 1, endpoints: 10, masquerade: false };
        let mut scenes = Vec::new();
        for variant in &variants {
            progress(format_args!("datapath: {family:?}: setting up {}", variant.name()));
            match Scene::new(*variant, services, binaries, cpu) {
                Ok(scene) => scenes.push(scene),
                Err(error) => section.notes.push(format!("Left out: {}: {error:#}.", variant.name())),
            }
        }
        let mut all = Vec::new();
        let mut tables = Vec::new();
        for flows in &flows {
            let samples = rounds(extent, &mut scenes, &mut generator, *flows, *family)?;
            tables.push(table(&samples, extent, *family, *flows));
            section.samples.extend(samples.iter().map(|sample| row(sample, *family, extent)));
            all.extend(samples);
        }
        if flows.len() > 1 {
            section.tables.push(overview(&all, extent, *family));
        }
        section.tables.append(&mut tables);
    }
    section.notes.push(format!(
        "Median (lowest..highest) of {} turns of {} ms each, taken in rounds; one CPU makes, forwards and drops the \
         packets. Ratio: bare XDP_REDIRECT of the same round by this, so 1 is as fast. Above XDP_DROP: what is left when \
         making and dropping a packet is subtracted. Loop: the calibrating loop, by its fastest run.",
        extent.rounds,
        extent.turn.as_millis()
    ));
    Ok(section)
}

fn rounds(
    extent: &Extent,
    scenes: &mut [Scene],
    generator: &mut Generator,
    flows: u32,
    family: Family,
) -> anyhow::Result<Vec<Sample>> {
    let mut samples = Vec::new();
    for round in 1..=extent.rounds {
        progress(format_args!("datapath: {family:?}, {flows} flows: round {round} of {}", extent.rounds));
        for scene in &mut *scenes {
            let name = scene.variant.name();
            scene.establish(generator, flows)?;
            // Caches, of verdicts too, fill before the turn that counts.
            turn(scene, generator, extent, flows, extent.turn / 4)?;
            let calibration = calibrate_on(scene.cpu())?;
            let passed = turn(scene, generator, extent, flows, extent.turn)?;
            anyhow::ensure!(passed.arrived > 0, "{name}: no packet arrived");
            scene.forget_if_many(flows)?;
            samples.push(Sample {
                variant: scene.variant,
                flows,
                round,
                nanoseconds: passed.nanoseconds(),
                lost: passed.lost(),
                calibration,
            });
        }
    }
    Ok(samples)
}

fn calibrate_on(cpu: usize) -> anyhow::Result<f64> {
    let thread = std::thread::spawn(move || crate::host::pin(Some(cpu)).map(|_| calibrate()));
    thread.join().map_err(|_| anyhow::anyhow!("the calibrating loop panicked"))?
}

fn turn(
    scene: &mut Scene,
    generator: &mut Generator,
    extent: &Extent,
    flows: u32,
    longest: Duration,
) -> anyhow::Result<Passed> {
    let profile = scene.profile(scene.established(), extent.size)?;
    let traffic: Traffic = profile.traffic(flows, false);
    scene.send(generator, &traffic, profile.frame(false), longest)
}

fn table(samples: &[Sample], extent: &Extent, family: Family, flows: u32) -> Table {
    let protocol = if extent.udp { "UDP" } else { "TCP" };
    let mut table = Table::new(
        format!("{family:?} {protocol}, frames of {} bytes, {flows} established flows", extent.size),
        &["variant", "ns/packet", "Mpps per core", "ratio", "above XDP_DROP, ns", "lost %", "loop"],
    )
    .plot(Plot::bars("Mpps per core").ratio("ratio", Variant::Redirect.name()).more_is_better());
    let of = |variant: Variant, round: u32| {
        samples.iter().find(|s| s.variant == variant && s.round == round).map(|s| s.nanoseconds)
    };
    let fastest = samples.iter().map(|sample| sample.calibration).fold(f64::INFINITY, f64::min);
    let mut by_variant: BTreeMap<Variant, Vec<&Sample>> = BTreeMap::new();
    for sample in samples {
        by_variant.entry(sample.variant).or_default().push(sample);
    }
    for (variant, samples) in by_variant {
        let range = |f: &dyn Fn(&Sample) -> Option<f64>| {
            Range::of(samples.iter().filter_map(|sample| f(sample)).collect())
        };
        table.row([
            variant.name().into(),
            range(&|s| Some(s.nanoseconds)).into(),
            range(&|s| Some(1e3 / s.nanoseconds)).into(),
            range(&|s| Some(of(Variant::Redirect, s.round)? / s.nanoseconds)).into(),
            range(&|s| Some(s.nanoseconds - of(Variant::Drop, s.round)?)).map(|r| r.median).into(),
            range(&|s| Some(s.lost.max(0.0))).map(|r| r.median).into(),
            range(&|s| Some(s.calibration / fastest)).map(|r| r.median).into(),
        ]);
    }
    table
}

/// What flows cost as they become more.
fn overview(samples: &[Sample], extent: &Extent, family: Family) -> Table {
    let protocol = if extent.udp { "UDP" } else { "TCP" };
    let mut table = Table::new(
        format!("{family:?} {protocol}, frames of {} bytes, by number of flows", extent.size),
        &["variant", "flows", "ns/packet"],
    )
    .plot(Plot::lines("flows", "ns/packet").less_is_better());
    let mut turns: BTreeMap<(Variant, u32), Vec<f64>> = BTreeMap::new();
    for sample in samples {
        turns.entry((sample.variant, sample.flows)).or_default().push(sample.nanoseconds);
    }
    for ((variant, flows), nanoseconds) in turns {
        table.row([variant.name().into(), flows.into(), Range::of(nanoseconds).into()]);
    }
    table
}

/// For the CSV file.
fn row(sample: &Sample, family: Family, extent: &Extent) -> Vec<(&'static str, Cell)> {
    vec![
        ("family", format!("{family:?}").into()),
        ("protocol", if extent.udp { "UDP" } else { "TCP" }.into()),
        ("bytes", (extent.size as u64).into()),
        ("variant", sample.variant.name().into()),
        ("flows", sample.flows.into()),
        ("round", sample.round.into()),
        ("ns_per_packet", sample.nanoseconds.into()),
        ("lost_percent", sample.lost.into()),
        ("calibration_ns", sample.calibration.into()),
    ]
}

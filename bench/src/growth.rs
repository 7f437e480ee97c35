//! What becomes of packets when there are more services: of established flows, of new ones, and in a flood of SYNs.
//!
//! All variants exist side by side with every number of services and take turns, so that each figure is compared with
//! others of the same round.

mod flood;

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};

use crate::{
    datapath::{SETUP, available, calibrate_on},
    generator::{
        Generator, Kind,
        abi::Traffic,
        template::{Protocol, Segment},
    },
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

/// Flows that packets to many services belong to.
const FLOWS: u32 = 10_000;
/// Of each service.
const ENDPOINTS: u32 = 3;
/// Longest turn of new flows.
const LONGEST: Duration = Duration::from_secs(10);
/// iptables looks through its rules one by one; more services than these take too long to load.
const IPTABLES: u32 = 1_000;
/// Bytes of a frame.
const SIZE: usize = 60;
/// Ways that choose endpoints.
const VARIANTS: [Variant; 6] = [
    Variant::FastPath,
    Variant::XdpDecides,
    Variant::TcOnly,
    Variant::Nftables,
    Variant::Iptables,
    Variant::KubeProxy,
];

/// How much to measure.
#[derive(Clone, Debug)]
pub(crate) struct Extent {
    pub(crate) services: Vec<u32>,
    pub(crate) rounds: u32,
    pub(crate) turn: Duration,
    /// New flows in a turn.
    pub(crate) new: u32,
    /// Floods of each variant.
    pub(crate) floods: u32,
    /// Clients' addresses are replaced.
    pub(crate) masquerade: bool,
    pub(crate) variants: Vec<Variant>,
    pub(crate) generator: Kind,
}

impl Extent {
    /// About how long it takes.
    pub(crate) fn expected(&self) -> Duration {
        let variants = self.variants.iter().filter(|variant| VARIANTS.contains(variant)).count() as u32;
        // New flows, at ten microseconds each, and packets of established ones; loading rules for a service.
        let turns = (Duration::from_micros(10) * self.new + self.turn) * self.rounds;
        let cached = Variant::FastPath;
        let cached = if self.variants.contains(&cached) { cached.turn(self.turn) } else { self.turn };
        let longer = cached.saturating_sub(self.turn);
        let longer = longer * self.rounds * self.services.len() as u32;
        let loading = Duration::from_millis(3) * self.services.iter().sum::<u32>();
        ((SETUP + turns) * self.services.len() as u32 + loading) * 2 * variants
            + longer
            + flood::expected() * self.floods * variants
    }
}

/// What a turn is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    Established,
    New,
}

/// One turn.
#[derive(Clone, Copy, Debug)]
struct Sample {
    what: What,
    udp: bool,
    variant: Variant,
    services: u32,
    round: u32,
    nanoseconds: f64,
    lost: f64,
    /// Share of the CPU's time that other processes had, in percent.
    others: f64,
    /// Nanoseconds of the calibrating loop beside it.
    calibration: f64,
}

pub(crate) fn measure(extent: &Extent, binaries: &Binaries, cpu: usize) -> anyhow::Result<Section> {
    let mut section = Section { name: "growth", ..Section::default() };
    let wanted: Vec<_> = VARIANTS.into_iter().filter(|variant| extent.variants.contains(variant)).collect();
    let (variants, notes) = available(&wanted, binaries);
    section.notes = notes;
    if variants.is_empty() {
        return Ok(section);
    }
    let mut generator = Generator::load(extent.generator)?;
    let mut samples = Vec::new();
    for udp in [false, true] {
        let mut scenes = set_up(extent, &variants, udp, binaries, cpu, &mut section.notes)?;
        for round in 1..=extent.rounds {
            progress(format_args!("growth: {}: round {round} of {}", protocol(udp), extent.rounds));
            for scene in &mut scenes {
                samples.extend(turns(scene, &mut generator, extent, round)?);
            }
        }
    }
    section.tables.push(established(&samples));
    section.tables.push(new(&samples));
    section.samples = samples.iter().map(row).collect();
    section.notes.push(format!(
        "Median (lowest..highest) of {} turns of each, taken in rounds by all variants with all numbers of services, which \
         exist side by side; ratios are of the same round. Every service has {ENDPOINTS} endpoints; packets go to all \
         services, one after the other. Established: turns of {} ms, {} ms with the cache. New flows: {} packets of {SIZE} \
         bytes, each a flow of its own, into an empty conntrack table. Times are of the CPU: what other processes took of it \
         is not counted. Loop: the calibrating loop, by its fastest run.",
        extent.rounds,
        extent.turn.as_millis(),
        Variant::FastPath.turn(extent.turn).as_millis(),
        extent.new
    ));
    if extent.floods > 0 {
        section.tables.push(flood::measure(extent, &variants, binaries, cpu, &mut generator)?);
        section.notes.push(flood::note()?);
    }
    Ok(section)
}

fn set_up(
    extent: &Extent,
    variants: &[Variant],
    udp: bool,
    binaries: &Binaries,
    cpu: usize,
    notes: &mut Vec<String>,
) -> anyhow::Result<Vec<Scene>> {
    let mut scenes = Vec::new();
    for &number in &extent.services {
        let services =
            Services { family: Family::V4, udp, number, endpoints: ENDPOINTS, masquerade: extent.masquerade };
        for variant in variants {
            let what = format!("{}, {number} {} services", variant.name(), protocol(udp));
            if *variant == Variant::Iptables && number > IPTABLES {
                notes.push(format!("Left out: {what}: takes too long to load."));
                continue;
            }
            progress(format_args!("growth: setting up {what}"));
            let began = Instant::now();
            scenes.push(Scene::new(*variant, services, binaries, cpu).with_context(|| what.clone())?);
            if began.elapsed() > LONGEST {
                notes.push(format!("{what}: took {:.0} s to load.", began.elapsed().as_secs_f64()));
            }
        }
    }
    Ok(scenes)
}

/// Established flows, and then new ones.
fn turns(
    scene: &mut Scene,
    generator: &mut Generator,
    extent: &Extent,
    round: u32,
) -> anyhow::Result<Vec<Sample>> {
    let mut samples = Vec::new();
    let sample = |scene: &Scene, what, calibration, passed: Passed| Sample {
        what,
        udp: scene.services.udp,
        variant: scene.variant,
        services: scene.services.number,
        round,
        nanoseconds: passed.nanoseconds(),
        lost: passed.lost(),
        others: passed.others(),
        calibration,
    };
    // An answered UDP flow takes two seconds to count as assured; established ones differ little from those of TCP.
    if !scene.services.udp {
        scene.establish(generator, FLOWS)?;
        let profile = scene.profile(scene.established(), SIZE)?;
        let traffic = profile.traffic(FLOWS, false);
        // Caches, of verdicts too, fill before the turn that counts.
        let turn = scene.variant.turn(extent.turn);
        scene.send(generator, &traffic, SIZE, turn / 4)?;
        let calibration = calibrate_on(scene.cpu())?;
        let passed = scene.send(generator, &traffic, SIZE, turn)?;
        samples.push(sample(scene, What::Established, calibration, passed));
    }
    scene.forget()?;
    let calibration = calibrate_on(scene.cpu())?;
    let passed = open(scene, generator, extent.new)?;
    ensure!(passed.lost() < 50.0, "{}: lost {:.0} % of new flows", scene.variant.name(), passed.lost());
    samples.push(sample(scene, What::New, calibration, passed));
    scene.forget()?;
    Ok(samples)
}

/// Opens flows, one a packet.
fn open(scene: &mut Scene, generator: &mut Generator, flows: u32) -> anyhow::Result<Passed> {
    let protocol = if scene.services.udp { Protocol::Udp } else { Protocol::Tcp(Segment::Syn) };
    let profile = scene.profile(protocol, SIZE)?;
    let traffic = Traffic { random: 0, limit: flows.into(), ..profile.traffic(flows, false) };
    scene.send(generator, &traffic, SIZE, LONGEST)
}

/// Turns of the same kind, in rounds.
type Group = (Variant, bool, u32);

fn groups(samples: &[Sample], what: What) -> BTreeMap<Group, Vec<&Sample>> {
    let mut groups: BTreeMap<Group, Vec<&Sample>> = BTreeMap::new();
    for sample in samples.iter().filter(|sample| sample.what == what) {
        groups.entry((sample.variant, sample.udp, sample.services)).or_default().push(sample);
    }
    groups
}

/// The time of `base`'s turn by that of the same round; more than 1 is faster than `base`.
fn speed(of: &[&Sample], base: Option<&Vec<&Sample>>) -> Option<Range> {
    let base = base?;
    let ratio = |sample: &&Sample| {
        let other = base.iter().find(|other| other.round == sample.round)?;
        Some(other.nanoseconds / sample.nanoseconds)
    };
    Range::of(of.iter().filter_map(ratio).collect())
}

fn range(of: &[&Sample], f: impl Fn(&Sample) -> f64) -> Option<Range> {
    Range::of(of.iter().map(|sample| f(sample)).collect())
}

fn fastest(samples: &[Sample]) -> f64 {
    samples.iter().map(|sample| sample.calibration).fold(f64::INFINITY, f64::min)
}

fn fewest(samples: &[Sample]) -> u32 {
    samples.iter().map(|sample| sample.services).min().unwrap_or(1)
}

fn established(samples: &[Sample]) -> Table {
    let mut table = Table::new(
        format!("established TCP flows ({FLOWS}) to all services"),
        &["variant", "services", "ns/packet", "Mpps per core", "cost by fewest services", "lost %", "loop"],
    )
    .plot(Plot::lines("services", "ns/packet").less_is_better());
    let groups = groups(samples, What::Established);
    for ((variant, udp, services), turns) in &groups {
        let cost = speed(turns, groups.get(&(*variant, *udp, fewest(samples)))).map(inverse);
        table.row([
            variant.name().into(),
            (*services).into(),
            range(turns, |s| s.nanoseconds).into(),
            range(turns, |s| 1e3 / s.nanoseconds).into(),
            cost.into(),
            range(turns, |s| s.lost.max(0.0)).map(|r| r.median).into(),
            range(turns, |s| s.calibration / fastest(samples)).map(|r| r.median).into(),
        ]);
    }
    table
}

/// The range of values' inverses.
fn inverse(range: Range) -> Range {
    Range { median: 1.0 / range.median, min: 1.0 / range.max, max: 1.0 / range.min, ..range }
}

fn new(samples: &[Sample]) -> Table {
    let mut table = Table::new(
        "new flows; rate by that of the nftables ruleset",
        &[
            "variant",
            "protocol",
            "services",
            "thousand/s per core",
            "us each",
            "by nftables, fewest",
            "by nftables, as many",
            "lost %",
            "loop",
        ],
    )
    .plot(Plot::lines("services", "thousand/s per core").panels("protocol").more_is_better());
    let groups = groups(samples, What::New);
    for ((variant, udp, services), turns) in &groups {
        let by = |services| speed(turns, groups.get(&(Variant::Nftables, *udp, services)));
        table.row([
            variant.name().into(),
            protocol(*udp).into(),
            (*services).into(),
            range(turns, |s| 1e6 / s.nanoseconds).into(),
            range(turns, |s| s.nanoseconds / 1e3).into(),
            by(fewest(samples)).into(),
            by(*services).into(),
            range(turns, |s| s.lost.max(0.0)).map(|r| r.median).into(),
            range(turns, |s| s.calibration / fastest(samples)).map(|r| r.median).into(),
        ]);
    }
    table
}

const fn protocol(udp: bool) -> &'static str {
    if udp { "UDP" } else { "TCP" }
}

/// For the CSV file.
fn row(sample: &Sample) -> Vec<(&'static str, Cell)> {
    vec![
        ("what", if sample.what == What::New { "new" } else { "established" }.into()),
        ("protocol", protocol(sample.udp).into()),
        ("services", sample.services.into()),
        ("variant", sample.variant.name().into()),
        ("round", sample.round.into()),
        ("ns_per_packet", sample.nanoseconds.into()),
        ("lost_percent", sample.lost.into()),
        ("others_percent", sample.others.into()),
        ("calibration_ns", sample.calibration.into()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    const TURN: Sample = Sample {
        what: What::New,
        udp: false,
        variant: Variant::Nftables,
        services: 1,
        round: 1,
        nanoseconds: 4_000.0,
        lost: 0.0,
        others: 0.0,
        calibration: 1.0,
    };

    #[test]
    fn turns_are_compared_with_those_of_their_round() {
        let samples = [
            TURN,
            Sample { round: 2, nanoseconds: 8_000.0, ..TURN },
            Sample { variant: Variant::TcOnly, nanoseconds: 2_000.0, ..TURN },
            Sample { variant: Variant::TcOnly, round: 2, nanoseconds: 4_000.0, ..TURN },
            Sample { variant: Variant::TcOnly, round: 3, nanoseconds: 9_000.0, ..TURN },
        ];
        let all = groups(&samples, What::New);
        let (own, base) = (&all[&(Variant::TcOnly, false, 1)], all.get(&(Variant::Nftables, false, 1)));
        let ratio = speed(own, base).unwrap();
        assert_eq!((ratio.count, ratio.min, ratio.max), (2, 2.0, 2.0));
        assert!(groups(&samples, What::Established).is_empty());
        assert!(speed(own, None).is_none());
    }
}

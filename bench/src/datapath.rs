//! What a packet of an established flow costs, by every way through the gateway.
//!
//! All variants exist side by side and take turns, so that whatever else the machine does falls on all of them. Each
//! turn is compared with the bare redirect of the same round.

mod arguments;

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use nix::time::{ClockId, clock_gettime};

pub(crate) use self::arguments::{Arguments, Transport};
use crate::{
    generator::{Generator, Kind, abi::Traffic, interval},
    limits::{Room, conntrack_max},
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
    pub(crate) arguments: Arguments,
    pub(crate) full: bool,
    pub(crate) rounds: u32,
    /// How long each turn takes.
    pub(crate) turn: Duration,
    pub(crate) variants: Vec<Variant>,
    pub(crate) generator: Kind,
}

impl Extent {
    /// About how long it takes.
    pub(crate) fn expected(&self) -> Duration {
        let kinds = self.kinds().into_iter().map(|(.., all)| {
            let variants = self.variants.iter().map(|variant| {
                // Caches are filled and flows established before each turn.
                let turn = variant.turn(self.turn) * 5 / 4 + Duration::from_millis(100);
                let turns = all.iter().map(|flows| (turn + ESTABLISHED * *flows) * self.rounds(*flows));
                SETUP + turns.sum::<Duration>()
            });
            variants.sum::<Duration>()
        });
        kinds.sum()
    }

    /// Families and protocols, and how many flows of them.
    fn kinds(&self) -> Vec<(Family, Transport, Vec<u32>)> {
        let Arguments { flows, protocol, .. } = &self.arguments;
        let protocols = match protocol.as_slice() {
            [] if self.full => vec![Transport::Tcp, Transport::Udp],
            [] => vec![Transport::Tcp],
            given => given.to_vec(),
        };
        let families = self.arguments.families(self.full);
        let kinds = families.into_iter().flat_map(|f| protocols.iter().map(move |p| (f, *p)));
        let kinds = kinds.enumerate().map(|(n, (family, protocol))| {
            // A million takes minutes, and so is for the first kind alone.
            let most = if self.full && n == 0 { MILLION } else { MILLION - 1 };
            let default = || FLOWS.into_iter().filter(|flows| *flows <= most).collect();
            (family, protocol, flows.clone().unwrap_or_else(default))
        });
        kinds.collect()
    }

    /// New flows that a turn opens at the most, at some five million packets a second.
    fn opened(&self) -> u32 {
        (self.arguments.fresh / 100.0 * self.turn.as_secs_f64() * 1.25 * 5e6) as u32
    }

    /// Turns of so many flows: fewer where each takes many seconds to set up.
    fn rounds(&self, flows: u32) -> u32 {
        if flows >= MILLION { self.rounds.min(3) } else { self.rounds }
    }
}

/// Flows, if not said otherwise.
const FLOWS: [u32; 4] = [1, 1_000, 100_000, MILLION];
const MILLION: u32 = 1_000_000;

/// One turn.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    pub(crate) variant: Variant,
    pub(crate) flows: u32,
    pub(crate) round: u32,
    pub(crate) nanoseconds: f64,
    pub(crate) lost: f64,
    /// Share of the CPU's time that other processes had, in percent.
    pub(crate) others: f64,
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

/// Nanoseconds that a loop takes which touches no memory, other processes' time on the CPU left out: how fast it is just
/// now.
fn calibrate() -> anyhow::Result<f64> {
    let now = || clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map(Duration::from);
    let began = now()?;
    let mut state = 1_u64;
    for n in 0..SPIN {
        state = std::hint::black_box(state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(n));
    }
    Ok(now()?.saturating_sub(began).as_nanos() as f64)
}

pub(crate) fn measure(extent: &Extent, binaries: &Binaries, cpu: usize) -> anyhow::Result<Section> {
    let mut section = Section { name: "datapath", ..Section::default() };
    let (variants, notes) = available(&extent.variants, binaries);
    section.notes = notes;
    let kinds = extent.kinds();
    let most = kinds.iter().flat_map(|(.., flows)| flows).max().copied().unwrap_or(0);
    let room = Room::make(most.saturating_add(extent.opened()))?;
    section.notes.extend(room.note());
    let mut generator = Generator::load(extent.generator)?;
    for (family, protocol, flows) in kinds {
        let services = Services {
            family,
            udp: protocol == Transport::Udp,
            number: 1,
            endpoints: 10,
            masquerade: extent.arguments.masquerade,
        };
        let mut scenes = Vec::new();
        for variant in &variants {
            progress(format_args!("datapath: {family:?} {}: setting up {}", protocol.name(), variant.name()));
            match Scene::new(*variant, services, binaries, cpu) {
                Ok(scene) => scenes.push(scene),
                Err(error) => section.notes.push(format!("Left out: {}: {error:#}.", variant.name())),
            }
        }
        let (mut all, mut tables) = (Vec::new(), Vec::new());
        for flows in flows {
            if flows > room.flows {
                section
                    .notes
                    .push(format!("Left out: {flows} flows: nf_conntrack_max is {}.", conntrack_max()?));
                continue;
            }
            let samples = rounds(extent, &mut scenes, &mut generator, flows)?;
            tables.push(table(&samples, extent, &services, flows));
            section.samples.extend(samples.iter().map(|sample| row(sample, &services, extent)));
            all.extend(samples);
        }
        if tables.len() > 1 {
            section.tables.push(overview(&all, extent, &services));
        }
        section.tables.append(&mut tables);
    }
    section.notes.push(note(extent, &generator));
    Ok(section)
}

fn note(extent: &Extent, generator: &Generator) -> String {
    let Arguments { fresh, rate, masquerade, .. } = &extent.arguments;
    let mut text = format!(
        "Median (lowest..highest) of {} turns of {} ms each ({} ms with the cache; 3 turns with a million flows), taken in \
         rounds; one CPU makes, forwards and drops the packets. Made by {}. Ratio: bare XDP_REDIRECT of the same round by \
         this, so 1 is as fast. Above XDP_DROP: what is left when making and dropping a packet is subtracted. Times are of \
         the CPU: what other processes took of it is not counted. Loop: the calibrating loop, by its fastest run.",
        extent.rounds,
        extent.turn.as_millis(),
        Variant::FastPath.turn(extent.turn).as_millis(),
        generator.name(),
    );
    // Writing to a `String` does not fail.
    if *fresh > 0.0 {
        let _ = write!(text, " {fresh} % of packets open a new flow.");
    }
    if let Some(rate) = rate {
        let _ = write!(text, " Packets were due at {rate} a second: times are from one to the next.");
    }
    if *masquerade {
        text.push_str(" Clients' addresses were replaced.");
    }
    text
}

fn rounds(
    extent: &Extent,
    scenes: &mut [Scene],
    generator: &mut Generator,
    flows: u32,
) -> anyhow::Result<Vec<Sample>> {
    let mut samples = Vec::new();
    let rounds = extent.rounds(flows);
    for round in 1..=rounds {
        progress(format_args!("datapath: {flows} flows: round {round} of {rounds}"));
        for scene in &mut *scenes {
            let name = scene.variant.name();
            let length = scene.variant.turn(extent.turn);
            scene.establish(generator, flows)?;
            // Caches, of verdicts too, fill before the turn that counts.
            turn(scene, generator, extent, flows, length / 4)?;
            let calibration = calibrate_on(scene.cpu())?;
            let passed = turn(scene, generator, extent, flows, length)?;
            anyhow::ensure!(passed.arrived > 0, "{name}: no packet arrived");
            scene.forget_if_many(flows.saturating_add(extent.opened()))?;
            samples.push(Sample {
                variant: scene.variant,
                flows,
                round,
                nanoseconds: passed.nanoseconds(),
                lost: passed.lost(),
                others: passed.others(),
                calibration,
            });
        }
    }
    Ok(samples)
}

/// The same on one CPU.
pub(crate) fn calibrate_on(cpu: usize) -> anyhow::Result<f64> {
    let thread = std::thread::spawn(move || crate::host::pin(Some(cpu)).and_then(|_| calibrate()));
    thread.join().map_err(|_| anyhow::anyhow!("the calibrating loop panicked"))?
}

fn turn(
    scene: &mut Scene,
    generator: &mut Generator,
    extent: &Extent,
    flows: u32,
    longest: Duration,
) -> anyhow::Result<Passed> {
    let arguments = &extent.arguments;
    let profile = scene.profile(scene.established(), arguments.size)?;
    let traffic = Traffic {
        fresh: arguments.fresh(),
        interval: arguments.rate.map_or(0, interval),
        ..profile.traffic(flows, false)
    };
    scene.send(generator, &traffic, profile.frame(false), longest)
}

fn table(samples: &[Sample], extent: &Extent, services: &Services, flows: u32) -> Table {
    let (family, protocol) = (services.family, services.protocol().to_uppercase());
    let mut table = Table::new(
        format!(
            "{family:?} {protocol}, frames of {} bytes, {flows} established flows",
            extent.arguments.size
        ),
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
fn overview(samples: &[Sample], extent: &Extent, services: &Services) -> Table {
    let (family, protocol) = (services.family, services.protocol().to_uppercase());
    let mut table = Table::new(
        format!("{family:?} {protocol}, frames of {} bytes, by number of flows", extent.arguments.size),
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
fn row(sample: &Sample, services: &Services, extent: &Extent) -> Vec<(&'static str, Cell)> {
    vec![
        ("family", format!("{:?}", services.family).into()),
        ("protocol", services.protocol().to_uppercase().into()),
        ("bytes", (extent.arguments.size as u64).into()),
        ("fresh_percent", extent.arguments.fresh.into()),
        ("rate", extent.arguments.rate.into()),
        ("masquerade", u32::from(services.masquerade).into()),
        ("variant", sample.variant.name().into()),
        ("flows", sample.flows.into()),
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

    fn extent(full: bool, family: Vec<Family>) -> Extent {
        let arguments = Arguments {
            flows: None,
            family,
            protocol: Vec::new(),
            size: 60,
            fresh: 0.0,
            rate: None,
            masquerade: false,
        };
        let turn = Duration::from_millis(200);
        Extent { arguments, full, rounds: 5, turn, variants: Vec::new(), generator: Kind::Auto }
    }

    #[test]
    fn a_million_flows_are_for_the_first_kind_of_a_full_run() {
        let short = extent(false, Vec::new()).kinds();
        assert_eq!(short, [(Family::V4, Transport::Tcp, vec![1, 1_000, 100_000])]);
        let full = extent(true, Vec::new()).kinds();
        assert_eq!(full.len(), 4);
        assert_eq!(full.iter().filter(|(.., flows)| flows.contains(&MILLION)).count(), 1);
        let v6 = extent(true, vec![Family::V6]).kinds();
        assert_eq!(v6.iter().map(|(.., flows)| flows.len()).collect::<Vec<_>>(), [4, 3]);
    }

    #[test]
    fn new_flows_need_room_too() {
        assert_eq!(extent(false, Vec::new()).opened(), 0);
        let mut some = extent(false, Vec::new());
        some.arguments.fresh = 50.0;
        assert!(some.opened() > 100_000);
    }
}

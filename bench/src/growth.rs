//! What becomes of packets when there are more services: of established flows, of new ones, and in a flood of SYNs.

use std::time::Duration;

use anyhow::ensure;

use crate::{
    datapath::{SETUP, available, conntrack_max},
    generator::{
        Generator,
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
/// New flows in a turn.
const NEW: u32 = 100_000;
/// Of each service.
const ENDPOINTS: u32 = 3;
/// Longest turn of new flows.
const LONGEST: Duration = Duration::from_secs(10);
/// iptables looks through its rules one by one; more services than these take too long to load.
const IPTABLES: u32 = 1_000;
/// Established flows in a flood.
const KEPT: u32 = 1_000;
/// SYNs in a flood for each entry that conntrack has room for.
const FLOOD: u64 = 2;
/// Bytes of a frame.
const SIZE: usize = 60;
/// Ways that choose endpoints.
const VARIANTS: [Variant; 5] =
    [Variant::FastPath, Variant::XdpDecides, Variant::TcOnly, Variant::Nftables, Variant::Iptables];

/// How much to measure.
#[derive(Clone, Debug)]
pub(crate) struct Extent {
    pub(crate) services: Vec<u32>,
    pub(crate) rounds: u32,
    pub(crate) turn: Duration,
    pub(crate) variants: Vec<Variant>,
}

impl Extent {
    /// About how long it takes.
    pub(crate) fn expected(&self) -> Duration {
        let variants = self.variants.iter().filter(|variant| VARIANTS.contains(variant)).count() as u32;
        // New flows, at ten microseconds each, and packets of established ones; loading rules for a service.
        let turns = (Duration::from_micros(10) * NEW + self.turn) * self.rounds;
        let loading = Duration::from_millis(3) * self.services.iter().sum::<u32>();
        let flood = LONGEST;
        ((SETUP + turns) * self.services.len() as u32 + loading) * 2 * variants + flood * variants
    }
}

/// Figures of one variant with so many services.
#[derive(Default)]
struct Figures {
    established: Vec<f64>,
    new: Vec<f64>,
}

pub(crate) fn measure(extent: &Extent, binaries: &Binaries, cpu: usize) -> anyhow::Result<Section> {
    let mut section = Section { name: "growth", ..Section::default() };
    let wanted: Vec<_> = VARIANTS.into_iter().filter(|variant| extent.variants.contains(variant)).collect();
    let (variants, notes) = available(&wanted, binaries);
    section.notes = notes;
    let mut generator = Generator::load()?;
    let mut established = Table::new(
        format!("established TCP flows ({FLOWS}) to all services, ns/packet"),
        &["variant", "services", "ns/packet", "Mpps per core"],
    )
    .plot(Plot::lines("services", "ns/packet").less_is_better());
    let mut new = Table::new(
        "new flows, thousand per second and core".to_owned(),
        &["variant", "protocol", "services", "thousand/s", "us each"],
    )
    .plot(Plot::lines("services", "thousand/s").panels("protocol").more_is_better());
    for udp in [false, true] {
        for &number in &extent.services {
            let services =
                Services { family: Family::V4, udp, number, endpoints: ENDPOINTS, masquerade: false };
            for variant in &variants {
                if *variant == Variant::Iptables && number > IPTABLES {
                    section.notes.push(format!("Left out: {} with {number} services.", variant.name()));
                    continue;
                }
                progress(format_args!(
                    "growth: {}, {number} {} services",
                    variant.name(),
                    services.protocol()
                ));
                let mut scene = Scene::new(*variant, services, binaries, cpu)?;
                let figures = figures(&mut scene, &mut generator, extent)?;
                for (what, values) in [("established", &figures.established), ("new", &figures.new)] {
                    section.samples.extend(values.iter().map(|value| row(&services, *variant, what, *value)));
                }
                let rate =
                    |values: &[f64], scale: f64| Range::of(values.iter().map(|ns| scale / ns).collect());
                if !udp {
                    established.row([
                        variant.name().into(),
                        number.into(),
                        Range::of(figures.established.clone()).into(),
                        rate(&figures.established, 1e3).into(),
                    ]);
                }
                new.row([
                    variant.name().into(),
                    services.protocol().to_uppercase().into(),
                    number.into(),
                    rate(&figures.new, 1e6).into(),
                    Range::of(figures.new.iter().map(|ns| ns / 1e3).collect()).into(),
                ]);
            }
        }
    }
    section.tables = vec![established, new, flood(&variants, binaries, cpu, &mut generator)?];
    section.notes.push(format!(
        "Every service has {ENDPOINTS} endpoints; packets go to all services. New flows: {NEW} packets of 60 bytes, each a \
         flow of its own, into an empty conntrack table. Flood: new flows, {FLOOD} for each entry that conntrack has room \
         for (nf_conntrack_max is {}), among packets of {KEPT} established flows.",
        conntrack_max()?
    ));
    Ok(section)
}

fn figures(scene: &mut Scene, generator: &mut Generator, extent: &Extent) -> anyhow::Result<Figures> {
    let mut figures = Figures::default();
    if !scene.services.udp {
        scene.establish(generator, FLOWS)?;
        for _ in 0..extent.rounds {
            let profile = scene.profile(scene.established(), SIZE)?;
            let passed = scene.send(generator, &profile.traffic(FLOWS, false), SIZE, extent.turn)?;
            figures.established.push(passed.nanoseconds());
        }
    }
    for _ in 0..extent.rounds {
        scene.forget()?;
        let passed = open(scene, generator, NEW)?;
        ensure!(passed.lost() < 50.0, "{}: lost {:.0} % of new flows", scene.variant.name(), passed.lost());
        figures.new.push(passed.nanoseconds());
    }
    scene.forget()?;
    Ok(figures)
}

/// Opens flows, one a packet.
fn open(scene: &mut Scene, generator: &mut Generator, flows: u32) -> anyhow::Result<Passed> {
    let protocol = if scene.services.udp { Protocol::Udp } else { Protocol::Tcp(Segment::Syn) };
    let profile = scene.profile(protocol, SIZE)?;
    let traffic = Traffic { random: 0, limit: flows.into(), ..profile.traffic(flows, false) };
    scene.send(generator, &traffic, SIZE, LONGEST)
}

/// A flood among established flows.
fn flood(
    variants: &[Variant],
    binaries: &Binaries,
    cpu: usize,
    generator: &mut Generator,
) -> anyhow::Result<Table> {
    let mut table = Table::new(
        "flood of SYNs among established flows",
        &["variant", "us/packet", "packets lost %", "established before", "established after"],
    )
    .plot(Plot::bars("us/packet").less_is_better());
    for variant in variants {
        progress(format_args!("growth: flood, {}", variant.name()));
        let services =
            Services { family: Family::V4, udp: false, number: 1, endpoints: ENDPOINTS, masquerade: false };
        let mut scene = Scene::new(*variant, services, binaries, cpu)?;
        scene.establish(generator, KEPT)?;
        let before = scene.assured()?;
        let profile = scene.profile(Protocol::Tcp(Segment::Ack), SIZE)?;
        // One packet in sixteen belongs to an established flow.
        let traffic = Traffic {
            fresh: 65_536 / 16 * 15,
            limit: u64::from(conntrack_max()?) * FLOOD,
            ..profile.traffic(KEPT, false)
        };
        let passed = scene.send(generator, &traffic, SIZE, LONGEST)?;
        let after = scene.assured()?;
        scene.forget()?;
        table.row([
            variant.name().into(),
            (passed.nanoseconds() / 1e3).into(),
            passed.lost().max(0.0).into(),
            (before as u64).into(),
            (after as u64).into(),
        ]);
    }
    Ok(table)
}

fn row(services: &Services, variant: Variant, what: &str, value: f64) -> Vec<(&'static str, Cell)> {
    vec![
        ("what", what.into()),
        ("protocol", services.protocol().into()),
        ("services", services.number.into()),
        ("variant", variant.name().into()),
        ("ns_per_packet", value.into()),
    ]
}

//! What a SYN costs in a flood that is as fast as can be.

use std::collections::BTreeMap;

use anyhow::{Context as _, ensure};

use super::{Extent, SERVICES, SIZE, Way, profile, syns};
use crate::{
    datapath::calibrate_on,
    generator::Generator,
    limits::conntrack_max,
    progress,
    report::{Cell, Plot, Section, Table},
    scene::{Scene, gateway::Binaries},
    stats::Range,
    variants::Variant,
};

/// One turn.
#[derive(Clone, Copy, Debug)]
struct Sample {
    round: u32,
    /// Of the CPU, for each SYN that came to the gateway.
    nanoseconds: f64,
    /// Shares in percent: of those made that did not, and of those that did what was answered, and what went on.
    lost: f64,
    answered: f64,
    forwarded: f64,
    /// Of conntrack, at the end.
    entries: u64,
    others: f64,
    calibration: f64,
}

pub(super) fn measure(
    extent: &Extent,
    ways: &[Way],
    binaries: &Binaries,
    cpu: usize,
    generator: &mut Generator,
    section: &mut Section,
) -> anyhow::Result<()> {
    let mut scenes = Vec::new();
    for way in ways {
        progress(format_args!("flood: setting up {}", way.name()));
        let mut scene = Scene::new(way.variant(), SERVICES, &way.binaries(binaries), cpu)?;
        // Who is answered by the kernel's synproxy is so on the way that a packet to the service would take.
        scene.middle.ip("route add default via 198.51.100.2\n")?;
        if *way == Way::Answer {
            scene.end().answer(true)?;
        }
        scenes.push((*way, scene));
    }
    let mut all: BTreeMap<Way, Vec<Sample>> = BTreeMap::new();
    for round in 1..=extent.rounds {
        progress(format_args!("flood: as fast as can be, round {round} of {}", extent.rounds));
        for (way, scene) in &mut scenes {
            let sample = turn(scene, generator, extent, round).with_context(|| way.name())?;
            section.samples.push(row(*way, &sample));
            all.entry(*way).or_default().push(sample);
        }
    }
    section.tables.push(table(&all)?);
    section.notes.push(format!(
        "As fast as can be: {} turns of {} ms each, taken in rounds; one CPU makes SYNs of {SIZE} bytes from addresses and \
         ports picked at random, and does all that follows from them. Made by {}. ns per SYN: of that CPU, for each that \
         came to the gateway, whatever became of it there. Ratio: XDP_DROP of the same round by this. Answered: came back \
         to the clients' end, where they are dropped; forwarded: came to the endpoints' end, likewise. Bare XDP \
         answer: a program that sends each SYN back as its answer, without a cookie: what is left of XDP_DROP when there \
         are answers to be sent and received. Conntrack is empty before each turn.",
        extent.rounds,
        extent.turn.as_millis(),
        generator.name(),
    ));
    Ok(())
}

fn turn(scene: &mut Scene, generator: &mut Generator, extent: &Extent, round: u32) -> anyhow::Result<Sample> {
    let profile = profile(scene.profile(scene.established(), SIZE)?);
    let (traffic, size) = (syns(&profile), profile.frame(false));
    let tracks = scene.variant.tracks();
    // Caches fill before the turn that counts.
    scene.send(generator, &traffic, size, extent.turn / 8)?;
    if tracks {
        scene.forget()?;
    }
    let calibration = calibrate_on(scene.cpu())?;
    let before = scene.received()?;
    let passed = scene.send(generator, &traffic, size, extent.turn)?;
    let after = scene.received()?;
    let entries = if tracks { scene.flows()? } else { 0 };
    if tracks {
        scene.forget()?;
    }
    let reached = after.gateway - before.gateway;
    ensure!(reached > 0, "no SYN came to the gateway");
    let share = |part: u64, of: u64| 100.0 * part as f64 / of.max(1) as f64;
    Ok(Sample {
        round,
        nanoseconds: passed.sent.elapsed.as_nanos() as f64 * passed.sent.share / reached as f64,
        lost: (100.0 - share(reached, passed.sent.packets)).max(0.0),
        answered: share(after.client - before.client, reached),
        forwarded: share(after.backend - before.backend, reached),
        entries,
        others: passed.others(),
        calibration,
    })
}

fn table(all: &BTreeMap<Way, Vec<Sample>>) -> anyhow::Result<Table> {
    let columns = [
        "variant",
        "Mpps per core",
        "ns per SYN",
        "ratio",
        "answered %",
        "forwarded %",
        "conntrack entries after",
        "nf_conntrack_max",
        "lost %",
        "loop",
    ];
    let mut table = Table::new("flood of SYNs, as fast as one core goes", &columns)
        .plot(Plot::bars("Mpps per core").ratio("ratio", Variant::Drop.name()).more_is_better());
    let fastest = all.values().flatten().map(|sample| sample.calibration).fold(f64::INFINITY, f64::min);
    let limit = |round: u32| {
        let turns = all.get(&Way::Drop)?;
        turns.iter().find(|turn| turn.round == round).map(|turn| turn.nanoseconds)
    };
    for (way, samples) in all {
        let range = |f: &dyn Fn(&Sample) -> Option<f64>| Range::of(samples.iter().filter_map(f).collect());
        let median =
            |f: &dyn Fn(&Sample) -> f64| Cell::from(range(&|s| Some(f(s))).map(|range| range.median));
        let tracks = way.variant().tracks();
        table.row([
            way.name().into(),
            range(&|s| Some(1e3 / s.nanoseconds)).into(),
            range(&|s| Some(s.nanoseconds)).into(),
            range(&|s| Some(limit(s.round)? / s.nanoseconds)).into(),
            median(&|s| s.answered),
            median(&|s| s.forwarded),
            if tracks { median(&|s| s.entries as f64) } else { Cell::None },
            tracks.then(conntrack_max).transpose()?.into(),
            median(&|s| s.lost),
            median(&|s| s.calibration / fastest),
        ]);
    }
    Ok(table)
}

/// For the CSV file.
fn row(way: Way, sample: &Sample) -> Vec<(&'static str, Cell)> {
    vec![
        ("what", "rate".into()),
        ("variant", way.name().into()),
        ("round", sample.round.into()),
        ("ns_per_packet", sample.nanoseconds.into()),
        ("answered_percent", sample.answered.into()),
        ("forwarded_percent", sample.forwarded.into()),
        ("lost_percent", sample.lost.into()),
        ("entries", sample.entries.into()),
        ("others_percent", sample.others.into()),
        ("calibration_ns", sample.calibration.into()),
    ]
}

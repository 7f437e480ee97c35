//! CPU at offered loads.
//!
//! One CPU makes packets. Another does nothing but forward: the kernel's threads that poll the gateway's interface run
//! there, and the time that they ran is what forwarding takes.

use std::{collections::BTreeMap, fs};

use anyhow::Context as _;

use super::{Extent, threads::Threads};
use crate::{
    datapath::available,
    generator::{Generator, abi::Traffic, interval},
    progress,
    report::{Cell, Plot, Section, Table},
    scene::{
        NEAR, Scene,
        gateway::Binaries,
        objects::{Family, Services},
    },
    stats::Range,
    variants::Variant,
};

/// Established flows.
const FLOWS: u32 = 1_000;
/// Bytes of a frame.
const SIZE: usize = 60;

/// A gateway whose polling is on a CPU of its own.
struct Stage {
    scene: Scene,
    threads: Threads,
}

/// One turn.
#[derive(Clone, Copy, Debug)]
struct Sample {
    made: f64,
    lost: f64,
    /// Share of a CPU that the threads took.
    percent: f64,
    /// CPU seconds for a million packets that arrived.
    seconds: f64,
    /// Shares of the CPU's time by `/proc/stat`.
    stat: [f64; 3],
}

pub(super) fn measure(
    extent: &Extent,
    binaries: &Binaries,
    cpu: usize,
    generator: &mut Generator,
    section: &mut Section,
) -> anyhow::Result<()> {
    let Some(other) = (0..crate::host::cpus()).find(|other| *other != cpu) else {
        section.notes.push("Left out: CPU at offered loads: there is one CPU only.".to_owned());
        return Ok(());
    };
    let (variants, notes) = available(&extent.variants, binaries);
    section.notes.extend(notes);
    let services = Services { family: Family::V4, udp: false, number: 1, endpoints: 10, masquerade: false };
    let mut stages = Vec::new();
    for variant in &variants {
        progress(format_args!("resources: setting up {}", variant.name()));
        let mut scene = Scene::new(*variant, services, binaries, other)?;
        scene.establish(generator, FLOWS)?;
        let threads = Threads::poll(&scene.middle, NEAR, cpu)?;
        stages.push(Stage { scene, threads });
    }
    let mut table = Table::new(
        format!("CPU that forwards {FLOWS} established flows, frames of {SIZE} bytes"),
        &[
            "packets/s",
            "variant",
            "made %",
            "lost %",
            "CPU %",
            "CPU s per million",
            "user %",
            "system %",
            "softirq %",
        ],
    )
    .plot(Plot::lines("packets/s", "CPU %").less_is_better());
    for load in &extent.loads {
        let mut all: BTreeMap<Variant, Vec<Sample>> = BTreeMap::new();
        for round in 1..=extent.rounds {
            progress(format_args!("resources: {load} packets/s: round {round} of {}", extent.rounds));
            for stage in &mut stages {
                let sample = stage.turn(generator, *load, extent, cpu)?;
                let variant = stage.scene.variant;
                section.samples.push(row(variant, *load, round, &sample));
                all.entry(variant).or_default().push(sample);
            }
        }
        for (variant, samples) in all {
            let range = |f: &dyn Fn(&Sample) -> f64| Cell::from(Range::of(samples.iter().map(f).collect()));
            let median = |f: &dyn Fn(&Sample) -> f64| {
                Cell::from(Range::of(samples.iter().map(f).collect()).map(|range| range.median))
            };
            table.row([
                (*load).into(),
                variant.name().into(),
                median(&|s| s.made),
                median(&|s| s.lost),
                range(&|s| s.percent),
                range(&|s| s.seconds),
                median(&|s| s.stat[0]),
                median(&|s| s.stat[1]),
                median(&|s| s.stat[2]),
            ]);
        }
    }
    section.tables.push(table);
    section.notes.push(format!(
        "CPU: made by {} on CPU {other}, forwarded on CPU {cpu}, where a thread of the kernel polls the gateway's interface \
         (threaded NAPI); CPU % and seconds are the time that it ran, with the packets' way to the backend's interface and \
         without its end. User, system and softirq: all of that CPU by /proc/stat, other work on it included; its clock \
         ticks every 4 ms. Packets are lost where the thread does not keep up.",
        generator.name()
    ));
    Ok(())
}

impl Stage {
    fn turn(
        &mut self,
        generator: &mut Generator,
        load: u32,
        extent: &Extent,
        cpu: usize,
    ) -> anyhow::Result<Sample> {
        let profile = self.scene.profile(self.scene.established(), SIZE)?;
        let traffic = Traffic { interval: interval(load), ..profile.traffic(FLOWS, false) };
        let (ran, before) = (self.threads.ran()?, stat(cpu)?);
        let passed = self.scene.send(generator, &traffic, profile.frame(false), extent.turn)?;
        let (ran, after) = (self.threads.ran()? - ran, stat(cpu)?);
        let elapsed = passed.sent.elapsed.as_secs_f64();
        let ticks: Vec<f64> =
            after.iter().zip(before).map(|(after, before)| (after - before) as f64).collect();
        let sum: f64 = ticks.iter().sum();
        let share = |fields: &[usize]| {
            100.0 * fields.iter().filter_map(|field| ticks.get(*field)).sum::<f64>() / sum.max(1.0)
        };
        Ok(Sample {
            made: (100.0 * passed.sent.packets as f64 / (elapsed * f64::from(load)).max(1.0)).min(100.0),
            lost: passed.lost().max(0.0),
            percent: 100.0 * ran.as_secs_f64() / elapsed,
            seconds: ran.as_secs_f64() * 1e6 / passed.arrived.max(1) as f64,
            // user and nice; system; irq and softirq.
            stat: [share(&[0, 1]), share(&[2]), share(&[5, 6])],
        })
    }
}

/// The ticks that a CPU has spent as user, nice, system, idle, iowait, irq, softirq, see proc_stat(5).
fn stat(cpu: usize) -> anyhow::Result<Vec<u64>> {
    let text = fs::read_to_string("/proc/stat").context("cannot read /proc/stat")?;
    parse(&text, cpu).with_context(|| format!("/proc/stat says nothing about CPU {cpu}"))
}

fn parse(text: &str, cpu: usize) -> Option<Vec<u64>> {
    let name = format!("cpu{cpu}");
    let line = text.lines().find_map(|line| line.strip_prefix(&name)?.strip_prefix(' '))?;
    line.split_whitespace().take(7).map(|field| field.parse().ok()).collect()
}

/// For the CSV file.
fn row(variant: Variant, load: u32, round: u32, sample: &Sample) -> Vec<(&'static str, Cell)> {
    vec![
        ("what", "cpu".into()),
        ("variant", variant.name().into()),
        ("load", load.into()),
        ("round", round.into()),
        ("made_percent", sample.made.into()),
        ("lost_percent", sample.lost.into()),
        ("cpu_percent", sample.percent.into()),
        ("cpu_seconds_per_million", sample.seconds.into()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cpu_has_a_line_of_its_own() {
        let text = "cpu  9 9 9 9 9 9 9 9 9 9\ncpu1 1 2 3 4 5 6 7 8 0 0\ncpu11 0 0 0 0 0 0 0 0 0 0\n";
        assert_eq!(parse(text, 1), Some(vec![1, 2, 3, 4, 5, 6, 7]));
        assert_eq!(parse(text, 0), None);
    }
}

//! A flood of new flows among established ones.

use std::time::Duration;

use super::{ENDPOINTS, LONGEST, SIZE};
use crate::{
    generator::{
        Generator,
        abi::Traffic,
        template::{Protocol, Segment},
    },
    limits::conntrack_max,
    progress,
    report::{Plot, Table},
    scene::{
        Scene,
        gateway::Binaries,
        objects::{Family, Services},
    },
    stats::Range,
    variants::Variant,
};

/// Established flows in a flood.
const KEPT: u32 = 1_000;
/// SYNs in a flood for each entry that conntrack has room for.
const FLOOD: u64 = 2;

/// One after the other: what floods leave behind in the hash table of conntrack is all namespaces'.
pub(super) fn measure(
    extent: &super::Extent,
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
        let services =
            Services { family: Family::V4, udp: false, number: 1, endpoints: ENDPOINTS, masquerade: false };
        let mut scene = Scene::new(*variant, services, binaries, cpu)?;
        let (mut cost, mut lost, mut before, mut after) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for round in 1..=extent.floods {
            progress(format_args!("growth: flood, {}: round {round} of {}", variant.name(), extent.floods));
            scene.establish(generator, KEPT)?;
            before.push(scene.assured()? as f64);
            let profile = scene.profile(Protocol::Tcp(Segment::Ack), SIZE)?;
            // One packet in sixteen belongs to an established flow.
            let traffic = Traffic {
                fresh: 65_536 / 16 * 15,
                limit: u64::from(conntrack_max()?) * FLOOD,
                ..profile.traffic(KEPT, false)
            };
            let passed = scene.send(generator, &traffic, SIZE, LONGEST)?;
            after.push(scene.assured()? as f64);
            cost.push(passed.nanoseconds() / 1e3);
            lost.push(passed.lost().max(0.0));
            scene.forget()?;
        }
        table.row([
            variant.name().into(),
            Range::of(cost).into(),
            Range::of(lost).into(),
            Range::of(before).map(|range| range.median).into(),
            Range::of(after).map(|range| range.median).into(),
        ]);
    }
    Ok(table)
}

/// About how long one takes.
pub(super) const fn expected() -> Duration {
    Duration::from_secs(5)
}

pub(super) fn note() -> anyhow::Result<String> {
    Ok(format!(
        "Flood: new flows, {FLOOD} for each entry that conntrack has room for (nf_conntrack_max is {}), among packets of \
         {KEPT} established flows.",
        conntrack_max()?
    ))
}

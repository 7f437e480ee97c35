//! Maglev tables: how long one takes, how even it is, and what moves when a backend goes.

use std::{collections::BTreeMap, hint::black_box, net::SocketAddr, time::Instant};

use datapath::abi::Slot;
use portico::plan::{MaglevSpec, maglev};

use crate::{
    progress,
    report::{Plot, Section, Table},
    stats::{Range, milliseconds},
    workload::{TARGET, guest},
};

/// Backends to remove, one at a time.
const VICTIMS: u32 = 20;

pub(crate) fn measure() -> Section {
    let mut table = Table::new(
        "one table",
        &[
            "backends",
            "slots",
            "slots with one less",
            "build ms",
            "largest share / average",
            "smallest / average",
            "moved needlessly %",
        ],
    )
    .plot(Plot::lines("backends", "build ms").less_is_better());
    for backends in [9, 10, 100, 1_000] {
        progress(format_args!("maglev: {backends} backends"));
        let spec = spec(0..backends, None);
        let rounds = (20_000 / backends).clamp(20, 500);
        let build = Range::of((0..rounds).map(|_| time(&spec)).collect());
        let whole = slots(&spec);
        let shares = shares(&whole);
        let average = whole.len() as f64 / f64::from(backends);
        let share = |slots: Option<&usize>| slots.map(|slots| *slots as f64 / average);
        let moved = (0..VICTIMS.min(backends)).map(|n| {
            let victim = 1 + n * backends / VICTIMS.min(backends);
            disruption(&whole, &slots(&self::spec(0..backends, Some(victim))), victim)
        });
        table.row([
            backends.into(),
            spec.slots().into(),
            maglev::slots(backends as usize - 1).into(),
            build.into(),
            share(shares.values().max()).into(),
            share(shares.values().min()).into(),
            Range::of(moved.collect()).into(),
        ]);
    }
    Section {
        name: "maglev",
        tables: vec![table],
        notes: vec![format!(
            "Moved needlessly: slots of other backends that changed hands when one backend went, for up to {VICTIMS} \
             backends in turn."
        )],
        ..Section::default()
    }
}

fn spec(backends: std::ops::Range<u32>, without: Option<u32>) -> MaglevSpec {
    let backend = |n: u32| (n + 1, SocketAddr::new(guest(n as u16).into(), TARGET));
    MaglevSpec::new(backends.map(backend).filter(|(id, _)| Some(*id) != without).collect())
}

/// The backends' ids in the slots of a table.
fn slots(spec: &MaglevSpec) -> Vec<u32> {
    maglev::build(spec).into_iter().map(Slot::id).collect()
}

fn time(spec: &MaglevSpec) -> f64 {
    let began = Instant::now();
    black_box(maglev::build(black_box(spec)));
    milliseconds(began.elapsed())
}

fn shares(table: &[u32]) -> BTreeMap<u32, usize> {
    table.iter().fold(BTreeMap::new(), |mut shares, id| {
        *shares.entry(*id).or_default() += 1;
        shares
    })
}

/// Per cent of the slots that were not the victim's and have another backend without it. Where the sizes differ,
/// slots are compared by the hashes that fall into them.
fn disruption(before: &[u32], after: &[u32], victim: u32) -> f64 {
    let at = |table: &[u32], hash: u64| {
        let slot = (hash * table.len() as u64) >> 32;
        table.get(slot as usize).copied()
    };
    let size = before.len() as u64;
    let kept = (0..size).filter_map(|slot| {
        let hash = ((slot << 32) + (1 << 31)) / size;
        let old = at(before, hash).filter(|id| *id != victim)?;
        Some(at(after, hash) != Some(old))
    });
    let (all, moved) = kept.fold((0, 0), |(all, moved), other| (all + 1, moved + u32::from(other)));
    100.0 * f64::from(moved) / f64::from(all.max(1))
}

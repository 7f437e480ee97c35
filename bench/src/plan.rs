//! From events to what the kernel holds: all at once, and one endpoint more or less.
//!
//! The planner and the drivers are those of the daemon, called as `portico::reconcile` calls them, with a clock read
//! between the steps.

use std::{
    cell::Cell,
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use portico::{
    driver::pins::PinDir,
    model::change::Event,
    plan::{Index, NodeFacts, Planner, QUARANTINE, Step, maglev},
    reconcile::Kernel,
};

use crate::{
    memory, progress,
    report::{Cell as Figure, Section, Table},
    rig::with_kernel,
    stats::{Range, milliseconds},
    workload::{self, Size},
};

/// Endpoints added and removed.
const CHANGES: u16 = 25;
/// Cold starts.
const STARTS: usize = 3;

/// Parts that are no step of the plan.
const INDEX: &str = "index";
const PLAN: &str = "plan";
const MAGLEV: &str = "maglev build";
const REST: &str = "bookkeeping";
/// In the order of their use.
const PARTS: [&str; 13] = [
    INDEX,
    PLAN,
    "add_translations",
    "put_backends",
    "put_services",
    MAGLEV,
    "put_tables",
    "put_frontends",
    "delete_tables",
    "delete_services",
    "delete_backends",
    "delete_translations",
    REST,
];

pub(crate) fn measure(sizes: &[Size]) -> anyhow::Result<Section> {
    let (mut tables, mut samples) = (Vec::new(), Vec::new());
    for &size in sizes {
        let mut outcome = None;
        let mut cold = Vec::new();
        for start in 1..=STARTS {
            progress(format_args!("plan: {size}, cold, {start} of {STARTS}"));
            let last = start == STARTS;
            let (split, changed) = with_kernel(|kernel, pins| {
                let mut state = State::new(kernel);
                let split = state.round(workload::all(size))?;
                let changed = if last { Some(Changed::measure(&mut state, pins, size)?) } else { None };
                Ok((split, changed))
            })?;
            cold.push(split);
            outcome = changed.or(outcome);
        }
        let Changed { added, removed, swept, maps } = outcome.context("nothing was measured")?;

        let total =
            |splits: &[Split]| Range::of(splits.iter().map(|split| milliseconds(split.total)).collect());
        let endpoint: Vec<Split> = added.iter().chain(&removed).cloned().collect();
        for (what, splits) in [("from nothing", &cold), ("one endpoint", &endpoint)] {
            samples.extend(splits.iter().map(|split| split.sample(what, size)));
        }
        let columns = ["", "from nothing", "one endpoint more", "one less", "quarantine over"];
        let mut table = Table::new(format!("{size}, milliseconds"), &columns);
        let columns = [&cold[..], &added, &removed, &swept];
        for part in PARTS {
            let ranges =
                columns.map(|splits| Range::of(splits.iter().filter_map(|s| s.part(part)).collect()));
            if ranges.iter().any(Option::is_some) {
                table.row([part.replace('_', " ").into()].into_iter().chain(ranges.map(Into::into)));
            }
        }
        table.row(["all".into()].into_iter().chain(columns.map(|splits| total(splits).into())));
        tables.extend([table, maps]);
    }
    Ok(Section {
        name: "plan",
        tables,
        samples,
        notes: vec![
            format!(
                "1000 x 10: a thousand services of ten endpoints each. Median (lowest..highest) of {STARTS} cold starts and of {CHANGES} changes, each with an endpoint that \
                 was not there before. add and delete translations are nft, the other steps BPF maps."
            ),
            format!(
                "Quarantine over: the {CHANGES} backends that were removed are deleted at once, {} s later; nothing \
                 waits for it.",
                QUARANTINE.as_secs()
            ),
        ],
        ..Section::default()
    })
}

/// What a round of planning and writing took.
#[derive(Clone, Debug, Default)]
struct Split {
    parts: BTreeMap<&'static str, Duration>,
    total: Duration,
}

impl Split {
    fn part(&self, name: &'static str) -> Option<f64> {
        self.parts.get(name).copied().map(milliseconds)
    }

    /// For the CSV file.
    fn sample(&self, what: &'static str, size: Size) -> Vec<(&'static str, Figure)> {
        vec![
            ("what", what.into()),
            ("services", size.services.into()),
            ("endpoints", size.endpoints.into()),
            ("ms", milliseconds(self.total).into()),
        ]
    }

    fn time<T>(&mut self, part: &'static str, f: impl FnOnce() -> T) -> T {
        let began = Instant::now();
        let value = f();
        *self.parts.entry(part).or_default() += began.elapsed();
        value
    }
}

/// The daemon's, as far as it plans and writes.
struct State<'a> {
    kernel: &'a Kernel,
    index: Index,
    planner: Planner,
    facts: NodeFacts,
    began: Instant,
    /// Time that did not pass but is taken as if it had.
    skipped: Duration,
}

impl<'a> State<'a> {
    fn new(kernel: &'a Kernel) -> Self {
        Self {
            kernel,
            index: Index::new(),
            planner: Planner::new(),
            facts: NodeFacts { name: "here".to_owned(), ..NodeFacts::default() },
            began: Instant::now(),
            skipped: Duration::ZERO,
        }
    }

    fn now(&self) -> Duration {
        self.began.elapsed() + self.skipped
    }

    /// Takes in events, and writes all there is to write.
    fn round(&mut self, events: impl IntoIterator<Item = Event>) -> anyhow::Result<Split> {
        let mut split = Split::default();
        let events: Vec<Event> = events.into_iter().collect();
        let began = Instant::now();
        let dirty = split.time(INDEX, || {
            events.into_iter().for_each(|event| self.index.apply(event));
            self.index.take_dirty()
        });
        let now = self.now();
        split.time(PLAN, || self.planner.plan(&self.index, &self.facts, &dirty, now));
        while let Some(step) = split.time(REST, || self.planner.next(self.began.elapsed() + self.skipped)) {
            self.apply(&step, &mut split)?;
            let now = self.now();
            split.time(REST, || self.planner.done(&step, now));
        }
        split.total = began.elapsed();
        ensure!(self.planner.pending() == 0, "{} entries are not written", self.planner.pending());
        Ok(split)
    }

    fn apply(&self, step: &Step, split: &mut Split) -> anyhow::Result<()> {
        let Step::PutTables(list) = step else {
            return Ok(split.time(step.name(), || self.kernel.apply(step))?);
        };
        // As the reconciler does it, which builds one table at a time.
        let building = Cell::new(Duration::ZERO);
        let tables = list.iter().map(|(id, spec)| {
            let began = Instant::now();
            let chunks = maglev::chunks(&maglev::build(spec), spec).collect();
            building.set(building.get() + began.elapsed());
            (*id, chunks)
        });
        let began = Instant::now();
        self.kernel.maps.maglev.put(tables)?;
        let all = began.elapsed();
        *split.parts.entry(MAGLEV).or_default() += building.get();
        *split.parts.entry(step.name()).or_default() += all.saturating_sub(building.get());
        Ok(())
    }
}

/// What changes to a full kernel took.
struct Changed {
    added: Vec<Split>,
    removed: Vec<Split>,
    swept: Vec<Split>,
    /// Memory of the maps before them.
    maps: Table,
}

impl Changed {
    fn measure(state: &mut State<'_>, pins: &PinDir, size: Size) -> anyhow::Result<Self> {
        let maps = memory::maps(pins, format!("{size}, BPF maps"))?;
        progress(format_args!("plan: {size}, one endpoint"));
        let (mut added, mut removed) = (Vec::new(), Vec::new());
        for n in 0..CHANGES {
            let service = u32::from(n) * size.services / u32::from(CHANGES);
            added.push(state.round([workload::change(service, size.endpoints, Some(workload::guest(n)))])?);
            removed.push(state.round([workload::change(service, size.endpoints, None)])?);
        }
        state.skipped += QUARANTINE;
        let swept = vec![state.round([])?];
        Ok(Self { added, removed, swept, maps })
    }
}

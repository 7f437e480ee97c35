//! Medians and ranges.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// Median, and the range of what it was found in.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Range {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
    /// How many values there were.
    pub(crate) count: usize,
}

impl Range {
    /// None without values.
    pub(crate) fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_unstable_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let median = (values.get((values.len() - 1) / 2)? + values.get(values.len() / 2)?) / 2.0;
        Some(Self { median, min, max, count: values.len() })
    }
}

/// In milliseconds.
pub(crate) fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// Nanoseconds a packet, over several rounds.
#[derive(Debug)]
pub(crate) struct Nanoseconds {
    all: Histogram<u64>,
    rounds: Vec<f64>,
}

impl Nanoseconds {
    /// Up to a second, three digits.
    pub(crate) fn new() -> anyhow::Result<Self> {
        Ok(Self { all: Self::histogram()?, rounds: Vec::new() })
    }

    fn histogram() -> anyhow::Result<Histogram<u64>> {
        Ok(Histogram::new_with_max(1_000_000_000, 3)?)
    }

    /// Runs a round: `run` returns nanoseconds, `calls` times.
    pub(crate) fn round(
        &mut self,
        calls: u32,
        mut run: impl FnMut(u32) -> anyhow::Result<u64>,
    ) -> anyhow::Result<()> {
        let mut round = Self::histogram()?;
        for call in 0..calls {
            round.saturating_record(run(call)?);
        }
        self.rounds.extend(typical(&round));
        self.all.add(&round)?;
        Ok(())
    }

    /// The median over the rounds of what is typical in each, less a base.
    pub(crate) fn above(&self, base: f64) -> Option<Range> {
        Range::of(self.rounds.iter().map(|round| round - base).collect())
    }

    /// The 99th percentile of all runs.
    pub(crate) fn p99(&self) -> f64 {
        self.all.value_at_quantile(0.99) as f64
    }
}

/// The mean without the slowest hundredth, which is interrupts. Not the median, which in a virtual machine is a
/// multiple of ten, as its clock is.
fn typical(round: &Histogram<u64>) -> Option<f64> {
    let mut left = (round.len() * 99).div_ceil(100);
    let mut sum = 0.0;
    for bar in round.iter_recorded() {
        let count = bar.count_at_value().min(left);
        sum += bar.value_iterated_to() as f64 * count as f64;
        left -= count;
    }
    (!round.is_empty()).then(|| sum / (round.len() * 99).div_ceil(100) as f64)
}

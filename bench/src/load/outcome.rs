//! What came of a load.

use std::time::Duration;

use hdrhistogram::Histogram;

use crate::generator::latency::histogram;

/// Times are in ns.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    /// From when requests on kept connections were due to their answers.
    pub(crate) delays: Histogram<u64>,
    /// The longest time that each kept connection went without an answer, less the time between two of its requests.
    pub(crate) stalls: Histogram<u64>,
    /// Kept connections that were closed or reset.
    pub(crate) broken: u64,
    /// Kept connections that waited for an answer at the end, and had none in [`super::PATIENCE`] after it.
    pub(crate) stuck: u64,
    /// From when brief connections were due to their answers.
    pub(crate) opening: Histogram<u64>,
    /// Brief connections that were refused or reset, or had no answer for longer than that.
    pub(crate) failed: u64,
    pub(crate) elapsed: Duration,
}

impl Outcome {
    pub(super) fn new() -> anyhow::Result<Self> {
        Ok(Self {
            delays: histogram()?,
            stalls: histogram()?,
            broken: 0,
            stuck: 0,
            opening: histogram()?,
            failed: 0,
            elapsed: Duration::ZERO,
        })
    }

    /// Takes in another outcome of the same load.
    pub(crate) fn add(&mut self, other: &Self) -> anyhow::Result<()> {
        self.delays.add(&other.delays)?;
        self.stalls.add(&other.stalls)?;
        self.opening.add(&other.opening)?;
        self.broken += other.broken;
        self.stuck += other.stuck;
        self.failed += other.failed;
        self.elapsed += other.elapsed;
        Ok(())
    }

    /// Answers on kept connections a second.
    pub(crate) fn requests(&self) -> f64 {
        self.delays.len() as f64 / self.elapsed.as_secs_f64()
    }

    /// Brief connections a second that had their answer.
    pub(crate) fn connections(&self) -> f64 {
        self.opening.len() as f64 / self.elapsed.as_secs_f64()
    }
}

/// Records a time.
pub(super) fn record(histogram: &mut Histogram<u64>, time: Duration) {
    histogram.saturating_record(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
}

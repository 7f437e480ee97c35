//! Latencies as the sink counts them, in ns.

use hdrhistogram::Histogram;

use super::abi::LINEAR;

/// The middle of a bucket.
pub(crate) fn value(bucket: u32) -> u64 {
    let (bucket, linear) = (u64::from(bucket), u64::from(LINEAR));
    if bucket < 2 * linear {
        return bucket;
    }
    let shift = bucket / linear - 1;
    let low = (bucket % linear + linear) << shift;
    low + (1 << (shift - 1))
}

/// A histogram that holds anything up to a minute.
pub(crate) fn histogram() -> anyhow::Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1, 60_000_000_000, 3)?)
}

/// Counts by bucket, in a histogram.
pub(crate) fn of(counts: &[u64]) -> anyhow::Result<Histogram<u64>> {
    let mut all = histogram()?;
    // Recording a value no times would still make it the largest.
    for (bucket, count) in (0..).zip(counts).filter(|(_, count)| **count > 0) {
        all.saturating_record_n(value(bucket), *count);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_buckets_leave_no_trace() {
        let mut counts = vec![0; 4_096];
        counts[3] = 2;
        let histogram = of(&counts).unwrap();
        assert_eq!((histogram.len(), histogram.max()), (2, 3));
    }
}

//! Distributions: as the plotters of HdrHistogram read them, and as JSON keeps them.

use std::fmt::Write as _;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hdrhistogram::{
    Histogram,
    serialization::{Deserializer, Serializer as _, V2DeflateSerializer},
};
use serde::{Deserialize, Deserializer as From, Serialize, Serializer as To, de, ser};

/// Nanoseconds in the unit of percentile files.
const SCALE: f64 = 1e3;
/// Lines for each halving of the distance to 100 %; that of the other implementations.
const TICKS: u32 = 5;

/// A distribution with a name of parts that `/` separates.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Distribution {
    pub(super) name: String,
    /// Nanoseconds.
    #[serde(serialize_with = "encode", deserialize_with = "decode")]
    pub(super) values: Histogram<u64>,
}

/// A step of a percentile curve.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Step {
    pub(super) microseconds: f64,
    pub(super) quantile: f64,
    /// How many values are no larger.
    pub(super) count: u64,
}

impl Distribution {
    pub(super) fn steps(&self) -> Vec<Step> {
        let mut count = 0;
        let steps = self.values.iter_quantiles(TICKS).map(|step| {
            count += step.count_since_last_iteration();
            let microseconds = step.value_iterated_to() as f64 / SCALE;
            Step { microseconds, quantile: step.quantile_iterated_to(), count }
        });
        steps.collect()
    }

    /// The text that HdrHistogram's `outputPercentileDistribution` writes, in microseconds.
    pub(super) fn percentiles(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        writeln!(
            text,
            "{:>12} {:>14} {:>10} {:>14}\n",
            "Value", "Percentile", "TotalCount", "1/(1-Percentile)"
        )?;
        for Step { microseconds, quantile, count } in self.steps() {
            write!(text, "{microseconds:>12.3} {quantile:2.12} {count:>10}")?;
            if quantile < 1.0 {
                write!(text, " {:>14.2}", 1.0 / (1.0 - quantile))?;
            }
            writeln!(text)?;
        }
        let values = &self.values;
        let [mean, deviation, max] =
            [values.mean(), values.stdev(), values.max() as f64].map(|nanoseconds| nanoseconds / SCALE);
        writeln!(text, "#[Mean    = {mean:>12.3}, StdDeviation   = {deviation:>12.3}]")?;
        writeln!(text, "#[Max     = {max:>12.3}, Total count    = {:>12}]", values.len())?;
        let (buckets, sub_buckets) = (values.buckets(), sub_buckets(values.sigfig()));
        writeln!(text, "#[Buckets = {buckets:>12}, SubBuckets     = {sub_buckets:>12}]")?;
        Ok(text)
    }
}

/// What so many significant digits take: twice their power of ten, rounded up to a power of two.
fn sub_buckets(digits: u8) -> u64 {
    (2 * 10_u64.pow(digits.into())).next_power_of_two()
}

/// The lines of HdrHistogram's logs: compressed, in base64.
fn encode<S: To>(values: &Histogram<u64>, to: S) -> Result<S::Ok, S::Error> {
    let mut bytes = Vec::new();
    V2DeflateSerializer::new().serialize(values, &mut bytes).map_err(ser::Error::custom)?;
    to.serialize_str(&STANDARD.encode(bytes))
}

fn decode<'de, D: From<'de>>(from: D) -> Result<Histogram<u64>, D::Error> {
    let text = String::deserialize(from)?;
    let bytes = STANDARD.decode(text).map_err(de::Error::custom)?;
    Deserializer::new().deserialize(&mut bytes.as_slice()).map_err(de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Layout and rounding of the Java implementation's `outputPercentileDistribution(out, 5, 1000.0)`.
    const EXPECTED: &str = "\x20      Value     Percentile TotalCount 1/(1-Percentile)\n\
\n\
\x20      1.000 0.000000000000          1           1.00\n\
\x20      1.000 0.100000000000          1           1.11\n\
\x20      1.000 0.200000000000          1           1.25\n\
\x20      2.000 0.300000000000          3           1.43\n\
\x20      2.000 0.400000000000          3           1.67\n\
\x20      2.000 0.500000000000          3           2.00\n\
\x20      2.000 0.550000000000          3           2.22\n\
\x20      2.000 0.600000000000          3           2.50\n\
\x20      2.000 0.650000000000          3           2.86\n\
\x20      2.000 0.700000000000          3           3.33\n\
\x20   1000.447 0.750000000000          4           4.00\n\
\x20   1000.447 1.000000000000          4\n\
#[Mean    =      251.298, StdDeviation   =      432.374]\n\
#[Max     =     1000.447, Total count    =            4]\n\
#[Buckets =           26, SubBuckets     =         2048]\n\
";

    fn distribution(values: &[u64]) -> Distribution {
        let mut histogram = Histogram::new_with_bounds(1, 60_000_000_000, 3).unwrap();
        values.iter().for_each(|value| histogram.record(*value).unwrap());
        Distribution { name: "latency/a/b".to_owned(), values: histogram }
    }

    #[test]
    fn percentiles_are_written_as_elsewhere() {
        assert_eq!(distribution(&[1_000, 2_000, 2_000, 1_000_000]).percentiles().unwrap(), EXPECTED);
    }

    #[test]
    fn json_keeps_every_count() {
        let before = distribution(&[1, 70_000, 70_000, 59_000_000_000]);
        let text = serde_json::to_string(&before).unwrap();
        let after: Distribution = serde_json::from_str(&text).unwrap();
        assert_eq!(after.values, before.values);
        assert_eq!(after.name, before.name);
    }
}

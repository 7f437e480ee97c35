//! The two text formats of metrics.

use hyper::header::HeaderValue;

pub(super) const OPEN_METRICS: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
pub(super) const PROMETHEUS: HeaderValue =
    HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

/// Whether somebody who accepts this wants OpenMetrics; as with kube-proxy, nobody gets it unasked.
pub(super) fn wants_open_metrics(accept: Option<&str>) -> bool {
    accept.is_some_and(|accept| accept.contains("application/openmetrics-text"))
}

/// OpenMetrics in the older format, which names counters by their samples, bounds of buckets without needless zeros,
/// and has neither units nor an end.
pub(super) fn prometheus(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len());
    let mut help = None;
    for line in open_metrics.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest.split_once(' ');
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' '))
        {
            let suffix = if kind == "counter" { "_total" } else { "" };
            if let Some((_, words)) = help.take().filter(|(helped, _)| *helped == name) {
                text.push_str(&format!("# HELP {name}{suffix} {words}\n"));
            }
            text.push_str(&format!("# TYPE {name}{suffix} {kind}\n"));
        } else if !line.starts_with('#') {
            match line.split_once(".0\"").filter(|(before, _)| ends_in_bound(before)) {
                Some((before, after)) => text.extend([before, "\"", after, "\n"]),
                None => text.extend([line, "\n"]),
            }
        }
    }
    text
}

/// Whether the text ends within the value of the label `le` of a bucket.
fn ends_in_bound(text: &str) -> bool {
    let bound = text.trim_end_matches(|c: char| c.is_ascii_digit());
    bound.len() < text.len() && ["{le=\"", ",le=\""].iter().any(|label| bound.ends_with(label))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_older_format_has_the_same_samples() {
        let open = "\
# HELP a_syncs Syncs.
# TYPE a_syncs counter
a_syncs_total{reason=\"le=\\\"1.0\\\"\"} 3
# HELP a_seconds How long.
# TYPE a_seconds histogram
# UNIT a_seconds seconds
a_seconds_sum{f=\"IPv4\"} 1.0
a_seconds_bucket{le=\"0.25\",f=\"IPv4\"} 1
a_seconds_bucket{le=\"10.0\",f=\"IPv4\"} 1
a_seconds_bucket{f=\"IPv4\",le=\"1.0\"} 1
# TYPE a gauge
a{object=\"2.0\"} 1
# EOF
";
        let expected = "\
# HELP a_syncs_total Syncs.
# TYPE a_syncs_total counter
a_syncs_total{reason=\"le=\\\"1.0\\\"\"} 3
# HELP a_seconds How long.
# TYPE a_seconds histogram
a_seconds_sum{f=\"IPv4\"} 1.0
a_seconds_bucket{le=\"0.25\",f=\"IPv4\"} 1
a_seconds_bucket{le=\"10\",f=\"IPv4\"} 1
a_seconds_bucket{f=\"IPv4\",le=\"1\"} 1
# TYPE a gauge
a{object=\"2.0\"} 1
";
        assert_eq!(prometheus(open), expected);
    }

    #[test]
    fn open_metrics_is_for_those_who_ask() {
        for (accept, wanted) in [
            (None, false),
            (Some("*/*"), false),
            (Some("text/plain;version=0.0.4"), false),
            (Some("application/openmetrics-text;version=1.0.0,text/plain;q=0.5"), true),
        ] {
            assert_eq!(wants_open_metrics(accept), wanted, "{accept:?}");
        }
    }
}

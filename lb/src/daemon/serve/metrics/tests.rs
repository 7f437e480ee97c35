use std::collections::BTreeMap;

use super::*;
use crate::{
    daemon::serve::exposition::prometheus,
    view::{CounterReport, TrafficReport, Trouble},
};

fn has(text: &str, line: &str) {
    assert!(text.lines().any(|candidate| candidate == line), "no line {line:?} in:\n{text}");
}

#[test]
fn rejections_and_verdicts_are_told_with_their_reasons() {
    let report = Report {
        synced: true,
        rejected: vec![Trouble {
            kind: "Service".to_owned(),
            object: "default/web".to_owned(),
            reason: "port \"0\"".to_owned(),
        }],
        counters: vec![CounterReport { hook: "tc".to_owned(), reason: "forward".to_owned(), count: 7 }],
        traffic: vec![TrafficReport {
            service: "default/web:http/tcp".to_owned(),
            protocol: "tcp".to_owned(),
            backend: "10.244.1.2:8080".to_owned(),
            to: "client".to_owned(),
            input: "eth1".to_owned(),
            output: "eth0".to_owned(),
            packets: 3,
            bytes: 4_500,
        }],
        ..Report::default()
    };
    let text = Metrics::new().text(&report).unwrap();
    let labels = r#"{service="default/web:http/tcp",backend="10.244.1.2:8080",to="client",input="eth1",output="eth0"}"#;
    has(&text, &format!("portico_forwarded_packets_total{labels} 3"));
    has(&text, &format!("portico_forwarded_bytes_total{labels} 4500"));
    has(&text, "portico_synced 1");
    has(
        &text,
        "portico_rejected_objects{kind=\"Service\",object=\"default/web\",reason=\"port \\\"0\\\"\"} 1",
    );
    has(&text, "portico_verdicts_total{hook=\"tc\",reason=\"forward\"} 7");
    assert!(text.ends_with("# EOF\n"));
}

/// Everything that can be told, told.
fn busy() -> Metrics {
    let metrics = Metrics::new();
    let now = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    metrics.changed(3, |family| if family == model::Family::V4 { 2 } else { 0 });
    metrics.queued(now);
    metrics.round(Duration::from_millis(3), true);
    metrics.round(Duration::from_millis(30), false);
    metrics.changed(1, |_| 0);
    metrics.updated(now);
    metrics.programmed(model::Family::V6, Duration::from_millis(700));
    metrics.no_local_endpoints(model::Family::V4, 1, 2);
    metrics.forgot(Duration::from_millis(1), PerFamily { v4: 4, v6: 0 });
    metrics.failures(2, 1);
    metrics.failures(3, 1);
    metrics.healthz(200);
    metrics.healthz(503);
    metrics.livez(200);
    metrics
}

#[test]
fn values_are_as_told() {
    let text = prometheus(&busy().text(&Report::default()).unwrap());
    for line in [
        r#"sync_proxy_rules_service_changes_total{ip_family="IPv6"} 4"#,
        r#"sync_proxy_rules_service_changes_pending{ip_family="IPv6"} 1"#,
        r#"sync_proxy_rules_endpoint_changes_total{ip_family="IPv4"} 2"#,
        r#"sync_proxy_rules_endpoint_changes_pending{ip_family="IPv4"} 0"#,
        r#"sync_proxy_rules_endpoint_changes_total{ip_family="IPv6"} 0"#,
        r#"sync_proxy_rules_duration_seconds_count{ip_family="IPv4"} 2"#,
        r#"sync_full_proxy_rules_duration_seconds_count{ip_family="IPv4"} 1"#,
        r#"sync_partial_proxy_rules_duration_seconds_count{ip_family="IPv6"} 1"#,
        r#"sync_proxy_rules_duration_seconds_bucket{le="0.004",ip_family="IPv4"} 1"#,
        r#"sync_proxy_rules_duration_seconds_bucket{le="16.384",ip_family="IPv4"} 2"#,
        r#"sync_proxy_rules_last_timestamp_seconds{ip_family="IPv4"} 1700000000.0"#,
        r#"sync_proxy_rules_last_queued_timestamp_seconds{ip_family="IPv6"} 1700000000.0"#,
        r#"network_programming_duration_seconds_bucket{le="0.5",ip_family="IPv6"} 0"#,
        r#"network_programming_duration_seconds_bucket{le="1",ip_family="IPv6"} 1"#,
        r#"network_programming_duration_seconds_bucket{le="300",ip_family="IPv6"} 1"#,
        r#"sync_proxy_rules_no_local_endpoints_total{ip_family="IPv4",traffic_policy="internal"} 1"#,
        r#"sync_proxy_rules_no_local_endpoints_total{ip_family="IPv4",traffic_policy="external"} 2"#,
        r#"conntrack_reconciler_sync_duration_seconds_count{ip_family="IPv4"} 1"#,
        r#"conntrack_reconciler_deleted_entries_total{ip_family="IPv4"} 4"#,
        r#"sync_proxy_rules_nftables_sync_failures_total{ip_family="IPv4"} 3"#,
        r#"sync_proxy_rules_nftables_cleanup_failures_total{ip_family="IPv6"} 1"#,
        r#"proxy_healthz_total{code="200"} 1"#,
        r#"proxy_healthz_total{code="503"} 1"#,
        r#"proxy_livez_total{code="200"} 1"#,
    ] {
        has(&text, &format!("kubeproxy_{line}"));
    }
    assert_eq!(text.matches("network_programming_duration_seconds_bucket").count(), 2 + 59 + 12 + 7 + 1);
}

#[test]
fn names_and_types_are_those_of_kube_proxy() {
    let text = prometheus(&busy().text(&Report::default()).unwrap());
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE kubeproxy_")?.split_once(' '));
    let expected = [
        ("conntrack_reconciler_deleted_entries_total", "counter"),
        ("conntrack_reconciler_sync_duration_seconds", "histogram"),
        ("network_programming_duration_seconds", "histogram"),
        ("proxy_healthz_total", "counter"),
        ("proxy_livez_total", "counter"),
        ("sync_full_proxy_rules_duration_seconds", "histogram"),
        ("sync_partial_proxy_rules_duration_seconds", "histogram"),
        ("sync_proxy_rules_duration_seconds", "histogram"),
        ("sync_proxy_rules_endpoint_changes_pending", "gauge"),
        ("sync_proxy_rules_endpoint_changes_total", "counter"),
        ("sync_proxy_rules_last_queued_timestamp_seconds", "gauge"),
        ("sync_proxy_rules_last_timestamp_seconds", "gauge"),
        ("sync_proxy_rules_nftables_cleanup_failures_total", "counter"),
        ("sync_proxy_rules_nftables_sync_failures_total", "counter"),
        ("sync_proxy_rules_no_local_endpoints_total", "gauge"),
        ("sync_proxy_rules_service_changes_pending", "gauge"),
        ("sync_proxy_rules_service_changes_total", "counter"),
    ];
    assert_eq!(types.collect::<BTreeMap<_, _>>(), BTreeMap::from(expected));
}

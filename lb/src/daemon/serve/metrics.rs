//! What `/metrics` shows: kube-proxy's metrics (`pkg/proxy/metrics/metrics.go`) where they mean something here, with
//! its names, labels and buckets, and our own.

use std::{
    sync::atomic::AtomicU64,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use prometheus_client::{
    encoding::text::{encode_eof, encode_registry},
    metrics::{
        counter::{ConstCounter, Counter},
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets, linear_buckets},
    },
    registry::{Registry, Unit},
};

use crate::{
    model::{self, PerFamily},
    view::Report,
};

type Labels = Vec<(&'static str, String)>;
type Seconds = Gauge<f64, AtomicU64>;
type Histograms = Family<Labels, Histogram, fn() -> Histogram>;
type Counters = Family<Labels, Counter>;

/// The metrics that live as long as the daemon; the others are made from a [`Report`].
#[derive(Debug)]
pub(super) struct Metrics {
    registry: Registry,
    sync: Histograms,
    full_sync: Histograms,
    partial_sync: Histograms,
    last_sync: Family<Labels, Seconds>,
    last_queued: Family<Labels, Seconds>,
    network_programming: Histograms,
    endpoint_changes: Counters,
    endpoint_changes_pending: Family<Labels, Gauge>,
    service_changes: Counters,
    service_changes_pending: Family<Labels, Gauge>,
    no_local_endpoints: Family<Labels, Gauge>,
    forgetting: Histograms,
    forgotten: Counters,
    sync_failures: Counters,
    cleanup_failures: Counters,
    healthz: Counters,
    livez: Counters,
}

fn of_round() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 2.0, 15))
}

fn of_network_programming() -> Histogram {
    let halves = linear_buckets(0.25, 0.25, 2);
    let seconds = linear_buckets(1.0, 1.0, 59);
    let minutes = linear_buckets(60.0, 5.0, 12).chain(linear_buckets(120.0, 30.0, 7));
    Histogram::new(halves.chain(seconds).chain(minutes))
}

fn histograms(constructor: fn() -> Histogram) -> Histograms {
    Family::new_with_constructor(constructor)
}

fn labels(family: model::Family) -> Labels {
    vec![("ip_family", family.name().to_owned())]
}

fn since_1970(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

impl Metrics {
    pub(super) fn new() -> Self {
        let metrics = Self {
            registry: Registry::with_prefix("kubeproxy"),
            sync: histograms(of_round),
            full_sync: histograms(of_round),
            partial_sync: histograms(of_round),
            last_sync: Family::default(),
            last_queued: Family::default(),
            network_programming: histograms(of_network_programming),
            endpoint_changes: Family::default(),
            endpoint_changes_pending: Family::default(),
            service_changes: Family::default(),
            service_changes_pending: Family::default(),
            no_local_endpoints: Family::default(),
            forgetting: histograms(of_round),
            forgotten: Family::default(),
            sync_failures: Family::default(),
            cleanup_failures: Family::default(),
            healthz: Family::default(),
            livez: Family::default(),
        };
        // What can be counted from the start is there from the start.
        for family in model::Family::ALL {
            for counters in [
                &metrics.endpoint_changes,
                &metrics.service_changes,
                &metrics.forgotten,
                &metrics.sync_failures,
                &metrics.cleanup_failures,
            ] {
                drop(counters.get_or_create(&labels(family)));
            }
        }
        metrics.registered()
    }

    fn registered(mut self) -> Self {
        let r = &mut self.registry;
        r.register(
            "sync_proxy_rules_duration_seconds",
            "SyncProxyRules latency in seconds",
            self.sync.clone(),
        );
        r.register(
            "sync_full_proxy_rules_duration_seconds",
            "SyncProxyRules latency in seconds for full resyncs",
            self.full_sync.clone(),
        );
        r.register(
            "sync_partial_proxy_rules_duration_seconds",
            "SyncProxyRules latency in seconds for partial resyncs",
            self.partial_sync.clone(),
        );
        r.register(
            "sync_proxy_rules_last_timestamp_seconds",
            "The last time proxy rules were successfully synced",
            self.last_sync.clone(),
        );
        r.register(
            "sync_proxy_rules_last_queued_timestamp_seconds",
            "The last time a sync of proxy rules was queued",
            self.last_queued.clone(),
        );
        r.register(
            "network_programming_duration_seconds",
            "In Cluster Network Programming Latency in seconds",
            self.network_programming.clone(),
        );
        r.register(
            "sync_proxy_rules_endpoint_changes",
            "Cumulative proxy rules Endpoint changes",
            self.endpoint_changes.clone(),
        );
        r.register(
            "sync_proxy_rules_endpoint_changes_pending",
            "Pending proxy rules Endpoint changes",
            self.endpoint_changes_pending.clone(),
        );
        r.register(
            "sync_proxy_rules_service_changes",
            "Cumulative proxy rules Service changes",
            self.service_changes.clone(),
        );
        r.register(
            "sync_proxy_rules_service_changes_pending",
            "Pending proxy rules Service changes",
            self.service_changes_pending.clone(),
        );
        r.register(
            "sync_proxy_rules_no_local_endpoints_total",
            "Number of services with a Local traffic policy and no endpoints",
            self.no_local_endpoints.clone(),
        );
        r.register(
            "conntrack_reconciler_sync_duration_seconds",
            "ReconcileConntrackFlowsLatency latency in seconds",
            self.forgetting.clone(),
        );
        r.register(
            "conntrack_reconciler_deleted_entries",
            "Cumulative conntrack flows deleted by conntrack reconciler",
            self.forgotten.clone(),
        );
        r.register(
            "sync_proxy_rules_nftables_sync_failures",
            "Cumulative proxy nftables sync failures",
            self.sync_failures.clone(),
        );
        r.register(
            "sync_proxy_rules_nftables_cleanup_failures",
            "Cumulative proxy nftables cleanup failures",
            self.cleanup_failures.clone(),
        );
        r.register("proxy_healthz", "Cumulative proxy healthz HTTP status", self.healthz.clone());
        r.register("proxy_livez", "Cumulative proxy livez HTTP status", self.livez.clone());
        self
    }

    /// `/healthz` was answered.
    pub(super) fn healthz(&self, code: u16) {
        self.healthz.get_or_create(&vec![("code", code.to_string())]).inc();
    }

    /// `/livez` was answered.
    pub(super) fn livez(&self, code: u16) {
        self.livez.get_or_create(&vec![("code", code.to_string())]).inc();
    }

    /// Something changed that has to be written.
    pub(super) fn queued(&self, now: SystemTime) {
        for family in model::Family::ALL {
            self.last_queued.get_or_create(&labels(family)).set(since_1970(now));
        }
    }

    /// So many changes were seen.
    pub(super) fn changed(&self, services: u64, endpoints: impl Fn(model::Family) -> u64) {
        for family in model::Family::ALL {
            let labels = labels(family);
            self.service_changes.get_or_create(&labels).inc_by(services);
            self.service_changes_pending.get_or_create(&labels).inc_by(services as i64);
            self.endpoint_changes.get_or_create(&labels).inc_by(endpoints(family));
            self.endpoint_changes_pending.get_or_create(&labels).inc_by(endpoints(family) as i64);
        }
    }

    /// A round took in all changes; what cannot be written yet is no pending change.
    pub(super) fn round(&self, took: Duration, full: bool) {
        let kind = if full { &self.full_sync } else { &self.partial_sync };
        for family in model::Family::ALL {
            let labels = labels(family);
            self.sync.get_or_create(&labels).observe(took.as_secs_f64());
            kind.get_or_create(&labels).observe(took.as_secs_f64());
            self.service_changes_pending.get_or_create(&labels).set(0);
            self.endpoint_changes_pending.get_or_create(&labels).set(0);
        }
    }

    /// All is written.
    pub(super) fn updated(&self, now: SystemTime) {
        for family in model::Family::ALL {
            self.last_sync.get_or_create(&labels(family)).set(since_1970(now));
        }
    }

    /// A change of endpoints is in force that long after what gave rise to it.
    pub(super) fn programmed(&self, family: model::Family, after: Duration) {
        let labels = labels(family);
        self.network_programming.get_or_create(&labels).observe(after.as_secs_f64());
    }

    /// So many Services have a local policy and no endpoint here.
    pub(super) fn no_local_endpoints(&self, family: model::Family, internal: usize, external: usize) {
        for (policy, count) in [("internal", internal), ("external", external)] {
            let mut labels = labels(family);
            labels.push(("traffic_policy", policy.to_owned()));
            self.no_local_endpoints.get_or_create(&labels).set(count as i64);
        }
    }

    /// Conntrack was looked through, once for both families.
    pub(super) fn forgot(&self, took: Duration, deleted: PerFamily<u64>) {
        for family in model::Family::ALL {
            self.forgetting.get_or_create(&labels(family)).observe(took.as_secs_f64());
            self.forgotten.get_or_create(&labels(family)).inc_by(deleted[family]);
        }
    }

    /// So many writes and deletions have failed, all in all.
    pub(super) fn failures(&self, writes: u64, deletions: u64) {
        for (counters, now) in [(&self.sync_failures, writes), (&self.cleanup_failures, deletions)] {
            for family in model::Family::ALL {
                let counter = counters.get_or_create_owned(&labels(family));
                counter.inc_by(now.saturating_sub(counter.get()));
            }
        }
    }

    /// Everything, in the OpenMetrics format.
    pub(super) fn text(&self, report: &Report) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        encode_registry(&mut text, &self.registry)?;
        encode_registry(&mut text, &of(report))?;
        encode_eof(&mut text)?;
        Ok(text)
    }
}

fn of(report: &Report) -> Registry {
    let mut registry = Registry::with_prefix("portico");
    let gauge = |value: usize| {
        let gauge: Gauge = Gauge::default();
        gauge.set(value as i64);
        gauge
    };
    registry.register(
        "synced",
        "Whether the kernel holds what the objects ask for",
        gauge(report.synced.into()),
    );
    registry.register("services", "Service ports that are served", gauge(report.services));
    registry.register("frontends", "Addresses and ports that are served", gauge(report.frontends));
    registry.register(
        "pending_entries",
        "Entries of the kernel that are not as they should be",
        gauge(report.pending),
    );
    registry.register("sync_rounds", "Rounds of writes", ConstCounter::new(report.rounds));
    registry.register("sync_entries", "Entries written or deleted", ConstCounter::new(report.entries));
    let seconds = Seconds::default();
    seconds.set(report.latest_round_milliseconds / 1_000.0);
    registry.register_with_unit(
        "latest_round",
        "Duration of the latest round of writes",
        Unit::Seconds,
        seconds,
    );
    let repairs = ConstCounter::new(report.translation.repairs);
    let lost = ConstCounter::new(report.log_lines_lost);
    registry.register("log_lines_lost", "Lines of the log that standard error did not take", lost);
    registry.register("nft_repairs", "Times the nft table had to be mended", repairs);

    let repairs = Counters::default();
    for (kind, count) in &report.repairs {
        repairs.get_or_create(&vec![("kind", kind.clone())]).inc_by(*count);
    }
    let help = "Times an attachment or a pin was taken away by somebody and put back";
    registry.register("repairs", help, repairs);
    registry.register(
        "missing",
        "Attachments, pins and named interfaces that are missing and could not be put back",
        gauge(report.missing.len()),
    );

    let translation = Family::<Labels, Gauge>::default();
    for (family, state) in [("ipv4", &report.translation.ipv4), ("ipv6", &report.translation.ipv6)] {
        let labels = vec![("family", family.to_owned())];
        translation.get_or_create(&labels).set(i64::from(state == "active"));
    }
    registry.register("translation_active", "Whether the kernel translated the latest probe", translation);

    let rejected = Family::<Labels, Gauge>::default();
    for trouble in &report.rejected {
        let labels = vec![
            ("kind", trouble.kind.clone()),
            ("object", trouble.object.clone()),
            ("reason", trouble.reason.clone()),
        ];
        rejected.get_or_create(&labels).set(1);
    }
    registry.register("rejected_objects", "What is not served, and why", rejected);

    let packets = Counters::default();
    for counter in &report.counters {
        let labels = vec![("hook", counter.hook.clone()), ("reason", counter.reason.clone())];
        packets.get_or_create(&labels).inc_by(counter.count);
    }
    registry.register(
        "verdicts",
        "Packets, or calls for hook socket, by why they were treated as they were",
        packets,
    );

    let asking = Family::<Labels, Gauge>::default();
    for row in report.guards.iter().filter(|row| row.syn_cookies != 0) {
        asking.get_or_create(&vec![("service", row.service.clone())]).set(row.asking.into());
    }
    registry.register(
        "syn_cookies",
        "Whether clients of a service port have to prove their address by a SYN cookie now",
        asking,
    );

    let (packets, bytes) = (Counters::default(), Counters::default());
    for row in &report.traffic {
        let labels = vec![
            ("service", row.service.clone()),
            ("backend", row.backend.clone()),
            ("to", row.to.clone()),
            ("input", row.input.clone()),
            ("output", row.output.clone()),
        ];
        packets.get_or_create(&labels).inc_by(row.packets);
        bytes.get_or_create(&labels).inc_by(row.bytes);
    }
    registry.register("forwarded_packets", "Packets of established flows that XDP forwarded", packets);
    let help = "Bytes of established flows that XDP forwarded, with IP headers";
    registry.register("forwarded_bytes", help, bytes);
    registry
}

#[cfg(test)]
mod tests;

//! What the daemon tells the outside, as kube-proxy does: over HTTP about itself and about Services, and in Kubernetes
//! Events.
//!
//! The servers are tasks of their own. The daemon's loop writes down how things are ([`Health`], [`Metrics`], a list of
//! wanted ports) and never waits for them, nor they for it; but for `/metrics`, which also asks for a report.

mod events;
mod exposition;
mod health;
mod http;
mod metrics;
mod service_health;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use hyper::{Request, StatusCode, body::Incoming, header::ACCEPT};
use serde_json::{Value, json};
use tokio::{
    sync::{mpsc, watch},
    time::sleep,
};
use tracing::{info, warn};

use super::status::{Reply, ask};
use crate::{
    config::{Options, Source},
    model::{Family, ObjectName, PerFamily},
    plan::{
        Changes, Dirty, Index, NodeFacts, Rejection,
        health::{LocalEndpoints, Policy},
    },
    reconcile::{Progress, Sweeps},
    text,
    view::Translations,
};
use events::{About, Events, Notice};
use health::{Health, Moment};
use http::{Answer, answer, not_found};
use metrics::Metrics;
use service_health::{Hosts, Wanted};

/// Wait before an address that could not be had is tried again, as while a former process still has it.
const RETRY: Duration = Duration::from_secs(1);
/// What kube-proxy calls the mode that this replaces; tools look for known names.
const MODE: &str = "nftables";
/// The key of kube-proxy's configuration at `/configz`.
const CONFIGURATION: &str = "kubeproxy.config.k8s.io";
/// What all Events about the daemon itself have for an action.
const START: &str = "StartPortico";

/// All of it.
pub(super) struct Serving {
    health: Arc<Health>,
    metrics: Arc<Metrics>,
    events: Events,
    checks: watch::Sender<Wanted>,
    local: LocalEndpoints,
    /// Not in force yet.
    changes: Changes,
    started: SystemTime,
    /// Files need not say anything about the node.
    node_is_optional: bool,
    translation: Translations,
    /// As last told to the metrics.
    sweeps: Sweeps,
}

impl Serving {
    /// Serves health from here on, so that nobody takes a slow start for none.
    ///
    /// # Errors
    ///
    /// The API server's configuration is unusable, or the address cannot be had and may not be waited for.
    pub(super) async fn start(options: &Options) -> anyhow::Result<Self> {
        let node_is_optional = matches!(options.source, Source::Manifests(_));
        let events = match &options.source {
            Source::Manifests(_) => Events::nowhere(&options.node_name),
            Source::Kubernetes(kubeconfig) => {
                let server = options.api_server.clone();
                Events::publish(&options.node_name, kubeconfig.clone(), server).await?
            }
        };
        let health = Arc::new(Health::new(2 * options.sync_period));
        let metrics = Arc::new(Metrics::new());
        let (checks, wanted) = watch::channel(Wanted::default());
        tokio::spawn(service_health::run(wanted, Arc::clone(&health), events.clone()));
        if let Some(address) = options.healthz {
            let server = Server {
                name: "healthz",
                address,
                failure: "FailedToStartProxierHealthcheck",
                events: events.clone(),
            };
            let (health, metrics) = (Arc::clone(&health), Arc::clone(&metrics));
            let handler = move |request: Request<Incoming>| {
                std::future::ready(of_health(&health, &metrics, request.uri().path()))
            };
            server.start(options.bind_address_hard_fail, handler)?;
        }
        Ok(Self {
            health,
            metrics,
            events,
            checks,
            local: LocalEndpoints::default(),
            changes: Changes::default(),
            started: SystemTime::now(),
            node_is_optional,
            translation: Translations::default(),
            sweeps: Sweeps::default(),
        })
    }

    /// Serves metrics, too; the daemon is set up.
    ///
    /// # Errors
    ///
    /// The address cannot be had and may not be waited for.
    pub(super) fn ready(&self, options: &Options, requests: &mpsc::Sender<Reply>) -> anyhow::Result<()> {
        if let Some(address) = options.metrics {
            let server = Server {
                name: "metrics",
                address,
                failure: "FailedToStartMetricServer",
                events: self.events.clone(),
            };
            let configuration: Arc<Value> = Arc::new(json!({ CONFIGURATION: options.configuration }));
            let (metrics, requests) = (Arc::clone(&self.metrics), requests.clone());
            let handler = move |request: Request<Incoming>| {
                of_metrics(Arc::clone(&metrics), requests.clone(), Arc::clone(&configuration), request)
            };
            server.start(options.bind_address_hard_fail, handler)?;
        }
        self.tell_of_node(true, "Starting", START, "portico serves the Services of this node".to_owned());
        Ok(())
    }

    /// The index took in events.
    pub(super) fn noticed(&mut self, index: &mut Index, node: &str) {
        let changes = index.take_changes();
        self.metrics
            .changed(changes.services, |family| changes.slices.get(&family).copied().unwrap_or_default());
        self.changes.merge(changes);
        if index.is_dirty() {
            self.health.queued(Moment::now());
            self.metrics.queued(SystemTime::now());
        }
        // As long as nothing is known of the node, it starts up.
        if index.knows_nodes() {
            let eligible = index.node(node).map_or(self.node_is_optional, |node| node.leaving.is_none());
            self.health.set_node_eligible(eligible);
        }
    }

    /// A round took in what is `dirty`.
    pub(super) fn round(&mut self, round: Round<'_>) {
        let Round { index, facts, dirty, options, took, full } = round;
        self.local.update(index, &facts.name, dirty);
        for family in Family::ALL {
            let [internal, external] =
                [Policy::Internal, Policy::External].map(|policy| self.local.without(family, policy));
            self.metrics.no_local_endpoints(family, internal, external);
        }
        self.metrics.round(took, full);
        let hosts = hosts(options, facts);
        let checks = self.local.checks();
        self.checks.send_if_modified(|wanted| {
            let modified = wanted.checks != *checks || wanted.hosts != hosts;
            if modified {
                *wanted = Wanted { checks: checks.clone(), hosts };
            }
            modified
        });
    }

    /// Something was written, or was to be.
    pub(super) fn wrote(&mut self, progress: &Progress) {
        self.metrics.failures(progress.failed_writes, progress.failed_deletions);
        if progress.sweeps.runs != self.sweeps.runs {
            let (now, before) = (progress.sweeps.deleted, self.sweeps.deleted);
            self.metrics
                .forgot(progress.sweeps.latest, PerFamily::from_fn(|family| now[family] - before[family]));
            self.sweeps = progress.sweeps;
        }
        if progress.error.is_some() {
            return;
        }
        let now = SystemTime::now();
        self.health.updated(Moment::now());
        self.metrics.updated(now);
        let since_1970 = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap_or_default();
        for ((_, family), times) in std::mem::take(&mut self.changes).triggered {
            // What happened before we were here took so long for other reasons.
            for time in times.into_iter().filter(|time| *time > since_1970(self.started)) {
                self.metrics.programmed(family, since_1970(now).saturating_sub(time));
            }
        }
    }

    /// Tells of objects with something new that is not served.
    pub(super) fn rejected(&self, new: &[&Rejection], all: &BTreeSet<Rejection>) {
        let mut reasons: BTreeMap<(&str, &str), Vec<&str>> =
            new.iter().map(|new| ((new.kind, new.object.as_str()), Vec::new())).collect();
        for Rejection { kind, object, reason } in all {
            if let Some(reasons) = reasons.get_mut(&(*kind, object.as_str())) {
                reasons.push(reason);
            }
        }
        for Rejection { kind, object, .. } in new {
            // Once an object.
            let Some(reasons) = reasons.remove(&(*kind, object.as_str())) else { continue };
            let about = match *kind {
                "Node" => About::Node,
                kind => About::Object { kind, name: object_name(object) },
            };
            let note = text::line(reasons.join("; "));
            self.events.tell(Notice { about, normal: false, reason: "NotServed", action: "Serve", note });
        }
    }

    /// Tells whether something of ours is missing and could not be put back.
    pub(super) fn missing(&self, missing: bool) {
        self.health.missing(missing, Moment::now());
    }

    /// Tells if the kernel turns out not to translate.
    pub(super) fn translation(&mut self, now: &Translations) {
        if self.translation == *now {
            return;
        }
        let Translations { ipv4, ipv6, .. } = std::mem::replace(&mut self.translation, now.clone());
        for (family, before, now) in [("IPv4", ipv4, &now.ipv4), ("IPv6", ipv6, &now.ipv6)] {
            if now == "inactive" && before != *now {
                let note =
                    format!("the kernel does not translate {family}: another nftables rule may interfere");
                self.tell_of_node(false, "TranslationInactive", "Probe", note);
            }
        }
    }

    fn tell_of_node(&self, normal: bool, reason: &'static str, action: &'static str, note: String) {
        self.events.tell(Notice { about: About::Node, normal, reason, action, note });
    }
}

/// What [`Serving::round`] is about.
pub(super) struct Round<'a> {
    pub(super) index: &'a Index,
    pub(super) facts: &'a NodeFacts,
    pub(super) dirty: &'a Dirty,
    pub(super) options: &'a Options,
    /// Planning and writing.
    pub(super) took: Duration,
    /// Not only some Services.
    pub(super) full: bool,
}

fn object_name(text: &str) -> ObjectName {
    let (namespace, name) = text.split_once('/').unwrap_or(("", text));
    ObjectName::new(namespace, name)
}

/// Where health check ports are opened: where NodePorts are served.
fn hosts(options: &Options, facts: &NodeFacts) -> Hosts {
    let of_family = |family| {
        let addresses = facts.node_port_addresses.iter().copied();
        let chosen = || addresses.filter(|address| Family::of(*address) == family).collect();
        (!options.node_port_addresses.matches_all(family, None, &facts.node_ips)).then(chosen)
    };
    Hosts { v4: of_family(Family::V4), v6: of_family(Family::V6) }
}

/// A server with an address of its own.
struct Server {
    name: &'static str,
    address: SocketAddr,
    /// The reason of an Event.
    failure: &'static str,
    events: Events,
}

impl Server {
    fn start<F: Future<Output = Answer> + Send + 'static>(
        self,
        hard_fail: bool,
        handler: impl Fn(Request<Incoming>) -> F + Clone + Send + 'static,
    ) -> anyhow::Result<()> {
        match self.bind(None) {
            Ok(listener) => drop(tokio::spawn(http::serve(listener, handler))),
            Err(reason) if hard_fail => {
                anyhow::bail!("cannot serve {} on {}: {reason}", self.name, self.address);
            }
            Err(reason) => drop(tokio::spawn(async move {
                let mut reason = reason;
                let listener = loop {
                    sleep(RETRY).await;
                    match self.bind(Some(&reason)) {
                        Ok(listener) => break listener,
                        Err(again) => reason = again,
                    }
                };
                http::serve(listener, handler).await;
            })),
        }
        Ok(())
    }

    /// Tells of a failure once.
    fn bind(&self, told: Option<&str>) -> Result<tokio::net::TcpListener, String> {
        let Self { name, address, failure, events } = self;
        match http::bind(*address) {
            Ok(listener) => {
                info!(%address, "serving {name}");
                Ok(listener)
            }
            Err(error) => {
                let reason = error.to_string();
                if told != Some(&reason) {
                    warn!(%address, reason, "cannot serve {name}");
                    let note = format!("cannot serve {name} on {address}: {reason}");
                    events.tell(Notice {
                        about: About::Node,
                        normal: false,
                        reason: failure,
                        action: START,
                        note,
                    });
                }
                Err(reason)
            }
        }
    }
}

fn of_health(health: &Health, metrics: &Metrics, path: &str) -> Answer {
    let (code, body) = match path {
        "/healthz" => health.healthz(),
        "/livez" => health.livez(),
        _ => return not_found(),
    };
    if path == "/healthz" {
        metrics.healthz(code.as_u16());
    } else {
        metrics.livez(code.as_u16());
    }
    answer(code, http::JSON, body)
}

async fn of_metrics(
    metrics: Arc<Metrics>,
    requests: mpsc::Sender<Reply>,
    configuration: Arc<Value>,
    request: Request<Incoming>,
) -> Answer {
    match request.uri().path() {
        "/metrics" => {
            let accept = request.headers().get(ACCEPT).and_then(|accept| accept.to_str().ok());
            let text = ask(&requests).await.and_then(|report| metrics.text(&report).ok());
            match text {
                None => answer(StatusCode::SERVICE_UNAVAILABLE, http::TEXT, "the daemon is busy\n"),
                Some(text) if exposition::wants_open_metrics(accept) => {
                    answer(StatusCode::OK, exposition::OPEN_METRICS, text)
                }
                Some(text) => answer(StatusCode::OK, exposition::PROMETHEUS, exposition::prometheus(&text)),
            }
        }
        "/proxyMode" => answer(StatusCode::OK, http::TEXT, MODE),
        "/healthz" => answer(StatusCode::OK, http::TEXT, "ok"),
        "/configz" => answer(StatusCode::OK, http::JSON, configuration.to_string()),
        _ => not_found(),
    }
}

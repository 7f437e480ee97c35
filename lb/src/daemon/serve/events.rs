//! Kubernetes Events, for operators who look at objects rather than at the daemon.
//!
//! They are a courtesy: nothing waits for them, and what cannot be published is dropped.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use k8s_openapi::{
    Resource,
    api::{
        core::v1::{Node, ObjectReference, Service},
        discovery::v1::EndpointSlice,
        networking::v1::ServiceCIDR,
    },
};
use kube::{
    Api, Client,
    api::ListParams,
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use tokio::{sync::mpsc, time::timeout};
use tracing::debug;

use crate::{model::ObjectName, source::kubernetes};

/// Notices that wait to be published.
const QUEUE: usize = 64;
/// For how long the same is not told again.
const QUIET: Duration = Duration::from_secs(600);
/// So many at once, as client-go has it.
const BURST: u32 = 25;
/// And then one in this time.
const REFILL: Duration = Duration::from_secs(10);
/// For how long the API server may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// What the API server allows, in bytes.
const NOTE: usize = 1_024;

/// What an Event is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum About {
    /// This node.
    Node,
    /// An object of the cluster.
    Object {
        /// `Service`, `EndpointSlice` or `ServiceCIDR`; others are not published.
        kind: &'static str,
        /// Its name.
        name: ObjectName,
    },
}

/// An Event to be.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Notice {
    pub(super) about: About,
    /// Or else a warning.
    pub(super) normal: bool,
    pub(super) reason: &'static str,
    pub(super) action: &'static str,
    pub(super) note: String,
}

/// Takes notices from wherever they arise.
#[derive(Clone, Debug)]
pub(super) struct Events {
    node: Arc<str>,
    /// None where there is no API server.
    queue: Option<mpsc::Sender<Notice>>,
}

impl Events {
    /// For when objects come from files. Everything that is told is logged, too, by who tells it.
    pub(super) fn nowhere(node: &str) -> Self {
        Self { node: node.into(), queue: None }
    }

    /// To the API server that objects come from.
    pub(super) async fn publish(
        node: &str,
        kubeconfig: Option<PathBuf>,
        server: Option<String>,
    ) -> Result<Self, kubernetes::Error> {
        Ok(Self::publish_with(node, kubernetes::client(kubeconfig, server).await?))
    }

    fn publish_with(node: &str, client: Client) -> Self {
        let (queue, notices) = mpsc::channel(QUEUE);
        tokio::spawn(publish(node.to_owned(), client, notices));
        Self { node: node.into(), queue: Some(queue) }
    }

    /// This node's name.
    pub(super) fn node(&self) -> &str {
        &self.node
    }

    /// Never waits.
    pub(super) fn tell(&self, notice: Notice) {
        let Some(queue) = &self.queue else { return };
        if let Err(error) = queue.try_send(notice) {
            debug!(%error, "event dropped");
        }
    }
}

async fn publish(node: String, client: Client, mut notices: mpsc::Receiver<Notice>) {
    let reporter = Reporter { controller: "portico".to_owned(), instance: Some(format!("portico-{node}")) };
    let recorder = Recorder::new(client.clone(), reporter);
    let mut filter = Filter::new(Instant::now());
    while let Some(notice) = notices.recv().await {
        if !filter.admits(&notice, Instant::now()) {
            debug!(?notice, "event not published: the same was lately, or too many were");
            continue;
        }
        let outcome = timeout(PATIENCE, async {
            let Some(about) = reference(&client, &node, &notice.about).await else { return Ok(()) };
            recorder.publish(&event(&notice), &about).await
        });
        match outcome.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => debug!(?notice, %error, "event not published"),
            Err(_) => debug!(?notice, "event not published: no answer"),
        }
    }
}

fn event(notice: &Notice) -> Event {
    Event {
        type_: if notice.normal { EventType::Normal } else { EventType::Warning },
        reason: notice.reason.to_owned(),
        note: Some(shortened(&notice.note)),
        action: notice.action.to_owned(),
        secondary: None,
    }
}

fn shortened(note: &str) -> String {
    const MORE: &str = "...";
    if note.len() <= NOTE {
        return note.to_owned();
    }
    let end = (0..=NOTE - MORE.len()).rev().find(|end| note.is_char_boundary(*end)).unwrap_or_default();
    format!("{}{MORE}", &note[..end])
}

async fn reference(client: &Client, node: &str, about: &About) -> Option<ObjectReference> {
    let (api_version, kind, name, uid) = match about {
        // kubectl describe asks for this uid as well as for the true one; so does kube-proxy have it.
        About::Node => (Node::API_VERSION, Node::KIND, ObjectName::new("", node), Some(node.to_owned())),
        About::Object { kind: Service::KIND, name } => {
            let api = Api::<Service>::namespaced(client.clone(), &name.namespace);
            (Service::API_VERSION, Service::KIND, name.clone(), uid(&api, name).await)
        }
        About::Object { kind: EndpointSlice::KIND, name } => {
            let api = Api::<EndpointSlice>::namespaced(client.clone(), &name.namespace);
            (EndpointSlice::API_VERSION, EndpointSlice::KIND, name.clone(), uid(&api, name).await)
        }
        About::Object { kind: ServiceCIDR::KIND, name } => {
            (ServiceCIDR::API_VERSION, ServiceCIDR::KIND, name.clone(), None)
        }
        About::Object { .. } => return None,
    };
    Some(ObjectReference {
        api_version: Some(api_version.to_owned()),
        kind: Some(kind.to_owned()),
        name: Some(name.name),
        namespace: Some(name.namespace).filter(|namespace| !namespace.is_empty()),
        uid,
        ..ObjectReference::default()
    })
}

/// Without it kubectl describe does not show the Event. Asked for by a list, which is what the daemon may do anyway.
async fn uid<K>(api: &Api<K>, name: &ObjectName) -> Option<String>
where
    K: kube::Resource<DynamicType = ()> + Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    let one = ListParams::default().fields(&format!("metadata.name={}", name.name));
    api.list_metadata(&one).await.ok()?.items.pop()?.metadata.uid
}

/// Keeps one bad hour from filling the API server's store.
struct Filter {
    told: HashMap<Notice, Instant>,
    tokens: u32,
    refilled: Instant,
}

impl Filter {
    fn new(now: Instant) -> Self {
        Self { told: HashMap::new(), tokens: BURST, refilled: now }
    }

    fn admits(&mut self, notice: &Notice, now: Instant) -> bool {
        self.told.retain(|_, at| now.saturating_duration_since(*at) < QUIET);
        while self.tokens < BURST && now.saturating_duration_since(self.refilled) >= REFILL {
            self.tokens += 1;
            self.refilled += REFILL;
        }
        if self.tokens == 0 || self.told.contains_key(notice) {
            return false;
        }
        if self.tokens == BURST {
            self.refilled = now;
        }
        self.tokens -= 1;
        self.told.insert(notice.clone(), now);
        true
    }
}

#[cfg(test)]
mod tests;

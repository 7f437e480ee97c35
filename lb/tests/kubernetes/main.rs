//! The watches against an API server.
//!
//! Tests that need no misbehaving server also run against a real one, if `PORTICO_TEST_KUBECONFIG` names a kubeconfig
//! that may create namespaces and nodes.

#![expect(clippy::expect_used, clippy::panic, reason = "a panic is how a test fails")]

#[path = "../support/api_server.rs"]
#[expect(dead_code, reason = "what only the flow suite asks of it")]
mod server;

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use k8s_openapi::api::{
    core::v1::{Namespace, Node as ApiNode, Service as ApiService},
    discovery::v1::EndpointSlice,
    networking::v1::ServiceCIDR,
};
use kube::{
    Api, Client, Config,
    api::{ApiResource, DeleteParams, DynamicObject, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use portico::{
    convert::Selector,
    model::{
        Node, Service, ServiceCidr, Slice,
        change::{Change, Event, Outcome},
    },
    source::kubernetes::{self, Error, Options},
};
use serde_json::{Value, json};
use server::Server;
use tempfile::TempDir;
use tokio::{sync::mpsc, task::JoinHandle, time::timeout};

/// Ample for a loaded machine and several retries.
const DEADLINE: Duration = Duration::from_secs(20);

/// A cluster to test with, and a namespace and a node in it that are the test's own.
struct Cluster {
    kubeconfig: PathBuf,
    client: Client,
    namespace: String,
    node: String,
    /// None for a real one.
    server: Option<Server>,
    _temp: TempDir,
}

impl Cluster {
    async fn ours() -> Self {
        let temp = TempDir::new().expect("temporary directory");
        let server = Server::start().await;
        let kubeconfig = server.kubeconfig(temp.path());
        Self::new(kubeconfig, Some(server), temp, "test".to_owned()).await
    }

    /// The real cluster, if there is one to test with.
    async fn real(test: &str) -> Option<Self> {
        let kubeconfig = std::env::var_os("PORTICO_TEST_KUBECONFIG")?;
        let temp = TempDir::new().expect("temporary directory");
        let unique = format!("portico-{}-{}", std::process::id(), test.replace('_', "-"));
        Some(Self::new(kubeconfig.into(), None, temp, unique).await)
    }

    async fn new(kubeconfig: PathBuf, server: Option<Server>, temp: TempDir, namespace: String) -> Self {
        let config = Kubeconfig::read_from(&kubeconfig).expect("kubeconfig");
        let config =
            Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await.expect("config");
        let client = Client::try_from(config).expect("client");
        let made = json!({"metadata": {"name": namespace}});
        let namespaces: Api<Namespace> = Api::all(client.clone());
        namespaces.create(&PostParams::default(), &parse(made)).await.expect("namespace");
        let node = format!("{namespace}-node");
        Self { kubeconfig, client, namespace, node, server, _temp: temp }
    }

    fn server(&mut self) -> &mut Server {
        self.server.as_mut().expect("our server")
    }

    fn services(&self) -> Api<ApiService> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    fn slices(&self) -> Api<EndpointSlice> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    fn nodes(&self) -> Api<ApiNode> {
        Api::all(self.client.clone())
    }

    fn cidrs(&self) -> Api<ServiceCIDR> {
        Api::all(self.client.clone())
    }

    async fn create_cidr(&self, name: &str, cidrs: Value) {
        let made = json!({"metadata": {"name": name}, "spec": {"cidrs": cidrs}});
        self.cidrs().create(&PostParams::default(), &parse(made)).await.expect("create");
    }

    async fn create_service(&self, name: &str) {
        let made = json!({"metadata": {"name": name}, "spec": {"ports": [{"port": 80}]}});
        self.services().create(&PostParams::default(), &parse(made)).await.expect("create");
    }

    /// Changes a Service; on a real server somebody else may do so, too.
    async fn edit_service(&self, name: &str, edit: impl FnOnce(&mut Value)) {
        let services = self.services();
        let mut service = serde_json::to_value(services.get(name).await.expect("get")).expect("JSON");
        edit(&mut service);
        services.replace(name, &PostParams::default(), &parse(service)).await.expect("replace");
    }

    async fn delete_service(&self, name: &str) {
        self.services().delete(name, &DeleteParams::default()).await.expect("delete");
    }

    fn follow(&self) -> Followed {
        self.follow_as(Selector::default())
    }

    fn follow_as(&self, selector: Selector) -> Followed {
        let (sender, events) = mpsc::channel(16);
        let options = Options {
            kubeconfig: Some(self.kubeconfig.clone()),
            server: None,
            node: self.node.clone(),
            selector,
        };
        let task = tokio::spawn(kubernetes::run(options, sender));
        Followed { namespace: self.namespace.clone(), known: Known::default(), events, task }
    }

    async fn clean_up(self) {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        drop(self.nodes().delete(&self.node, &DeleteParams::default()).await);
        drop(self.nodes().delete(&format!("{}-other", self.node), &DeleteParams::default()).await);
        namespaces.delete(&self.namespace, &DeleteParams::default()).await.expect("delete the namespace");
    }
}

fn parse<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).expect("an object")
}

/// What a consumer of the events knows of the test's namespace.
#[derive(Default)]
struct Known {
    resets: [usize; 3],
    service_cidr_resets: usize,
    services: BTreeMap<String, Outcome<Service>>,
    slices: BTreeMap<String, Outcome<Slice>>,
    nodes: BTreeMap<String, Outcome<Node>>,
    service_cidrs: BTreeMap<String, Outcome<ServiceCidr>>,
    troubles: BTreeMap<String, Vec<String>>,
    /// Names of objects of which a deletion was told.
    deleted: Vec<String>,
}

impl Known {
    fn take(&mut self, event: Event, namespace: &str) {
        let Self { resets: [services, slices, nodes], service_cidr_resets: service_cidrs, deleted, .. } =
            self;
        match event {
            Event::Service(change) => apply(change, &mut self.services, namespace, services, deleted),
            Event::Slice(change) => apply(change, &mut self.slices, namespace, slices, deleted),
            Event::Node(change) => apply(change, &mut self.nodes, "", nodes, deleted),
            Event::ServiceCidr(change) => apply(change, &mut self.service_cidrs, "", service_cidrs, deleted),
            Event::Trouble { place, problems, .. } if problems.is_empty() => {
                assert!(self.troubles.remove(&place).is_some(), "{place} withdrawn without need");
            }
            Event::Trouble { place, problems, .. } => {
                self.troubles.insert(place, problems);
            }
        }
    }

    fn names(&self) -> Vec<&str> {
        self.services.keys().map(String::as_str).collect()
    }

    fn service(&self, name: &str) -> Option<&Service> {
        self.services.get(name)?.as_ref().ok()?.object.as_ref()
    }

    /// The networks of a ServiceCIDR that was understood.
    fn cidrs(&self, name: &str) -> Option<Vec<String>> {
        let converted = self.service_cidrs.get(name)?.as_ref().ok()?;
        Some(converted.object.as_ref()?.cidrs.iter().map(ToString::to_string).collect())
    }

    fn port(&self, name: &str) -> Option<u16> {
        Some(self.service(name)?.ports.first()?.port)
    }

    fn synced(&self) -> bool {
        self.resets.iter().all(|r| *r > 0)
    }
}

fn apply<T>(
    change: Change<T>,
    known: &mut BTreeMap<String, Outcome<T>>,
    namespace: &str,
    resets: &mut usize,
    deleted: &mut Vec<String>,
) {
    match change {
        Change::Apply(name, outcome) if name.namespace == namespace => {
            known.insert(name.name, outcome);
        }
        Change::Delete(name) if name.namespace == namespace => {
            known.remove(&name.name);
            deleted.push(name.name);
        }
        Change::Reset(all) => {
            *resets += 1;
            let own = all.into_iter().filter(|(name, _)| name.namespace == namespace);
            *known = own.map(|(name, outcome)| (name.name, outcome)).collect();
        }
        Change::Apply(..) | Change::Delete(_) => {}
    }
}

/// A source that runs.
struct Followed {
    namespace: String,
    known: Known,
    events: mpsc::Receiver<Event>,
    task: JoinHandle<Result<(), Error>>,
}

impl Followed {
    async fn until(&mut self, what: &str, condition: impl Fn(&Known) -> bool) {
        let wait = async {
            while !condition(&self.known) {
                let event = self.events.recv().await.expect("the source runs");
                self.known.take(event, &self.namespace);
            }
        };
        if timeout(DEADLINE, wait).await.is_err() {
            panic!("no {what}: {:?}, {:?}", self.known.services, self.known.troubles);
        }
    }
}

/// Makes a test against our server and one against a real one of a function.
macro_rules! on_both {
    ($($test:ident)*) => {
        mod ours {
            $(
                #[tokio::test]
                async fn $test() {
                    let cluster = super::Cluster::ours().await;
                    super::$test(&cluster).await;
                    cluster.clean_up().await;
                }
            )*
        }

        mod real {
            $(
                #[tokio::test]
                async fn $test() {
                    match super::Cluster::real(stringify!($test)).await {
                        Some(cluster) => {
                            super::$test(&cluster).await;
                            cluster.clean_up().await;
                        }
                        None => println!("skipped: PORTICO_TEST_KUBECONFIG names no cluster"),
                    }
                }
            )*
        }
    };
}

on_both! {
    begins_with_all_there_is
    follows_services
    follows_slices_of_both_families
    objects_of_other_proxies_are_not_seen
    a_named_proxy_sees_what_has_its_name
    headless_slices_come_and_go_with_their_label
    only_the_own_node_is_seen
    ends_when_nobody_listens
}

async fn begins_with_all_there_is(cluster: &Cluster) {
    for name in ["a", "b", "c"] {
        cluster.create_service(name).await;
    }
    let mut f = cluster.follow();
    f.until("first state", Known::synced).await;
    assert_eq!(f.known.names(), ["a", "b", "c"]);
    assert_eq!((f.known.port("a"), f.known.resets), (Some(80), [1, 1, 1]));
    assert!(f.known.service("a").expect("served").created.is_some());
}

async fn follows_services(cluster: &Cluster) {
    let mut f = cluster.follow();
    f.until("first state", Known::synced).await;
    assert_eq!(f.known.names(), [""; 0]);
    cluster.create_service("a").await;
    f.until("creation", |k| k.port("a") == Some(80)).await;
    cluster
        .edit_service("a", |s| s["spec"]["ports"] = json!([{"name": "dns", "port": 53, "protocol": "UDP"}]))
        .await;
    f.until("update", |k| k.port("a") == Some(53)).await;
    cluster.delete_service("a").await;
    f.until("deletion", |k| k.names().is_empty()).await;
    cluster.create_service("a").await;
    f.until("another creation", |k| k.port("a") == Some(80)).await;
    assert_eq!((f.known.resets, f.known.troubles.len()), ([1, 1, 1], 0));
}

async fn follows_slices_of_both_families(cluster: &Cluster) {
    let mut f = cluster.follow();
    f.until("first state", Known::synced).await;
    for (name, family, address) in [("v4", "IPv4", "10.1.0.1"), ("v6", "IPv6", "fd00:1::1")] {
        let made = json!({
            "metadata": {"name": name, "labels": {"kubernetes.io/service-name": "a"}},
            "addressType": family,
            "endpoints": [{"addresses": [address], "conditions": {"ready": false, "serving": true, "terminating": true}}],
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}, {"name": "dns", "port": 53, "protocol": "UDP"}],
        });
        cluster.slices().create(&PostParams::default(), &parse(made)).await.expect("create");
        f.until("creation", |k| k.slices.contains_key(name)).await;
        let converted = f.known.slices[name].clone().expect("understood");
        let slice = converted.object.expect("served");
        assert_eq!((slice.endpoints[0].address.to_string(), slice.ports.len()), (address.to_owned(), 2));
        assert!(slice.endpoints[0].conditions.terminating && !slice.endpoints[0].conditions.ready);
        cluster.slices().delete(name, &DeleteParams::default()).await.expect("delete");
        f.until("deletion", |k| k.slices.is_empty()).await;
    }
}

async fn objects_of_other_proxies_are_not_seen(cluster: &Cluster) {
    cluster.create_service("a").await;
    let label = "service.kubernetes.io/service-proxy-name";
    cluster.edit_service("a", |s| s["metadata"]["labels"] = json!({label: "other"})).await;
    cluster.create_service("b").await;
    let mut f = cluster.follow();
    f.until("first state", Known::synced).await;
    assert_eq!(f.known.names(), ["b"]);
    cluster.edit_service("a", |s| s["metadata"]["labels"] = json!({})).await;
    f.until("adoption", |k| k.names() == ["a", "b"]).await;
    cluster.edit_service("b", |s| s["metadata"]["labels"] = json!({label: "other"})).await;
    f.until("surrender", |k| k.names() == ["a"]).await;
}

async fn a_named_proxy_sees_what_has_its_name(cluster: &Cluster) {
    for name in ["a", "b", "c"] {
        cluster.create_service(name).await;
    }
    let label = "service.kubernetes.io/service-proxy-name";
    let set = |value: Value| move |s: &mut Value| s["metadata"]["labels"] = json!({label: value});
    cluster.edit_service("a", set(json!("edge"))).await;
    cluster.edit_service("b", set(json!("other"))).await;
    let mut f = cluster.follow_as(Selector::new(Some("edge".to_owned())));
    f.until("first state", Known::synced).await;
    assert_eq!(f.known.names(), ["a"]);
    assert_eq!(f.known.port("a"), Some(80));
    cluster.edit_service("b", set(json!("edge"))).await;
    f.until("adoption", |k| k.port("b") == Some(80)).await;
    cluster.edit_service("a", set(json!("other"))).await;
    f.until("surrender to another", |k| k.names() == ["b"]).await;
    cluster.edit_service("b", |s| s["metadata"]["labels"] = json!({})).await;
    f.until("surrender", |k| k.names().is_empty()).await;
    assert_eq!(f.known.deleted, ["a", "b"]);
}

async fn headless_slices_come_and_go_with_their_label(cluster: &Cluster) {
    let made = json!({
        "metadata": {"name": "s", "labels": {"kubernetes.io/service-name": "a", "service.kubernetes.io/headless": ""}},
        "addressType": "IPv6",
        "endpoints": [{"addresses": ["fd00:1::1"]}],
        "ports": [{"name": "", "port": 80, "protocol": "TCP"}],
    });
    cluster.slices().create(&PostParams::default(), &parse(made)).await.expect("create");
    let mut f = cluster.follow();
    f.until("first state", Known::synced).await;
    assert!(f.known.slices.is_empty());
    for headless in [false, true] {
        let mut slice = cluster.slices().get("s").await.expect("get");
        let labels = slice.metadata.labels.as_mut().expect("labels");
        if headless {
            labels.insert("service.kubernetes.io/headless".to_owned(), String::new());
        } else {
            labels.remove("service.kubernetes.io/headless");
        }
        cluster.slices().replace("s", &PostParams::default(), &slice).await.expect("replace");
        f.until("change", |k| k.slices.is_empty() == headless).await;
    }
    assert_eq!(f.known.deleted, ["s"]);
}

async fn only_the_own_node_is_seen(cluster: &Cluster) {
    let mut f = cluster.follow();
    f.until("first state", Known::synced).await;
    for name in [format!("{}-other", cluster.node), cluster.node.clone()] {
        let made = json!({"metadata": {"name": name, "labels": {"topology.kubernetes.io/zone": "z1"}}});
        cluster.nodes().create(&PostParams::default(), &parse(made)).await.expect("create");
    }
    f.until("own node", |k| !k.nodes.is_empty()).await;
    assert_eq!(f.known.nodes.keys().collect::<Vec<_>>(), [&cluster.node]);
    let node = f.known.nodes[&cluster.node].clone().expect("understood").object.expect("a node");
    assert_eq!(node.zone.as_deref(), Some("z1"));
    cluster.nodes().delete(&cluster.node, &DeleteParams::default()).await.expect("delete");
    f.until("deletion", |k| k.nodes.is_empty()).await;
}

async fn ends_when_nobody_listens(cluster: &Cluster) {
    let mut f = cluster.follow();
    f.until("first state", Known::synced).await;
    drop(f.events);
    timeout(DEADLINE, f.task).await.expect("an end").expect("no panic").expect("no error");
}

/// A cluster of ours with one Service, which is known.
async fn followed() -> (Cluster, Followed) {
    let cluster = Cluster::ours().await;
    cluster.create_service("a").await;
    let mut f = cluster.follow();
    f.until("first state", Known::synced).await;
    (cluster, f)
}

#[tokio::test]
async fn a_connection_lost_between_events_costs_nothing() {
    let (mut cluster, mut f) = followed().await;
    for round in 1..4_u16 {
        cluster.server().drop_connections();
        cluster.edit_service("a", |s| s["spec"]["ports"][0]["port"] = json!(round)).await;
        f.until("update", |k| k.port("a") == Some(round)).await;
    }
    assert_eq!((f.known.resets, f.known.deleted.len()), ([1, 1, 1], 0));
}

#[tokio::test]
async fn a_connection_lost_within_an_event_costs_nothing() {
    let (mut cluster, mut f) = followed().await;
    cluster.server().cut_next_event();
    cluster.edit_service("a", |s| s["spec"]["ports"][0]["port"] = json!(81)).await;
    f.until("update", |k| k.port("a") == Some(81)).await;
    assert_eq!((f.known.resets, f.known.deleted.len()), ([1, 1, 1], 0));
}

#[tokio::test]
async fn a_version_that_is_gone_leads_to_a_list() {
    // As the status of a watch, and as an event in it.
    for as_event in [false, true] {
        let (mut cluster, mut f) = followed().await;
        cluster.create_service("b").await;
        f.until("creation", |k| k.names() == ["a", "b"]).await;
        let namespace = cluster.namespace.clone();
        let server = cluster.server();
        server.stop().await;
        server.delete("services", &namespace, "a");
        if as_event {
            server.forget();
        } else {
            server.gone(3);
        }
        server.resume().await;
        f.until("relist", |k| k.names() == ["b"] && k.resets[0] == 2).await;
        f.until("recovery", |k| k.troubles.is_empty()).await;
        cluster.create_service("c").await;
        f.until("creation", |k| k.names() == ["b", "c"]).await;
    }
}

#[tokio::test]
async fn an_outage_removes_nothing_and_what_was_missed_is_caught_up() {
    let (mut cluster, mut f) = followed().await;
    cluster.create_service("b").await;
    f.until("creation", |k| k.names() == ["a", "b"]).await;
    let namespace = cluster.namespace.clone();
    cluster.server().stop().await;
    f.until("trouble", |k| k.troubles.keys().any(|p| p.ends_with("/api/v1/services"))).await;
    let problems: Vec<_> = f.known.troubles.values().flatten().collect();
    assert!(problems.iter().all(|p| p.to_lowercase().contains("refused")), "{problems:?}");
    assert_eq!(f.known.names(), ["a", "b"]);
    cluster.server().delete("services", &namespace, "a");
    cluster.server().resume().await;
    f.until("missed deletion", |k| k.names() == ["b"]).await;
    f.until("recovery", |k| k.troubles.is_empty()).await;
}

#[tokio::test]
async fn recovery_is_told_even_if_nothing_changed() {
    let (mut cluster, mut f) = followed().await;
    cluster.server().internal_error(true);
    cluster.server().drop_connections();
    f.until("trouble", |k| k.troubles.values().filter(|p| p[0].contains("a bad day")).count() == 4).await;
    cluster.server().internal_error(false);
    f.until("recovery", |k| k.troubles.is_empty()).await;
    assert_eq!((f.known.names(), f.known.resets), (vec!["a"], [1, 1, 1]));
    cluster.create_service("b").await;
    f.until("creation", |k| k.names() == ["a", "b"]).await;
}

#[tokio::test]
async fn a_server_that_is_not_there_yet_is_waited_for() {
    let mut cluster = Cluster::ours().await;
    cluster.create_service("a").await;
    cluster.server().stop().await;
    let mut f = cluster.follow();
    f.until("trouble", |k| k.troubles.len() == 4).await;
    assert_eq!(f.known.resets, [0, 0, 0]);
    cluster.server().resume().await;
    f.until("first state", Known::synced).await;
    f.until("recovery", |k| k.troubles.is_empty()).await;
    assert_eq!(f.known.names(), ["a"]);
}

#[tokio::test]
async fn one_forbidden_kind_does_not_hold_up_the_others() {
    let mut cluster = Cluster::ours().await;
    cluster.server().refuse(Some(("nodes", 403)));
    let mut f = cluster.follow();
    f.until("the others and trouble", |k| k.resets == [1, 1, 0] && k.troubles.len() == 1).await;
    let (place, problems) = f.known.troubles.first_key_value().expect("trouble");
    assert!(place.ends_with("/api/v1/nodes") && problems[0].contains("nodes is forbidden"), "{problems:?}");
    cluster.create_service("a").await;
    f.until("creation", |k| k.names() == ["a"]).await;
    cluster.server().refuse(None);
    f.until("nodes", |k| k.resets == [1, 1, 1] && k.troubles.is_empty()).await;
}

#[tokio::test]
async fn service_cidrs_are_followed() {
    let cluster = Cluster::ours().await;
    cluster.create_cidr("a", json!(["10.96.0.0/12"])).await;
    let mut f = cluster.follow();
    f.until("first state", |k| k.synced() && k.cidrs("a").is_some()).await;
    cluster.create_cidr("b", json!(["10.112.0.0/16", "fd00:96::/112"])).await;
    f.until("creation", |k| k.cidrs("b").is_some()).await;
    assert_eq!(f.known.cidrs("b").expect("known"), ["10.112.0.0/16", "fd00:96::/112"]);
    let mut changed = cluster.cidrs().get("a").await.expect("get");
    changed.spec = Some(parse(json!({"cidrs": ["10.96.0.0/12", "fd00:97::/112"]})));
    cluster.cidrs().replace("a", &PostParams::default(), &changed).await.expect("replace");
    f.until("update", |k| k.cidrs("a").is_some_and(|c| c.len() == 2)).await;
    cluster.cidrs().delete("a", &DeleteParams::default()).await.expect("delete");
    f.until("deletion", |k| k.cidrs("a").is_none()).await;
    assert_eq!((f.known.service_cidr_resets, f.known.troubles.len()), (1, 0));
}

#[tokio::test]
async fn service_cidrs_are_done_without_where_there_are_none() {
    for code in [403, 404] {
        let mut cluster = Cluster::ours().await;
        cluster.create_service("a").await;
        cluster.create_cidr("a", json!(["fd00:96::/112"])).await;
        cluster.server().refuse(Some(("servicecidrs", code)));
        let mut f = cluster.follow();
        f.until("first state", Known::synced).await;
        cluster.create_service("b").await;
        f.until("creation", |k| k.names() == ["a", "b"]).await;
        assert_eq!((f.known.service_cidr_resets, f.known.troubles.len()), (0, 0), "{code}");
        cluster.server().refuse(None);
        f.until("ServiceCIDRs", |k| k.cidrs("a").is_some()).await;
        assert_eq!((f.known.service_cidr_resets, f.known.troubles.len()), (1, 0), "{code}");
    }
}

#[tokio::test]
async fn rights_to_service_cidrs_may_be_taken_away() {
    let mut cluster = Cluster::ours().await;
    cluster.create_cidr("a", json!(["10.96.0.0/12"])).await;
    let mut f = cluster.follow();
    f.until("first state", |k| k.synced() && k.cidrs("a").is_some()).await;
    cluster.server().internal_error(true);
    cluster.server().drop_connections();
    f.until("trouble", |k| k.troubles.keys().any(|p| p.ends_with("/servicecidrs"))).await;
    cluster.server().refuse(Some(("servicecidrs", 403)));
    cluster.server().internal_error(false);
    f.until("the others' recovery", |k| k.troubles.is_empty()).await;
    assert!(f.known.cidrs("a").is_some(), "what was seen stands");
    cluster.server().refuse(None);
    cluster.create_cidr("b", json!(["10.112.0.0/16"])).await;
    f.until("creation", |k| k.cidrs("b").is_some()).await;
}

#[tokio::test]
async fn an_object_of_the_wrong_shape_hides_no_other() {
    let (cluster, mut f) = followed().await;
    let shapeless = json!({"metadata": {"name": "b"}, "spec": {"ports": "eighty"}});
    let kind = ApiResource::erase::<ApiService>(&());
    let services: Api<DynamicObject> =
        Api::namespaced_with(cluster.client.clone(), &cluster.namespace, &kind);
    services.create(&PostParams::default(), &parse(shapeless)).await.expect("create");
    f.until("rejection", |k| matches!(k.services.get("b"), Some(Err(reason)) if reason.contains("eighty")))
        .await;
    cluster.create_service("c").await;
    f.until("creation after it", |k| k.port("c") == Some(80)).await;
    assert_eq!((f.known.resets, f.known.troubles.len()), ([1, 1, 1], 0));

    let mut another = cluster.follow();
    another.until("first state", Known::synced).await;
    assert_eq!(another.known.names(), ["a", "b", "c"]);
    assert_eq!((another.known.port("a"), another.known.troubles.len()), (Some(80), 0));
}

#[tokio::test]
async fn lists_come_in_pages() {
    let mut cluster = Cluster::ours().await;
    let count = 1201;
    for i in 0..count {
        cluster.create_service(&format!("s{i}")).await;
    }
    // The second page's token expires once: the list begins anew, and is told once, whole.
    cluster.server().expire_pages(1);
    cluster.server().take_requests();
    let mut f = cluster.follow();
    f.until("first state", Known::synced).await;
    assert_eq!((f.known.names().len(), f.known.resets), (count, [1, 1, 1]));
    let requests = cluster.server().take_requests();
    let pages =
        requests.iter().filter(|r| r.starts_with("/api/v1/services?") && r.contains("limit=500")).count();
    assert_eq!(pages, 2 + 3, "{requests:?}");
}

#[tokio::test]
async fn bookmarks_spare_a_list() {
    let (mut cluster, mut f) = followed().await;
    // Changes of other kinds are bookmarks to this watch; once they are known, the versions before may be forgotten.
    let made = json!({"metadata": {"name": cluster.node}});
    cluster.nodes().create(&PostParams::default(), &parse(made)).await.expect("create");
    f.until("node", |k| !k.nodes.is_empty()).await;
    cluster.create_service("b").await;
    f.until("creation", |k| k.names() == ["a", "b"]).await;
    let made = json!({"metadata": {"name": "s", "labels": {"kubernetes.io/service-name": "a"}}, "addressType": "IPv4"});
    cluster.slices().create(&PostParams::default(), &parse(made)).await.expect("create");
    f.until("slice", |k| !k.slices.is_empty()).await;
    cluster.server().take_requests();
    cluster.server().forget();
    cluster.server().drop_connections();
    cluster.create_service("c").await;
    f.until("creation", |k| k.names() == ["a", "b", "c"]).await;
    let lists = cluster.server().take_requests().into_iter().filter(|r| r.contains("limit=500")).count();
    assert_eq!((lists, f.known.deleted.len()), (0, 0));
}

#[tokio::test]
async fn an_unusable_kubeconfig_is_an_error() {
    let temp = TempDir::new().expect("temporary directory");
    let path = temp.path().join("kubeconfig");
    for text in [None, Some(""), Some("a: ["), Some("apiVersion: v1\nkind: Config\n")] {
        if let Some(text) = text {
            std::fs::write(&path, text).expect("write");
        }
        let (sender, _events) = mpsc::channel(1);
        let options = Options {
            kubeconfig: Some(path.clone()),
            server: None,
            node: "n".to_owned(),
            selector: Selector::default(),
        };
        let error = kubernetes::run(options, sender).await.expect_err("an error");
        assert_eq!(error.to_string(), format!("cannot use kubeconfig {}", path.display()), "{text:?}");
    }
}

//! What kube-proxy serves over HTTP: health of the daemon and of Services, metrics, mode, configuration.

use std::net::SocketAddr;

use lab::{
    Netns, Topology, XdpMode,
    addr::{self, Family},
    eventually_ok,
    manifest::{NODE, Service},
};
use serde_json::{Value, json};

use crate::scene::{SOON, Scene, output, root, web};

const HEALTHZ: u16 = 10_256;
const METRICS: u16 = 10_249;
const CHECKS: u16 = 32_080;

/// An answer, as `curl` shows it.
#[derive(Debug)]
struct Answer {
    code: u16,
    head: String,
    body: String,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        let fields = self.head.lines().filter_map(|line| line.split_once(": "));
        fields.into_iter().find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// None if nobody answers.
fn get(from: &Netns, to: SocketAddr, path: &str, accept: &str) -> Option<Answer> {
    let url = format!("http://{to}{path}");
    let accept = format!("Accept: {accept}");
    let curl = output(from.command("curl").args(["-sgi", "-m", "5", "-H", &accept, &url]));
    let (head, body) = curl.stdout.split_once("\r\n\r\n")?;
    let code = head.split(' ').nth(1)?.parse().ok()?;
    Some(Answer { code, head: head.to_owned(), body: body.to_owned() })
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::new(std::net::Ipv4Addr::LOCALHOST.into(), port)
}

impl Scene {
    fn get(&self, to: SocketAddr, path: &str) -> Answer {
        get(&self.topology.gateway, to, path, "*/*").unwrap()
    }

    fn metrics(&self) -> String {
        self.get(local(METRICS), "/metrics").body
    }

    fn await_health(&self, family: Family, code: u16, endpoints: usize) {
        let to = SocketAddr::new(addr::GATEWAY.of(family), CHECKS);
        eventually_ok("the service's health", SOON, || {
            // As a load balancer outside would ask.
            let answer = get(&self.topology.client, to, "/some/path", "*/*").ok_or("nobody answers")?;
            let expected = json!({
                "service": { "namespace": "lab", "name": "web" },
                "localEndpoints": endpoints,
                "serviceProxyHealthy": true,
            });
            let weight = answer.header("x-load-balancing-endpoint-weight");
            let good =
                answer.code == code && answer.json() == expected && weight == Some(&endpoints.to_string());
            if good { Ok(()) } else { Err(format!("{answer:?}")) }
        })
        .unwrap();
    }
}

fn here(mut service: Service, ready: bool) -> Service {
    for endpoint in &mut service.endpoints {
        NODE.clone_into(&mut endpoint.node);
        endpoint.ready = ready;
    }
    service
}

#[test]
fn the_daemon_tells_of_itself() {
    root();
    let scene = Scene::with_two_backends(XdpMode::Off);
    for to in [local(HEALTHZ), SocketAddr::new(addr::GATEWAY.of(Family::V6), HEALTHZ)] {
        let healthz = scene.get(to, "/healthz");
        assert_eq!(healthz.code, 200, "{healthz:?}");
        assert_eq!(healthz.header("content-type"), Some("application/json"));
        assert_eq!(healthz.header("x-content-type-options"), Some("nosniff"));
        let body = healthz.json();
        assert_eq!((&body["healthy"], &body["nodeEligible"]), (&json!(true), &json!(true)), "{body}");
        assert_eq!(body["lastUpdated"], body["currentTime"]);
        assert_eq!(body["status"]["IPv6"]["healthy"], true, "{body}");
    }
    let livez = scene.get(local(HEALTHZ), "/livez");
    assert_eq!((livez.code, livez.json().get("nodeEligible")), (200, None));
    assert_eq!(scene.get(local(HEALTHZ), "/").code, 404);

    let answer = |path| {
        let answer = scene.get(local(METRICS), path);
        assert_eq!(answer.code, 200, "{answer:?}");
        answer
    };
    assert_eq!(answer("/proxyMode").body, "nftables");
    assert_eq!(answer("/healthz").body, "ok");
    assert!(answer("/configz").json().get("kubeproxy.config.k8s.io").is_some());
    assert_eq!(scene.get(local(METRICS), "/debug/pprof").code, 404);

    let metrics = answer("/metrics");
    assert_eq!(metrics.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    for line in [
        "portico_synced 1",
        "# TYPE kubeproxy_sync_proxy_rules_service_changes_total counter",
        "kubeproxy_sync_proxy_rules_service_changes_total{ip_family=\"IPv4\"} 1",
        "kubeproxy_sync_proxy_rules_service_changes_pending{ip_family=\"IPv4\"} 0",
        "kubeproxy_sync_proxy_rules_endpoint_changes_total{ip_family=\"IPv6\"} 1",
        "kubeproxy_sync_full_proxy_rules_duration_seconds_count{ip_family=\"IPv4\"} 1",
        "kubeproxy_proxy_healthz_total{code=\"200\"} 2",
        "kubeproxy_proxy_livez_total{code=\"200\"} 1",
        "kubeproxy_sync_proxy_rules_nftables_sync_failures_total{ip_family=\"IPv4\"} 0",
    ] {
        assert!(metrics.body.lines().any(|l| l == line), "no {line:?} in {}", metrics.body);
    }
    let accept = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3";
    let open = get(&scene.topology.gateway, local(METRICS), "/metrics", accept).unwrap();
    assert!(open.header("content-type").unwrap().starts_with("application/openmetrics-text"), "{open:?}");
    assert!(open.body.ends_with("# EOF\n"), "{}", open.body);
    scene.finish();
}

#[test]
fn services_tell_load_balancers_of_their_endpoints_here() {
    root();
    let topology = Topology::builder().build().unwrap();
    let mut service = web().with(topology.backends());
    (service.external_local, service.health_check_node_port) = (true, Some(CHECKS));
    let mut scene = Scene::start(topology, XdpMode::Off, &[here(service.clone(), true)]);
    let both = |code, endpoints| Family::ALL.map(|family| scene.await_health(family, code, endpoints));
    both(200, 2);
    let without = |policy: &str| {
        let name = "kubeproxy_sync_proxy_rules_no_local_endpoints_total";
        format!("{name}{{ip_family=\"IPv4\",traffic_policy=\"{policy}\"}} 1")
    };
    assert!(!scene.metrics().contains(&without("external")));

    scene.manifests.put(&here(service.clone(), false)).unwrap();
    both(503, 0);
    // Endpoints, but elsewhere.
    scene.manifests.put(&service).unwrap();
    eventually_ok("the metric", SOON, || {
        let metrics = scene.metrics();
        if metrics.contains(&without("external")) { Ok(()) } else { Err(metrics) }
    })
    .unwrap();
    both(503, 0);
    scene.manifests.put(&here(service, true)).unwrap();
    both(200, 2);

    // Another process takes over port and all.
    scene.daemon.kill();
    scene.start_again();
    for family in Family::ALL {
        scene.await_health(family, 200, 2);
    }

    scene.manifests.remove("web").unwrap();
    for family in Family::ALL {
        let to = SocketAddr::new(addr::GATEWAY.of(family), CHECKS);
        eventually_ok("the port is closed", SOON, || match get(&scene.topology.client, to, "/", "*/*") {
            None => Ok(()),
            Some(answer) => Err(format!("{answer:?}")),
        })
        .unwrap();
    }
    scene.finish();
}

#[test]
fn an_address_that_somebody_has_is_waited_for() {
    root();
    let topology = Topology::builder().build().unwrap();
    let bind = || std::net::TcpListener::bind(("0.0.0.0", HEALTHZ)).unwrap();
    let squatter = topology.gateway.run(bind).unwrap();
    let services = [web().with(topology.backends())];
    let scene = Scene::start(topology, XdpMode::Off, &services);
    assert!(scene.daemon.stderr().iter().any(|line| line.contains("cannot serve healthz")));
    drop(squatter);
    eventually_ok("healthz", SOON, || {
        get(&scene.topology.gateway, local(HEALTHZ), "/healthz", "*/*")
            .filter(|answer| answer.code == 200)
            .ok_or("not yet")
    })
    .unwrap();
    scene.finish();
}

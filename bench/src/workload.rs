//! Services and endpoints in any number.

use std::{
    fmt::{self, Write as _},
    net::{IpAddr, Ipv4Addr},
};

use lab::manifest::NAMESPACE;
use portico::model::{
    Conditions, Endpoint, GuardWish, ObjectName, PerFamily, Protocol, Service, ServicePort, Slice, SlicePort,
    TrafficPolicy,
    change::{Change, Converted, Event, Outcome},
};

/// Endpoints that there are addresses for, and services.
pub(crate) const MAX_ENDPOINTS: u32 = 500_000;

/// How much there is to serve.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    pub(crate) services: u32,
    /// Of each.
    pub(crate) endpoints: u32,
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} x {}", self.services, self.endpoints)
    }
}
/// On which services listen.
pub(crate) const PORT: u16 = 80;
/// On which their endpoints do.
pub(crate) const TARGET: u16 = 8_080;

/// Cluster address of a service, out of 10.0.0.0/8.
pub(crate) fn cluster_ip(service: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(0x0a00_0000 + (service << 2) + 1)
}

/// Addresses of a service's own endpoints, out of 172.16.0.0/12.
pub(crate) fn endpoints(service: u32, number: u32) -> impl Iterator<Item = Ipv4Addr> {
    (0..number).map(move |n| Ipv4Addr::from_bits(0xac10_0000 + service * number + n))
}

/// Addresses of endpoints that come and go, none twice, out of 192.168.0.0/16.
pub(crate) fn guest(n: u16) -> Ipv4Addr {
    Ipv4Addr::from_bits(0xc0a8_0000 | u32::from(n))
}

fn name(service: u32) -> String {
    format!("service-{service:05}")
}

fn service(number: u32) -> Service {
    Service {
        name: ObjectName::new(NAMESPACE, name(number)),
        created: None,
        cluster_ips: vec![cluster_ip(number).into()],
        external_ips: Vec::new(),
        load_balancer_ips: Vec::new(),
        families: PerFamily { v4: true, v6: false },
        external_policy: TrafficPolicy::Cluster,
        internal_policy: TrafficPolicy::Cluster,
        affinity: None,
        guard: GuardWish::default(),
        source_ranges: Vec::new(),
        health_check_node_port: None,
        ports: vec![ServicePort {
            name: "http".to_owned(),
            protocol: Protocol::Tcp,
            port: PORT,
            node_port: None,
        }],
    }
}

/// The slice of a service, with further endpoints.
fn slice(number: u32, own: u32, more: Option<Ipv4Addr>) -> Slice {
    let endpoint = |address: Ipv4Addr| Endpoint {
        address: IpAddr::V4(address),
        conditions: Conditions::default(),
        node: Some("elsewhere".to_owned()),
        zone_hints: Vec::new(),
        node_hints: Vec::new(),
    };
    Slice {
        triggered: None,
        name: ObjectName::new(NAMESPACE, format!("{}-ipv4", name(number))),
        service: ObjectName::new(NAMESPACE, name(number)),
        ports: vec![SlicePort { name: "http".to_owned(), protocol: Protocol::Tcp, port: TARGET }],
        endpoints: endpoints(number, own).chain(more).map(endpoint).collect(),
    }
}

const fn sound<T>(object: T) -> Outcome<T> {
    Ok(Converted { object: Some(object), defects: Vec::new(), notes: Vec::new() })
}

/// What a source says first.
pub(crate) fn all(Size { services, endpoints }: Size) -> [Event; 3] {
    let named = |service: Service| (service.name.clone(), sound(service));
    let named_slice = |slice: Slice| (slice.name.clone(), sound(slice));
    [
        Event::Service(Change::Reset((0..services).map(service).map(named).collect())),
        Event::Slice(Change::Reset(
            (0..services).map(|n| slice(n, endpoints, None)).map(named_slice).collect(),
        )),
        Event::Node(Change::Reset(Vec::new())),
    ]
}

/// What it says when a service has an endpoint besides its own, or has it no more.
pub(crate) fn change(number: u32, endpoints: u32, more: Option<Ipv4Addr>) -> Event {
    let slice = slice(number, endpoints, more);
    Event::Slice(Change::Apply(slice.name.clone(), sound(slice)))
}

/// The same as manifests in one file; the first service with one endpoint more, if so.
pub(crate) fn manifests(size: Size, more: Option<Ipv4Addr>) -> String {
    let mut text = String::new();
    for number in 0..size.services {
        let (name, ip) = (name(number), cluster_ip(number));
        // Writing to a `String` does not fail.
        let _ = write!(
            text,
            "---\napiVersion: v1\nkind: Service\nmetadata:\n  name: {name}\n  namespace: {NAMESPACE}\nspec:\n  \
             type: ClusterIP\n  clusterIP: {ip}\n  clusterIPs:\n  - {ip}\n  ipFamilies:\n  - IPv4\n  ports:\n  \
             - name: http\n    protocol: TCP\n    port: {PORT}\n    targetPort: {TARGET}\n"
        );
        let more = more.filter(|_| number == 0);
        text.push_str(&slice_manifest(number, "ipv4", endpoints(number, size.endpoints).chain(more)));
    }
    text
}

/// A slice with one endpoint more for a service, as a manifest of its own.
pub(crate) fn guest_manifest(number: u32, guest: Ipv4Addr) -> String {
    slice_manifest(number, "guest", [guest].into_iter())
}

fn slice_manifest(number: u32, suffix: &str, addresses: impl Iterator<Item = Ipv4Addr>) -> String {
    let name = name(number);
    let mut text = format!(
        "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: {name}-{suffix}\n  \
         namespace: {NAMESPACE}\n  labels:\n    kubernetes.io/service-name: {name}\naddressType: IPv4\nports:\n\
         - name: http\n  protocol: TCP\n  port: {TARGET}\nendpoints:\n"
    );
    for address in addresses {
        let _ = write!(
            text,
            "- addresses:\n  - {address}\n  conditions:\n    ready: true\n  nodeName: elsewhere\n"
        );
    }
    text
}

//! `KubeProxyConfiguration`, and what follows from it together with the rest.

mod fields;

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use clap::ValueEnum as _;
use datapath::abi::Guard;
use serde_json::Value;

use super::{
    Config, Conntrack, DetectLocal, FastPath, Given, Host, Mistake, NodePortAddresses, NodePortRange, Note,
    Options, Source, XdpChoice,
    kind::{ip, net},
    portico,
    settings::{Origin, Schema, Settings, put},
};

use crate::text::quote;

pub(super) const VERSION: &str = "kubeproxy.config.k8s.io/v1alpha1";
pub(super) const KIND: &str = "KubeProxyConfiguration";

pub(super) static SCHEMA: Schema = Schema { fields: fields::FIELDS, renamed: &fields::RENAMED };

/// Flags from before there were addresses, and those of the addresses.
pub(super) static PORTS: [(&str, &str); 2] =
    [("healthz-port", "healthz-bind-address"), ("metrics-port", "metrics-bind-address")];

/// Least time between two rounds of writes, if nothing else is said; kube-proxy has a second.
const MIN_SYNC_PERIOD: Duration = Duration::from_millis(50);
const SYNC_PERIOD: Duration = Duration::from_secs(30);

/// The flags, with what [`PORTS`] say in those of the addresses: 0 is nowhere, else it is the port of an address that has
/// none. With a file they are ignored, as kube-proxy does.
pub(super) fn with_ports(
    flags: &[Given],
    file: bool,
    notes: &mut Vec<Note>,
    mistakes: &mut Vec<Mistake>,
) -> Vec<Given> {
    let mut flags = flags.to_vec();
    for (flag, address_flag) in PORTS {
        let Some(text) = flags.iter().find(|given| given.flag == flag).and_then(|given| given.values.last())
        else {
            continue;
        };
        let Ok(port) = text.parse::<u16>() else {
            mistakes.push(Origin::Flag(flag).mistake(format!("{} is not a port", quote(text))));
            continue;
        };
        let given = flags.iter().find(|given| given.flag == address_flag);
        let address = given.and_then(|given| given.values.last()).map(String::as_str).unwrap_or_default();
        let value = match (port, ip(address)) {
            _ if file => None,
            (0, _) => Some("off".to_owned()),
            (port, Ok(ip)) => Some(SocketAddr::new(ip, port).to_string()),
            (port, Err(_)) => Some(format!(":{port}")).filter(|_| address.is_empty()),
        };
        match value {
            Some(value) => {
                flags.retain(|given| given.flag != address_flag);
                flags.push(Given { flag: address_flag, values: vec![value] });
            }
            None => notes.push(Note {
                object: Origin::Flag(flag).name(),
                reason: format!("does not count beside {}", if file { "--config" } else { address_flag }),
            }),
        }
    }
    flags
}

/// Everything together.
pub(super) fn resolve(set: &Settings, own: &Settings, host: &Host, mistakes: &mut Vec<Mistake>) -> Config {
    let mut notes: Vec<Note> = set.notes().chain(own.notes()).collect();
    let mode = set.text("mode");
    let sync = Sync::of(set, &mode, mistakes);
    let node_ips: Vec<IpAddr> =
        ip(&set.text("bindAddress")).ok().into_iter().filter(|ip| !ip.is_unspecified()).collect();
    let v6 = ip(&set.text("bindAddress")).is_ok_and(|ip| ip.is_ipv6());
    let healthz = bind(&set.text("healthzBindAddress"), if v6 { "[::]" } else { "0.0.0.0" }, ":10256");
    let metrics = bind(&set.text("metricsBindAddress"), if v6 { "[::1]" } else { "127.0.0.1" }, ":10249");
    notes.extend(notes_on(set, &mode, &sync));

    let path = |settings: &Settings, path| {
        Some(settings.text(path)).filter(|text| !text.is_empty()).map(PathBuf::from)
    };
    let options = Options {
        source: source(set, own, &mut notes, mistakes),
        api_server: Some(own.text("apiServer")).filter(|url| !url.is_empty()),
        node_name: node_name(set, own, host, mistakes),
        interfaces: own.texts("interfaces"),
        xdp: XdpChoice::from_str(&own.text("xdp"), false).unwrap_or_default(),
        fast_path: FastPath::new(own.texts("fastPath").iter().filter_map(|part| part.parse().ok())),
        flow_cache: u32::try_from(own.int("flowCache")).ok(),
        guard: guard(own),
        closes_vips: own.text("unservedPorts") == "drop",
        cgroup: path(own, "cgroup"),
        pin_dir: path(own, "pinDir").unwrap_or_else(|| host.pin_dir.clone()),
        node_port_addresses: NodePortAddresses::new(ranges(set)),
        node_ips,
        detect_local: detect_local(set, mistakes),
        masquerade_all: sections(&mode).iter().any(|section| set.bool(&format!("{section}.masqueradeAll"))),
        service_cidrs: own.texts("serviceCIDRs").iter().filter_map(|cidr| net(cidr).ok()).collect(),
        service_proxy_name: Some(set.text("serviceProxyName")).filter(|name| !name.is_empty()),
        conntrack: conntrack(set),
        min_sync_period: sync.min,
        sync_period: sync.period,
        metrics: metrics.parse().ok(),
        healthz: healthz.parse().ok(),
        bind_address_hard_fail: set.bool("bindAddressHardFail"),
        oom_score_adj: i32::try_from(set.int("oomScoreAdj")).ok(),
        configuration: Value::Null,
        notes: Vec::new(),
    };
    let mut document = set.document(VERSION, KIND);
    if let Value::Object(root) = &mut document {
        for (path, value) in [("healthzBindAddress", healthz), ("metricsBindAddress", metrics)] {
            put(root, path, value.into());
        }
        let section = sync.section;
        put(root, &format!("{section}.minSyncPeriod"), super::duration::format(sync.min).into());
        put(root, &format!("{section}.syncPeriod"), super::duration::format(sync.period).into());
    }
    Config {
        options: Options { configuration: document, notes, ..options },
        verbosity: u32::try_from(set.int("logging.verbosity")).unwrap_or_default(),
        portico: (!own.is_empty()).then(|| own.document(portico::VERSION, portico::KIND)),
    }
}

fn guard(own: &Settings) -> Option<Guard> {
    let number = |path| u32::try_from(own.int(path)).unwrap_or(u32::MAX);
    (own.text("guard") != "off").then(|| Guard {
        cookies: number("synCookies"),
        flows: number("maxNewFlows"),
        source_flows: number("maxNewFlowsPerSource"),
    })
}

/// The sections whose `masqueradeAll` counts. Which mode an empty one stands for depends on kube-proxy's version.
fn sections(mode: &str) -> &'static [&'static str] {
    match mode {
        "nftables" => &["nftables"],
        "" => &["nftables", "iptables"],
        _ => &["iptables"],
    }
}

/// Periods, and the section they are from.
struct Sync {
    section: &'static str,
    min: Duration,
    period: Duration,
}

impl Sync {
    fn of(set: &Settings, mode: &str, mistakes: &mut Vec<Mistake>) -> Self {
        let is_set = |section: &str| {
            ["minSyncPeriod", "syncPeriod"]
                .iter()
                .any(|name| set.origin(&format!("{section}.{name}")).is_some())
        };
        let section = match mode {
            "iptables" => "iptables",
            "ipvs" => "ipvs",
            "" if is_set("iptables") && !is_set("nftables") => "iptables",
            _ => "nftables",
        };
        let field = |name| {
            let path = format!("{section}.{name}");
            set.origin(&path).map(|origin| (set.duration(&path), origin))
        };
        let (min, period) = (field("minSyncPeriod"), field("syncPeriod"));
        let sync = Self {
            section,
            min: min.as_ref().map_or(MIN_SYNC_PERIOD, |(min, _)| *min),
            period: period.as_ref().map_or(SYNC_PERIOD, |(period, _)| *period),
        };
        if let Some((Duration::ZERO, origin)) = &period {
            mistakes.push(origin.mistake("must be greater than 0"));
        } else if sync.min > sync.period
            && let Some((_, origin)) = min.or(period)
        {
            let format = super::duration::format;
            let problem =
                format!("minSyncPeriod {} is more than syncPeriod {}", format(sync.min), format(sync.period));
            mistakes.push(origin.mistake(problem));
        }
        sync
    }
}

/// The address in full; "off" for nowhere.
fn bind(text: &str, host: &str, port: &str) -> String {
    match text {
        "" => format!("{host}{port}"),
        // An address that was left out means any.
        text if text.starts_with(':') && host.starts_with('[') => format!("[::]{text}"),
        text if text.starts_with(':') => format!("0.0.0.0{text}"),
        text => text.to_owned(),
    }
}

fn ranges(set: &Settings) -> Vec<NodePortRange> {
    set.texts("nodePortAddresses").iter().filter_map(|range| range.parse().ok()).collect()
}

fn source(set: &Settings, own: &Settings, notes: &mut Vec<Note>, mistakes: &mut Vec<Mistake>) -> Source {
    let (manifests, kubeconfig) = (own.text("manifests"), set.text("clientConnection.kubeconfig"));
    match (own.origin("manifests"), set.origin("clientConnection.kubeconfig")) {
        (Some(origin @ Origin::Flag(_)), Some(Origin::Flag(other))) => {
            mistakes.push(origin.mistake(format!("cannot be used with --{other}")));
        }
        (Some(file @ Origin::File(..)), Some(Origin::Flag(flag))) => {
            notes.push(Note { object: file.name(), reason: format!("does not count beside --{flag}") });
            return Source::Kubernetes(Some(kubeconfig.into()));
        }
        (Some(counts), Some(ignored)) => notes.push(Note {
            object: ignored.name(),
            reason: format!("does not count beside {}", counts.name()),
        }),
        (None, _) => {
            return Source::Kubernetes(Some(kubeconfig).filter(|path| !path.is_empty()).map(PathBuf::from));
        }
        (Some(_), None) => {}
    }
    if let Some(server) = own.origin("apiServer") {
        notes.push(Note { object: server.name(), reason: "does not count beside manifests".to_owned() });
    }
    Source::Manifests(manifests.into())
}

fn node_name(set: &Settings, own: &Settings, host: &Host, mistakes: &mut Vec<Mistake>) -> String {
    let candidates = [(own, "nodeName"), (set, "hostnameOverride")];
    let mut found: Vec<_> = candidates
        .into_iter()
        .filter_map(|(settings, path)| Some((settings.origin(path)?, settings.text(path).to_lowercase())))
        .collect();
    if found.iter().any(|(origin, _)| matches!(origin, Origin::Flag(_))) {
        found.retain(|(origin, _)| matches!(origin, Origin::Flag(_)));
    }
    match found.as_slice() {
        [] => {
            let name = host.name.trim().to_lowercase();
            if name.is_empty() {
                mistakes.push(Origin::Flag("node-name").mistake("is needed: the host has no name"));
            }
            name
        }
        [(_, name)] => name.clone(),
        [(origin, name), (other, differs), ..] => {
            if name != differs {
                let problem = format!("{} is not {} of {}", quote(name), quote(differs), other.name());
                mistakes.push(origin.mistake(problem));
            }
            name.clone()
        }
    }
}

/// The field that says more about each mode.
const DETECTORS: [(&str, &str); 3] = [
    ("ClusterCIDR", "clusterCIDR"),
    ("BridgeInterface", "detectLocal.bridgeInterface"),
    ("InterfaceNamePrefix", "detectLocal.interfaceNamePrefix"),
];

fn detect_local(set: &Settings, mistakes: &mut Vec<Mistake>) -> DetectLocal {
    let mut name = |path: &str| {
        let name = set.text(path);
        if name.is_empty()
            && let Some(origin) = set.origin("detectLocalMode")
        {
            mistakes.push(origin.mistake(format!("needs {path}")));
        }
        name
    };
    match set.text("detectLocalMode").as_str() {
        "NodeCIDR" => DetectLocal::NodeCidr,
        "BridgeInterface" => DetectLocal::BridgeInterface(name("detectLocal.bridgeInterface")),
        "InterfaceNamePrefix" => DetectLocal::InterfaceNamePrefix(name("detectLocal.interfaceNamePrefix")),
        _ => DetectLocal::ClusterCidr(
            set.text("clusterCIDR").split(',').filter_map(|cidr| net(cidr).ok()).collect(),
        ),
    }
}

fn conntrack(set: &Settings) -> Conntrack {
    let count = |path| u32::try_from(set.int(path)).ok().filter(|count| *count > 0);
    let timeout = |path| Some(set.duration(path)).filter(|timeout| !timeout.is_zero());
    let max_per_core = count("conntrack.maxPerCore");
    Conntrack {
        max_per_core,
        // Without the other the limit is left as it is.
        min: max_per_core.and_then(|_| count("conntrack.min")),
        tcp_established_timeout: timeout("conntrack.tcpEstablishedTimeout"),
        tcp_close_wait_timeout: timeout("conntrack.tcpCloseWaitTimeout"),
        udp_timeout: timeout("conntrack.udpTimeout"),
        udp_stream_timeout: timeout("conntrack.udpStreamTimeout"),
    }
}

/// What is honoured in general and does not count together with the rest.
fn notes_on(set: &Settings, mode: &str, sync: &Sync) -> Vec<Note> {
    let mut notes = Vec::new();
    let mut note = |path: &str, reason: &str| {
        if let Some(origin) = set.origin(path) {
            notes.push(Note { object: origin.name(), reason: reason.to_owned() });
        }
    };
    if matches!(mode, "iptables" | "ipvs") {
        let mut reason = "behaves as nftables".to_owned();
        if set.origin("nodePortAddresses").is_none() {
            reason +=
                "; NodePorts are served on the node's own addresses unless nodePortAddresses says otherwise";
        }
        note("mode", &reason);
    }
    let in_file = |path: &str| matches!(set.origin(path), Some(Origin::File(_, written)) if written == path);
    for section in ["iptables", "nftables"].iter().filter(|section| !sections(mode).contains(section)) {
        let path = format!("{section}.masqueradeAll");
        if in_file(&path) {
            note(&path, &format!("does not count with mode {mode}"));
        }
    }
    for section in ["iptables", "ipvs", "nftables"].iter().filter(|section| **section != sync.section) {
        for name in ["minSyncPeriod", "syncPeriod"] {
            let mode = if mode.is_empty() { "\"\"" } else { mode };
            note(&format!("{section}.{name}"), &format!("{}'s counts with mode {mode}", sync.section));
        }
    }
    let detect = set.text("detectLocalMode");
    for (_, path) in DETECTORS.iter().filter(|(mode, _)| *mode != detect) {
        note(path, &format!("does not count with detectLocalMode {detect}"));
    }
    if ranges(set).iter().any(NodePortRange::is_loopback) {
        note(
            "nodePortAddresses",
            "loopback addresses are served to processes of this node in any case, and to nobody else",
        );
    }
    notes
}

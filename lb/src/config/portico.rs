//! `PorticoConfiguration`: what kube-proxy does not know.

use super::{
    field::{
        Field, Fixed,
        Fixed::{Null, Text},
        Preset::{Absent, Unset},
        Used::Honoured,
    },
    kind::Kind,
    settings::Schema,
};

pub(super) const VERSION: &str = "portico.dev/v1alpha1";
pub(super) const KIND: &str = "PorticoConfiguration";

pub(super) static SCHEMA: Schema = Schema { fields: FIELDS, renamed: &[] };

const fn field(path: &'static str, flag: &'static str, kind: Kind, help: &'static str) -> Field {
    let default = match kind {
        Kind::Texts | Kind::Cidrs | Kind::FastPath => Null,
        _ => Text(""),
    };
    Field { path, flag: Some(flag), kind, default: Unset(default), used: Honoured(help) }
}

/// A whole number that the kernel's maps have room for.
const fn number(path: &'static str, flag: &'static str, default: i64, help: &'static str) -> Field {
    let kind = Kind::Int(0, u32::MAX as i64);
    Field { path, flag: Some(flag), kind, default: Absent(Fixed::Int(default)), used: Honoured(help) }
}

/// More SYNs a second than one service port gets from clients of its own, as a rule; half-open connections at this rate
/// would fill conntrack's smallest table in a quarter of a minute.
const SYN_COOKIES: i64 = 10_000;

static FIELDS: &[Field] = &[
    field(
        "apiServer",
        "master",
        Kind::Text,
        "URL of the API server, instead of the one in the kubeconfig; without a kubeconfig it is asked anonymously",
    ),
    field(
        "cgroup",
        "cgroup",
        Kind::Text,
        "Translate the sockets of this cgroup only [default: the root of cgroup v2]",
    ),
    field(
        "fastPath",
        "fast-path",
        Kind::FastPath,
        "Whether XDP forwards established flows itself: on, off, INTERFACE=on, INTERFACE=off; may be given more than \
         once [default: on]",
    ),
    Field {
        path: "flowCache",
        flag: Some("flow-cache"),
        kind: Kind::Int(-1, 1 << 22),
        default: Absent(Fixed::Int(-1)),
        used: Honoured(
            "How many established flows the fast path remembers on each CPU, 128 bytes each; 0: none [default: by the \
             number of CPUs]",
        ),
    },
    field(
        "guard",
        "guard",
        Kind::OneOf(&["on", "off"]),
        "Whether XDP drops what may not open a connection: on or off [default: on]",
    ),
    field(
        "interfaces",
        "interface",
        Kind::Texts,
        "Interface that receives packets for Services; may be given more than once [default: those with a default \
         route, or else all that are up]",
    ),
    field(
        "manifests",
        "manifests",
        Kind::Text,
        "Read Services, EndpointSlices and Nodes from the YAML and JSON files in this directory, and follow changes",
    ),
    number(
        "maxNewFlows",
        "max-new-flows",
        0,
        "The most new connections a second to a service port, where its Service does not say; 0: any number [default: 0]",
    ),
    number(
        "maxNewFlowsPerSource",
        "max-new-flows-per-source",
        0,
        "The same of one source, an IPv4 address or an IPv6 /64 [default: 0]",
    ),
    field(
        "nodeName",
        "node-name",
        Kind::Text,
        "This node's name in `nodeName` of endpoints [default: the host name]",
    ),
    field(
        "pinDir",
        "pin-dir",
        Kind::Text,
        "Where state is pinned; each instance on a host has its own [default: /sys/fs/bpf/portico]",
    ),
    field(
        "serviceCIDRs",
        "service-cidrs",
        Kind::Cidrs,
        "Networks of cluster IPs, besides those of ServiceCIDR objects",
    ),
    number(
        "synCookies",
        "syn-cookies",
        SYN_COOKIES,
        "From how many SYNs a second to a service port on its clients have to prove their address by a SYN cookie, where \
         its Service does not say; 1: always, 0: never [default: 10000]",
    ),
    field(
        "unservedPorts",
        "unserved-ports",
        Kind::OneOf(&["drop", "pass"]),
        "What the guard does with packets to ports of load-balancer addresses that no Service here has: drop, or pass as \
         kube-proxy does [default: pass]",
    ),
    field(
        "xdp",
        "xdp",
        Kind::OneOf(&["auto", "native", "generic", "off"]),
        "How XDP runs: auto, native, generic or off; where it does not, tc gives the same behaviour [default: auto]",
    ),
];

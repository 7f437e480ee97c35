//! What the daemon is asked to do.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use datapath::abi::Guard;
use ipnet::IpNet;

use super::{fast_path::FastPath, mistake::Note, node_port::NodePortAddresses};

/// Where objects come from.
#[derive(Clone, Debug)]
pub enum Source {
    /// A directory.
    Manifests(PathBuf),
    /// An API server, by kubeconfig; none: whatever the environment says.
    Kubernetes(Option<PathBuf>),
}

/// What the command line and the configuration say.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where objects come from.
    pub source: Source,
    /// URL of the API server, instead of the one in the kubeconfig.
    pub api_server: Option<String>,
    /// This node's name.
    pub node_name: String,
    /// Interfaces that route; none: those with a default route, or else all that are up.
    pub interfaces: Vec<String>,
    /// How XDP is to run.
    pub xdp: XdpChoice,
    /// Where established flows are forwarded in XDP.
    pub fast_path: FastPath,
    /// How many established flows are remembered on each CPU; none: by the number of CPUs.
    pub flow_cache: Option<u32>,
    /// How many connections Services take that do not say so; none: nothing is guarded.
    pub guard: Option<Guard>,
    /// Whether the guard closes the ports of load-balancer addresses that are not served.
    pub closes_vips: bool,
    /// The cgroup whose sockets are translated; none: the root.
    pub cgroup: Option<PathBuf>,
    /// Where state is pinned.
    pub pin_dir: PathBuf,
    /// Addresses on which `NodePorts` are served.
    pub node_port_addresses: NodePortAddresses,
    /// The node's own addresses, at most one a family, where they are not to be taken from the Node object.
    pub node_ips: Vec<IpAddr>,
    /// How pods of this node are told from other clients.
    pub detect_local: DetectLocal,
    /// Whether all that arrives for a cluster IP is masqueraded.
    pub masquerade_all: bool,
    /// Networks that cluster IPs are allocated from, besides those of ServiceCIDR objects.
    pub service_cidrs: Vec<IpNet>,
    /// The value of label `service.kubernetes.io/service-proxy-name` that objects must have to be served; none: they
    /// must not have the label.
    pub service_proxy_name: Option<String>,
    /// Settings of conntrack.
    pub conntrack: Conntrack,
    /// For how long changes gather before they are written, once everything was written.
    pub min_sync_period: Duration,
    /// A change that is not in force after twice this long makes the daemon unhealthy.
    pub sync_period: Duration,
    /// Where metrics are served; none: nowhere.
    pub metrics: Option<SocketAddr>,
    /// Where the health of the daemon is served; none: nowhere.
    pub healthz: Option<SocketAddr>,
    /// Whether an address of these that cannot be had is fatal.
    pub bind_address_hard_fail: bool,
    /// `/proc/self/oom_score_adj`; none: left as it is.
    pub oom_score_adj: Option<i32>,
    /// The configuration in force, as `/configz` shows it.
    pub configuration: serde_json::Value,
    /// What was configured and is not honoured.
    pub notes: Vec<Note>,
}

/// How pods of this node are told from other clients: kube-proxy's `detectLocalMode`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DetectLocal {
    /// By their addresses: these networks. A family without a network has no detection.
    ClusterCidr(Vec<IpNet>),
    /// By their addresses: the Node object's `spec.podCIDRs`.
    NodeCidr,
    /// By the bridge they arrive on.
    BridgeInterface(String),
    /// By the names of the interfaces they arrive on.
    InterfaceNamePrefix(String),
}

impl Default for DetectLocal {
    fn default() -> Self {
        Self::ClusterCidr(Vec::new())
    }
}

/// Settings of conntrack; none: left as they are. Defaults are kube-proxy's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conntrack {
    /// `nf_conntrack_max` for each CPU; the least value is [`Conntrack::min`].
    pub max_per_core: Option<u32>,
    /// See [`Conntrack::max_per_core`].
    pub min: Option<u32>,
    /// `nf_conntrack_tcp_timeout_established`.
    pub tcp_established_timeout: Option<Duration>,
    /// `nf_conntrack_tcp_timeout_close_wait`.
    pub tcp_close_wait_timeout: Option<Duration>,
    /// `nf_conntrack_udp_timeout`.
    pub udp_timeout: Option<Duration>,
    /// `nf_conntrack_udp_timeout_stream`.
    pub udp_stream_timeout: Option<Duration>,
}

impl Default for Conntrack {
    fn default() -> Self {
        Self {
            max_per_core: Some(32_768),
            min: Some(131_072),
            tcp_established_timeout: Some(Duration::from_secs(24 * 3_600)),
            tcp_close_wait_timeout: Some(Duration::from_secs(3_600)),
            udp_timeout: None,
            udp_stream_timeout: None,
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Manifests(dir) => write!(f, "manifests in {}", dir.display()),
            Self::Kubernetes(Some(path)) => write!(f, "API server of {}", path.display()),
            Self::Kubernetes(None) => f.write_str("API server"),
        }
    }
}

/// How XDP is to run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum XdpChoice {
    /// In the driver; where it cannot, in the stack; where that fails too, not at all.
    #[default]
    Auto,
    /// In the driver or fail.
    Native,
    /// In the stack or fail.
    Generic,
    /// Not at all; tc decides.
    Off,
}

impl fmt::Display for XdpChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Auto => "auto",
            Self::Native => "native",
            Self::Generic => "generic",
            Self::Off => "off",
        })
    }
}

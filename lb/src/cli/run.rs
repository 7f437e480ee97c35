use std::{
    io::{self, IsTerminal as _},
    net::SocketAddr,
    path::PathBuf,
    process::ExitCode,
};

use anyhow::{Context as _, bail};
use clap::Args;
use nix::sys::signal::{SigSet, Signal};
use tracing_subscriber::EnvFilter;

use super::{PinDirArg, runtime};
use crate::{
    daemon::{self, NodePortAddresses, Options, Source, XdpChoice},
    driver::privileges,
};

/// Run the daemon in the foreground; it logs to stderr
///
/// Objects come from the Kubernetes API server, or with --manifests from a directory. SIGTERM and SIGINT end it; what it
/// set up stays and goes on serving. $RUST_LOG says what is logged, such as "debug" or "info,kube=warn".
#[derive(Debug, Args)]
pub(super) struct Run {
    /// Kubeconfig file; without it $KUBECONFIG, ~/.kube/config, or the pod's service account
    #[arg(long, value_name = "FILE", conflicts_with = "manifests")]
    kubeconfig: Option<PathBuf>,
    /// Read Services, EndpointSlices and Nodes from the YAML and JSON files in this directory, and follow changes
    #[arg(long, value_name = "DIR")]
    manifests: Option<PathBuf>,
    /// This node's name in `nodeName` of endpoints [default: the host name]
    #[arg(long, value_name = "NAME", alias = "hostname-override")]
    node_name: Option<String>,
    /// Interface that receives packets for Services; may be given more than once
    /// [default: those with a default route, or else all that are up]
    #[arg(long = "interface", value_name = "IF")]
    interfaces: Vec<String>,
    /// How XDP runs; where it does not, tc gives the same behaviour
    #[arg(long, value_name = "MODE", value_enum, default_value_t)]
    xdp: XdpChoice,
    /// Translate the sockets of this cgroup only [default: the root of cgroup v2]
    #[arg(long, value_name = "PATH")]
    cgroup: Option<PathBuf>,
    #[command(flatten)]
    pin_dir: PinDirArg,
    /// Where NodePorts are served: CIDRs, or "primary" for the addresses of the Node object
    #[arg(long, value_name = "CIDRS", default_value = "primary")]
    nodeport_addresses: NodePortAddresses,
    /// Where /metrics is served; "off" for nowhere
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:10249", value_parser = parse_address)]
    metrics_bind_address: Address,
    /// Where /healthz and /livez are served; "off" for nowhere
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:10256", value_parser = parse_address)]
    healthz_bind_address: Address,
}

#[derive(Clone, Copy, Debug)]
struct Address(Option<SocketAddr>);

fn parse_address(text: &str) -> Result<Address, String> {
    match text {
        "off" => Ok(Address(None)),
        text => text
            .parse()
            .map(|address| Address(Some(address)))
            .map_err(|_| format!("{text:?} is neither an address with a port nor \"off\"")),
    }
}

impl Run {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        // The client logs each failed attempt; the source tells of it once, and again when it is over.
        let filter =
            EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,kube_client=off"));
        tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(io::stderr)
            .with_ansi(io::stderr().is_terminal())
            .with_target(false)
            .init();
        if !nix::unistd::geteuid().is_root() {
            bail!("portico run needs root: it loads eBPF programs and writes nftables rules");
        }
        let missing = privileges::missing().context("cannot read the capabilities")?;
        if !missing.is_empty() {
            bail!("portico run needs {}, which this process lacks although it is root", missing.join(", "));
        }
        // Whoever started it may have blocked them, and a mask is inherited.
        SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM]).thread_unblock()?;
        runtime()?.block_on(daemon::run(self.options()?))?;
        Ok(ExitCode::SUCCESS)
    }

    fn options(self) -> anyhow::Result<Options> {
        let node_name = match self.node_name {
            Some(name) => name,
            None => nix::unistd::gethostname()
                .context("cannot read the host name; give --node-name")?
                .to_string_lossy()
                .to_lowercase(),
        };
        Ok(Options {
            source: match self.manifests {
                Some(dir) => Source::Manifests(dir),
                None => Source::Kubernetes(self.kubeconfig),
            },
            node_name,
            interfaces: self.interfaces,
            xdp: self.xdp,
            cgroup: self.cgroup,
            pin_dir: self.pin_dir.pin_dir,
            node_port_addresses: self.nodeport_addresses,
            node_ips: Vec::new(),
            detect_local: daemon::DetectLocal::default(),
            masquerade_all: false,
            service_cidrs: Vec::new(),
            service_proxy_name: None,
            conntrack: daemon::Conntrack::default(),
            min_sync_period: std::time::Duration::from_millis(50),
            sync_period: std::time::Duration::from_secs(30),
            metrics: self.metrics_bind_address.0,
            healthz: self.healthz_bind_address.0,
            bind_address_hard_fail: false,
            oom_score_adj: None,
            configuration: serde_json::Value::Null,
        })
    }
}

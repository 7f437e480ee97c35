use std::{fmt, fs, net::SocketAddr, path::PathBuf};

use anyhow::Context as _;

use super::{NodePortAddresses, XdpChoice};
use crate::source;

/// Where objects come from.
#[derive(Clone, Debug)]
pub enum Source {
    /// A directory.
    Manifests(PathBuf),
    /// An API server, by kubeconfig; none: whatever the environment says.
    Kubernetes(Option<PathBuf>),
}

impl Source {
    /// Whether there is anything to follow at all, before the host is changed for it.
    pub(super) async fn check(&self) -> anyhow::Result<()> {
        match self {
            Self::Manifests(dir) => {
                fs::read_dir(dir).with_context(|| format!("cannot read manifests in {}", dir.display()))?;
            }
            Self::Kubernetes(kubeconfig) => source::kubernetes::check(kubeconfig.as_deref())
                .await
                .context("no objects to serve; name their source with --kubeconfig or --manifests")?,
        }
        Ok(())
    }
}

/// What the command line and the configuration say.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where objects come from.
    pub source: Source,
    /// This node's name.
    pub node_name: String,
    /// Interfaces that route; none: those with a default route, or else all that are up.
    pub interfaces: Vec<String>,
    /// How XDP is to run.
    pub xdp: XdpChoice,
    /// The cgroup whose sockets are translated; none: the root.
    pub cgroup: Option<PathBuf>,
    /// Where state is pinned.
    pub pin_dir: PathBuf,
    /// Addresses on which `NodePorts` are served.
    pub node_port_addresses: NodePortAddresses,
    /// Where metrics are served; none: nowhere.
    pub metrics: Option<SocketAddr>,
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

//! kube-proxy itself, where `PORTICO_BENCH_KUBE_PROXY` names its binary, beside as much of an API server as it needs for
//! services that do not change: lists, watches in which nothing happens, and Events that are taken and forgotten.

mod api;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Stdio},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use lab::{Netns, Workspace, eventually};

use self::api::Api;
use super::objects::{Family, Services};

/// The environment's word for the binary.
const BINARY: &str = "PORTICO_BENCH_KUBE_PROXY";
/// How long it may take to write its services; kube-proxy takes minutes for ten thousand.
const SYNCED: Duration = Duration::from_secs(1_200);
/// What the node is called.
const NODE: &str = "gateway";

/// The binary, if there is one.
pub(crate) fn binary() -> Option<PathBuf> {
    std::env::var_os(BINARY).map(PathBuf::from).filter(|path| path.is_file())
}

/// Why there is none.
pub(crate) fn lack() -> Option<String> {
    binary().is_none().then(|| format!("{BINARY} does not name its binary"))
}

/// A running kube-proxy, killed on drop. Its rules go with its network namespace.
pub(crate) struct KubeProxy {
    child: Child,
    _api: Api,
    _workspace: Workspace,
}

impl KubeProxy {
    /// Starts it in its nftables mode, and waits until it has written its services.
    pub(crate) fn start(ns: &Netns, services: &Services) -> anyhow::Result<Self> {
        let binary = binary().with_context(|| format!("{BINARY} names no file"))?;
        let workspace = Workspace::new()?;
        let api = Api::start(ns, services)?;
        let config = configure(workspace.path(), api.port(), services)?;
        let log = workspace.path().join("log");
        let file = fs::File::create(&log).with_context(|| format!("cannot create {}", log.display()))?;
        let mut command = ns.command(&binary);
        command.arg("--config").arg(&config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(file);
        let child = command.spawn().with_context(|| format!("cannot start {}", binary.display()))?;
        let mut proxy = Self { child, _api: api, _workspace: workspace };
        let last = services.address(services.number.saturating_sub(1)).to_string();
        let family = if services.family == Family::V4 { "ip" } else { "ip6" };
        let written = eventually("kube-proxy's rules", SYNCED, || {
            if !matches!(proxy.child.try_wait(), Ok(None)) {
                return Some(false);
            }
            let mut command = ns.command("nft");
            let output = command.args(["list", "map", family, "kube-proxy", "service-ips"]).output().ok()?;
            String::from_utf8_lossy(&output.stdout).contains(&last).then_some(true)
        });
        let said = || fs::read_to_string(&log).unwrap_or_default();
        ensure!(written.with_context(said)?, "kube-proxy ended:\n{}", said());
        Ok(proxy)
    }
}

impl Drop for KubeProxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Writes its configuration, and returns where.
fn configure(directory: &Path, port: u16, services: &Services) -> anyhow::Result<PathBuf> {
    let (kubeconfig, config) = (directory.join("kubeconfig"), directory.join("config"));
    fs::write(
        &kubeconfig,
        format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: bench\n\
             clusters: [{{ name: bench, cluster: {{ server: 'http://127.0.0.1:{port}' }} }}]\n\
             contexts: [{{ name: bench, context: {{ cluster: bench, user: bench }} }}]\n\
             users: [{{ name: bench, user: {{}} }}]\n"
        ),
    )
    .context("cannot write a kubeconfig")?;
    fs::write(
        &config,
        format!(
            "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\nmode: nftables\n\
             hostnameOverride: {NODE}\nhealthzBindAddress: '127.0.0.1:0'\nmetricsBindAddress: '127.0.0.1:0'\n\
             clientConnection:\n  kubeconfig: {}\n  contentType: application/json\n  acceptContentTypes: application/json\n\
             conntrack: {{ maxPerCore: 0, min: 0 }}\nnftables: {{ masqueradeAll: {} }}\n",
            kubeconfig.display(),
            services.masquerade
        ),
    )
    .context("cannot write a configuration")?;
    Ok(config)
}

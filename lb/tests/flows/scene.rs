//! A laboratory with a running daemon, and how to ask it.

use std::{
    net::SocketAddr,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use lab::{
    Cgroup, Client, Daemon, Netns, Objects, Options, Output, Residue, Topology, Workspace, XdpMode,
    addr::{self, Family},
    agent::Report,
    client::FlowError,
    eventually, eventually_ok,
    manifest::{Manifests, Service},
};
use serde::Deserialize;

pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_portico");
/// For whatever the daemon does in well under a second, on a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(10);
/// Loading the programs takes a second or two, and many tests do it at once.
const START: Duration = Duration::from_secs(60);

/// Number of the service that most tests use. The demonstration has 1: a daemon that somebody runs by hand on its
/// manifests, with the sockets of the whole machine hooked, should not catch our clients.
pub(crate) const WEB: u8 = 80;
/// The port of services made by [`web`].
pub(crate) const PORT: u16 = 80;
/// Their NodePort.
pub(crate) const NODE_PORT: u16 = 31_080;

/// Network namespaces and eBPF need root.
pub(crate) fn root() {
    assert!(nix::unistd::geteuid().is_root(), "this test makes network namespaces and must run as root");
}

/// The service that most tests use: every kind of address, TCP and UDP.
pub(crate) fn web() -> Service {
    Service::full("web", WEB, PORT, NODE_PORT)
}

/// The load-balancer address of [`web`].
pub(crate) fn vip(family: Family) -> SocketAddr {
    SocketAddr::new(addr::vip(WEB).of(family), PORT)
}

/// The NodePort of [`web`].
pub(crate) fn node_port(family: Family) -> SocketAddr {
    SocketAddr::new(addr::GATEWAY.of(family), NODE_PORT)
}

/// The cluster address of [`web`].
pub(crate) fn cluster_ip(family: Family) -> SocketAddr {
    SocketAddr::new(addr::cluster_ip(WEB).of(family), PORT)
}

/// Where outside clients reach [`web`].
pub(crate) fn outside() -> impl Iterator<Item = SocketAddr> {
    Family::ALL.into_iter().flat_map(|family| [vip(family), node_port(family)])
}

/// A laboratory whose daemon has read the manifests that were there when it was started.
pub(crate) struct Scene {
    pub(crate) daemon: Daemon,
    pub(crate) manifests: Manifests,
    pub(crate) cgroup: Cgroup,
    workspace: Workspace,
    before: Residue,
    pub(crate) topology: Topology,
}

impl Scene {
    /// With these services.
    pub(crate) fn start(topology: Topology, xdp: XdpMode, services: &[Service]) -> Self {
        let mut scene = Self::unsynced(topology, services, |options| options.xdp = xdp);
        scene.daemon.wait_synced(START).unwrap();
        scene.assert_xdp(xdp);
        scene
    }

    /// Waits until the daemon has read what was there when it was started.
    pub(crate) fn wait_synced(&mut self) {
        self.daemon.wait_synced(START).unwrap();
    }

    /// Nothing fell back to another mode.
    fn assert_xdp(&self, xdp: XdpMode) {
        let status = self.daemon.status().unwrap();
        let interfaces = status.get("interfaces").and_then(|list| list.as_array()).unwrap();
        assert!(!interfaces.is_empty());
        for interface in interfaces {
            let mode = interface.pointer("/xdp/mode").and_then(|mode| mode.as_str());
            assert_eq!(mode, Some(xdp.as_str()), "{interface}");
        }
    }

    /// Started, no more.
    pub(crate) fn unsynced(
        topology: Topology,
        services: &[Service],
        change: impl FnOnce(&mut Options),
    ) -> Self {
        let workspace = Workspace::new().unwrap();
        let cgroup = Cgroup::new("flows").unwrap();
        let manifests = Manifests::new(workspace.manifests());
        manifests.put_node().unwrap();
        for service in services {
            manifests.put(service).unwrap();
        }
        let before = Residue::take(&topology.gateway, &workspace.bpffs()).unwrap();
        let mut options = Options::new(BINARY, &workspace, cgroup.path());
        options.interfaces = topology.interfaces().map(str::to_owned).collect();
        change(&mut options);
        let daemon = Daemon::start(&topology.gateway, options).unwrap();
        Self { daemon, manifests, cgroup, workspace, before, topology }
    }

    /// Two backends behind [`web`].
    pub(crate) fn with_two_backends(xdp: XdpMode) -> Self {
        let topology = Topology::builder().build().unwrap();
        let services = [web().with(topology.backends())];
        Self::start(topology, xdp, &services)
    }

    /// The BPF file system that the pin directory is in.
    pub(crate) fn bpffs(&self) -> std::path::PathBuf {
        self.workspace.bpffs()
    }

    /// The outside client.
    pub(crate) fn client(&self) -> Client {
        self.topology.client()
    }

    /// Restarts the daemon's process after it was killed or stopped.
    pub(crate) fn start_again(&mut self) {
        self.daemon.start_again().unwrap();
        self.daemon.wait_synced(START).unwrap();
    }

    /// Waits until new flows go to just the given backends, by their numbers, on the laboratory's port.
    pub(crate) fn await_backends(&self, numbers: &[u8]) {
        let mut wanted: Vec<_> = numbers
            .iter()
            .flat_map(|n| addr::backend(*n).both())
            .map(|ip| SocketAddr::new(ip, lab::Backend::PORT).to_string())
            .collect();
        wanted.sort();
        eventually_ok("the backends are as wanted", SOON, || {
            let mut found: Vec<_> = self.backends().into_iter().map(|backend| backend.address).collect();
            found.sort();
            if found == wanted { Ok(()) } else { Err(format!("{found:?}, not {wanted:?}")) }
        })
        .unwrap();
    }

    /// The backends that services use, by `portico get backends`. One that none uses may linger, for packets that
    /// are on their way.
    pub(crate) fn backends(&self) -> Vec<Backend> {
        let listed = self.daemon.json(&["get", "backends"]).unwrap();
        let mut backends: Vec<Backend> = serde_json::from_value(listed).unwrap();
        backends.retain(|backend| !backend.services.is_empty());
        backends
    }

    /// Waits until the VIP, the NodePort and the cluster address of [`web`] answer over TCP, in both families.
    pub(crate) fn await_served(&self) {
        for to in outside() {
            eventually_ok("served", SOON, || self.client().tcp_once(to)).unwrap();
        }
    }

    /// Runs the agent as a process of the pod.
    pub(crate) fn pod(&self, arguments: &[&str]) -> Vec<Report> {
        reports(&output(&mut self.agent(&self.topology.pod, arguments)))
    }

    /// Runs the agent as a process on the gateway.
    pub(crate) fn host(&self, arguments: &[&str]) -> Vec<Report> {
        reports(&output(&mut self.agent(&self.topology.gateway, arguments)))
    }

    /// The agent, to run in a namespace and in the hooked cgroup.
    pub(crate) fn agent(&self, ns: &Netns, arguments: &[&str]) -> Command {
        let mut command = ns.command(BINARY);
        command.arg("lab-agent").args(arguments);
        self.cgroup.place(&mut command);
        command
    }

    /// Runs a command of the gateway that must succeed, and returns what it printed.
    pub(crate) fn gateway(&self, program: &str, arguments: &[&str]) -> String {
        let output = output(self.topology.gateway.command(program).args(arguments));
        assert_eq!(output.code, Some(0), "{program} {arguments:?}: {}", output.stderr);
        output.stdout
    }

    /// Stops the daemon, cleans up, and sees to it that nothing is left.
    pub(crate) fn finish(mut self) {
        let status = self.daemon.terminate().unwrap();
        assert!(status.success(), "{status}: {:#?}", self.daemon.stderr());
        self.clean();
    }

    /// Cleans up after a daemon that does not run, and sees to it that nothing is left.
    pub(crate) fn clean(self) {
        let objects = Objects::take(&self.workspace.pins()).unwrap();
        assert!(!objects.is_empty(), "the data path is pinned");
        let cleanup = self.daemon.cleanup().unwrap();
        assert_eq!(cleanup.code, Some(0), "{cleanup:?}");
        self.assert_no_residue();
        // Programs are freed some time after the last reference is gone.
        eventually("the pinned objects are gone", SOON, || objects.alive().is_empty().then_some(()))
            .unwrap_or_else(|e| panic!("{e}: {:#?}", objects.alive()));
    }

    /// Nothing of what was there before has changed.
    pub(crate) fn assert_no_residue(&self) {
        let after = Residue::take(&self.topology.gateway, &self.workspace.bpffs()).unwrap();
        let changes = self.before.changes_to(&after);
        assert!(changes.is_empty(), "not everything is as it was:\n{}", changes.join("\n"));
    }
}

/// What one wants to know of a test that failed.
impl Drop for Scene {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        for arguments in [&["status"][..], &["get", "services"], &["get", "backends"], &["get", "counters"]] {
            let Ok(output) = lab::output(&mut self.daemon.command(arguments)) else { continue };
            eprintln!("== portico {}\n{}{}", arguments.join(" "), output.stdout, output.stderr);
        }
        for line in ["nft list ruleset", "conntrack -L", "ip -s link"] {
            let mut words = line.split(' ');
            let mut command = self.topology.gateway.command(words.next().unwrap_or_default());
            let Ok(output) = lab::output(command.args(words)) else { continue };
            eprintln!("== {line}\n{}", output.stdout);
        }
        eprintln!("== standard error of the daemon\n{}", self.daemon.stderr().join("\n"));
    }
}

/// A row of `portico get backends`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Backend {
    pub(crate) id: u32,
    pub(crate) address: String,
    pub(crate) services: Vec<String>,
}

/// Runs a command to its end.
pub(crate) fn output(command: &mut Command) -> Output {
    lab::output(command).unwrap()
}

fn reports(output: &Output) -> Vec<Report> {
    let lines = output.stdout.lines().map(serde_json::from_str).collect::<Result<Vec<_>, _>>();
    let reports = lines.unwrap_or_else(|e| panic!("{e}: {output:?}"));
    assert!(!reports.is_empty(), "{output:?}");
    reports
}

/// Who asks without a pause.
pub(crate) struct Probe {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<(u32, Vec<String>)>,
}

impl Probe {
    /// Asks the outside addresses of [`web`], TCP and UDP in turn, each time from a new socket.
    pub(crate) fn start(client: Client) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let (mut asked, mut failed) = (0, Vec::new());
            while !flag.load(Ordering::Relaxed) {
                for to in outside() {
                    let answers: [(_, Result<(), FlowError>); 2] =
                        [("tcp", client.tcp_once(to).map(drop)), ("udp", client.udp_once(to, 100).map(drop))];
                    for (protocol, answer) in answers {
                        asked += 1;
                        failed.extend(answer.err().map(|e| format!("{protocol} {to}: {e}")));
                    }
                }
            }
            (asked, failed)
        });
        Self { stop, thread }
    }

    /// Stops asking; there must have been an answer each time.
    pub(crate) fn assert_all_answered(self) {
        self.stop.store(true, Ordering::Relaxed);
        let (asked, failed) = self.thread.join().unwrap();
        assert!(failed.is_empty(), "{} of {asked} failed: {failed:#?}", failed.len());
        assert!(asked > 0);
    }
}

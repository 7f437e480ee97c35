//! A laboratory with a running daemon that is fed a case's objects.

use std::{
    net::SocketAddr,
    path::Path,
    sync::atomic::{AtomicU16, Ordering},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use lab::{
    Cgroup, Daemon, Objects as Pinned, Options, Residue, Source, Surroundings, Topology, Workspace, XdpMode,
    addr, eventually, eventually_ok,
    manifest::{Manifests, NODE},
};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::{
    api_server,
    names::{NODE_PORT, PORT},
    objects::{self, Objects},
};

pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_portico");
/// For whatever the daemon does in well under a second, on a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(20);
/// Loading the programs takes a second or two, and many do it at once.
const START: Duration = Duration::from_secs(90);
/// First port of the Services by which it is known that the daemon has seen a step.
const MARKER: u16 = 20_000;
/// First source port of datagrams; the kernel's own choice begins at 32768.
const PORTS: u16 = 1024;

/// Where the daemon's objects come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Files.
    Manifests,
    /// An API server.
    Kubernetes,
}

impl Origin {
    /// Half of the runs go without XDP, so that tc is seen to decide alike.
    const fn xdp(self) -> XdpMode {
        match self {
            Self::Manifests => XdpMode::Native,
            Self::Kubernetes => XdpMode::Off,
        }
    }
}

enum Feed {
    Manifests(Manifests),
    Kubernetes { server: api_server::Server, _runtime: Runtime },
}

impl Feed {
    fn new(origin: Origin, topology: &Topology, workspace: &Workspace) -> Result<(Self, Source)> {
        Ok(match origin {
            Origin::Manifests => {
                let directory = workspace.manifests();
                (Self::Manifests(Manifests::new(&directory)), Source::Manifests(directory))
            }
            Origin::Kubernetes => {
                let runtime =
                    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
                let listener = topology.gateway.run(|| std::net::TcpListener::bind("127.0.0.1:0"))??;
                listener.set_nonblocking(true)?;
                let server = {
                    let _within = runtime.enter();
                    api_server::Server::serve(tokio::net::TcpListener::from_std(listener)?)
                };
                let kubeconfig = server.kubeconfig(workspace.path());
                (Self::Kubernetes { server, _runtime: runtime }, Source::Kubernetes(kubeconfig))
            }
        })
    }

    fn send(&self, old: &Objects, new: &Objects, marker: &Objects) -> Result<()> {
        match self {
            Self::Manifests(manifests) => {
                let all: Vec<Value> = new.values().chain(marker.values()).cloned().collect();
                manifests.put_objects("objects.yaml", &all)?;
            }
            Self::Kubernetes { server, .. } => {
                let none = Objects::default();
                for ((kind, namespace, name), object) in
                    new.changes_from(old).into_iter().chain(marker.changes_from(&none))
                {
                    let plural = objects::plural(kind)?;
                    match object {
                        Some(object) => server.put(plural, namespace, name, object.clone()),
                        None => server.delete(plural, namespace, name),
                    }
                }
            }
        }
        Ok(())
    }
}

/// The laboratory.
pub(crate) struct Scene {
    daemon: Daemon,
    feed: Feed,
    pub(crate) cgroup: Cgroup,
    workspace: Workspace,
    before: Residue,
    objects: Objects,
    steps: u16,
    ports: AtomicU16,
    pub(crate) surroundings: Surroundings,
    pub(crate) topology: Topology,
}

impl Scene {
    /// With a daemon that has these objects.
    pub(crate) fn start(origin: Origin, arguments: &[String], objects: &Objects) -> Result<Self> {
        let topology = Topology::builder().build()?;
        let surroundings =
            Surroundings::new(&topology, &[NODE_PORT], &[lab::Backend::PORT], &[PORT, PORT + 1])?;
        let workspace = Workspace::new()?;
        let cgroup = Cgroup::new("parity")?;
        let before = Residue::take(&topology.gateway, &workspace.bpffs())?;
        let (feed, source) = Feed::new(origin, &topology, &workspace)?;
        feed.send(&Objects::default(), objects, &Objects::default())?;
        let mut options = Options::new(BINARY, &workspace, cgroup.path());
        options.source = source;
        options.interfaces =
            topology.interfaces().chain(Surroundings::interfaces()).map(str::to_owned).collect();
        options.xdp = origin.xdp();
        options.more = arguments.iter().map(Into::into).collect();
        let mut daemon = Daemon::start(&topology.gateway, options)?;
        daemon.wait_synced(START)?;
        let objects = objects.clone();
        Ok(Self {
            daemon,
            feed,
            cgroup,
            workspace,
            before,
            objects,
            steps: 0,
            ports: AtomicU16::new(PORTS),
            surroundings,
            topology,
        })
    }

    /// Changes the objects, and waits until the daemon has done what they ask for. The watches of an API server are
    /// independent of each other, and so it is a Service and a slice that come last and have to be in force.
    pub(crate) fn change(&mut self, objects: &Objects) -> Result<()> {
        self.steps += 1;
        let port = MARKER + self.steps;
        self.feed.send(&self.objects, objects, &marker(port)?)?;
        self.objects = objects.clone();
        let wanted = SocketAddr::new(addr::backend(u8::MAX).v4.into(), port).to_string();
        eventually_ok("the daemon has seen the change", SOON, || self.uses_backend(&wanted))?;
        self.daemon.wait_synced(SOON)?;
        Ok(())
    }

    /// A source port for a datagram that no other datagram of this laboratory has.
    pub(crate) fn port(&self) -> u16 {
        self.ports.fetch_add(1, Ordering::Relaxed)
    }

    fn uses_backend(&self, address: &str) -> Result<()> {
        let listed = self.daemon.json(&["get", "backends"])?;
        let used = |row: &Value| {
            row.get("address").and_then(Value::as_str) == Some(address)
                && row.get("services").and_then(Value::as_array).is_some_and(|services| !services.is_empty())
        };
        ensure!(listed.as_array().is_some_and(|rows| rows.iter().any(used)), "{listed}");
        Ok(())
    }

    /// What one wants to know of a case that failed.
    pub(crate) fn state(&self) -> String {
        let mut text = String::new();
        let commands = [&["status"][..], &["get", "services"], &["get", "backends"], &["get", "counters"]];
        for arguments in commands {
            let Ok(output) = lab::output(&mut self.daemon.command(arguments)) else { continue };
            text += &format!("== portico {}\n{}{}\n", arguments.join(" "), output.stdout, output.stderr);
        }
        for line in ["nft list ruleset", "conntrack -L", "conntrack -L -f ipv6", "ip -s link"] {
            let mut words = line.split(' ');
            let mut command = self.topology.gateway.command(words.next().unwrap_or_default());
            let Ok(output) = lab::output(command.args(words)) else { continue };
            text += &format!("== {line}\n{}\n", output.stdout);
        }
        text + &format!("== standard error of the daemon\n{}\n", self.daemon.stderr().join("\n"))
    }

    /// Stops the daemon, cleans up, and sees to it that nothing is left.
    pub(crate) fn finish(mut self) -> Result<()> {
        let status = self.daemon.terminate()?;
        ensure!(status.success(), "the daemon ended with {status}: {:#?}", self.daemon.stderr());
        let pinned = Pinned::take(&self.workspace.pins())?;
        ensure!(!pinned.is_empty(), "the data path is not pinned");
        let cleanup = self.daemon.cleanup()?;
        ensure!(cleanup.code == Some(0), "{cleanup:?}");
        let after = Residue::take(&self.topology.gateway, &self.workspace.bpffs())?;
        let changes = self.before.changes_to(&after);
        ensure!(changes.is_empty(), "not everything is as it was:\n{}", changes.join("\n"));
        eventually("the pinned objects are gone", SOON, || pinned.alive().is_empty().then_some(()))
            .with_context(|| format!("{:#?}", pinned.alive()))
    }
}

fn marker(port: u16) -> Result<Objects> {
    let (name, ports) = ("parity-marker", json!([{ "name": "marker", "protocol": "TCP", "port": port }]));
    let service = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": { "name": name, "namespace": "default" },
        "spec": { "clusterIP": addr::cluster_ip(u8::MAX - 1).v4, "ports": ports },
    });
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": { "name": name, "namespace": "default", "labels": { "kubernetes.io/service-name": name } },
        "addressType": "IPv4",
        "ports": ports,
        "endpoints": [{ "addresses": [addr::backend(u8::MAX).v4], "nodeName": NODE }],
    });
    let mut objects = Objects::default();
    objects.apply(&[slice, service])?;
    Ok(objects)
}

/// The directory of case files.
pub(crate) fn directory() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/parity"))
}

use std::{
    collections::BTreeMap,
    env, fs,
    io::Write as _,
    net::SocketAddr,
    path::PathBuf,
    process::ExitCode,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use clap::Args;
use nix::sys::signal::{SigSet, Signal};

use super::output::{Output, print, table};
use lab::{
    self, Cgroup, Daemon, Options, Residue, Source, Topology, Workspace, XdpMode,
    addr::{self, Family},
    agent::Report,
};

/// Manifests that the demo runs on; they are in the repository under deploy/demo.
const MANIFESTS: [(&str, &str); 2] = [
    ("node.yaml", include_str!("../../../deploy/demo/node.yaml")),
    ("web.yaml", include_str!("../../../deploy/demo/web.yaml")),
];
const SERVICE_PORT: u16 = 80;
const NODE_PORT: u16 = 30_080;
/// Long enough for a slow machine under load.
const START: Duration = Duration::from_secs(30);

/// Try it out: a lab in network namespaces, with real connections through the real data path
///
/// Makes network namespaces for a client, a gateway, three backends and a pod, runs the real daemon in the gateway,
/// opens connections, shows where they went, and removes everything again.
#[derive(Debug, Args)]
pub(super) struct Demo {
    /// Connections for each address family, protocol and kind of address
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    connections: u32,
    /// How XDP runs in the gateway
    #[arg(long, value_name = "MODE", value_enum, default_value_t = Xdp::Native)]
    xdp: Xdp,
    /// The manifests to run on, in place of those in deploy/demo, which they must resemble
    #[arg(long, value_name = "DIR")]
    manifests: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Xdp {
    Native,
    Generic,
    Off,
}

impl From<Xdp> for XdpMode {
    fn from(xdp: Xdp) -> Self {
        match xdp {
            Xdp::Native => Self::Native,
            Xdp::Generic => Self::Generic,
            Xdp::Off => Self::Off,
        }
    }
}

/// Answers by backend, or errors by kind.
type Tally = BTreeMap<String, u32>;

impl Demo {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        if !nix::unistd::geteuid().is_root() {
            bail!("portico demo needs root: it makes network namespaces and loads eBPF programs");
        }
        let began = Instant::now();
        catch_signals()?;
        let step = |text: &str| {
            print(&format!("\n== {text} ({:.1} s)", began.elapsed().as_secs_f64()))?;
            go_on()
        };

        step("Making a client, a gateway, three backends and a pod, in network namespaces")?;
        let topology = Topology::builder().backends(3).build()?;
        let workspace = Workspace::new()?;
        let manifests = self.write_manifests(&workspace)?;
        let cgroup = Cgroup::new("demo")?;
        let before = Residue::take(&topology.gateway, &workspace.bpffs())?;

        step("Starting portico run in the gateway")?;
        let mut options = Options::new(env::current_exe()?, &workspace, cgroup.path());
        options.source = Source::Manifests(manifests);
        options.interfaces = topology.interfaces().map(str::to_owned).collect();
        options.xdp = self.xdp.into();
        let mut daemon = Daemon::start(&topology.gateway, options)?;
        daemon.wait_synced(START)?;
        for line in daemon.stderr() {
            print(&format!("   {line}"))?;
        }

        step(&format!("Opening {} connections of each kind", self.connections))?;
        let failures = self.connect(&topology, &cgroup)?;

        step("Some of the flows, as the kernel's conntrack has them (conntrack -L)")?;
        let vip = addr::vip(1);
        for ip in vip.both() {
            for protocol in ["tcp", "udp"] {
                let family = if ip.is_ipv4() { "ipv4" } else { "ipv6" };
                let arguments = ["-L", "-f", family, "-p", protocol, "-d", &ip.to_string()];
                head(&mut topology.gateway.command("conntrack"), &arguments, 2)?;
            }
        }
        step("The same with names (portico get connections demo/web)")?;
        head(&mut daemon.command(&["get", "connections", "demo/web"]), &[], 6)?;
        step("Frontends (portico get services)")?;
        head(&mut daemon.command(&["get", "services"]), &[], usize::MAX)?;
        step("Verdicts by reason, those that occurred (portico get counters)")?;
        counters(&daemon)?;
        step("All nftables rules, whatever the number of services (nft list table inet portico)")?;
        head(&mut topology.gateway.command("nft"), &["list", "table", "inet", "portico"], usize::MAX)?;

        step("Stopping the daemon and cleaning up (portico cleanup)")?;
        daemon.terminate()?;
        write!(Output::lock(), "{}", indent(&daemon.cleanup()?.stdout, usize::MAX))?;
        let left = before.changes_to(&Residue::take(&topology.gateway, &workspace.bpffs())?);
        drop((daemon, cgroup, workspace, topology));
        if !left.is_empty() {
            bail!("cleanup left something behind:\n{}", left.join("\n"));
        }
        print("   nothing is left: no program, map, link, pin, nft table, qdisc or sysctl")?;
        step("Done")?;
        if failures > 0 {
            bail!("{failures} connections failed");
        }
        Ok(ExitCode::SUCCESS)
    }

    fn write_manifests(&self, workspace: &Workspace) -> anyhow::Result<PathBuf> {
        if let Some(dir) = &self.manifests {
            return Ok(dir.clone());
        }
        let dir = workspace.manifests();
        for (name, text) in MANIFESTS {
            fs::write(dir.join(name), text).with_context(|| format!("cannot write {name}"))?;
        }
        Ok(dir)
    }

    /// Opens all connections and prints where they went; returns how many failed.
    fn connect(&self, topology: &Topology, cgroup: &Cgroup) -> anyhow::Result<u32> {
        let mut rows = Vec::new();
        let mut failures = 0;
        for family in Family::ALL {
            let vip = SocketAddr::new(addr::vip(1).of(family), SERVICE_PORT);
            let node_port = SocketAddr::new(addr::GATEWAY.of(family), NODE_PORT);
            let cluster_ip = SocketAddr::new(addr::cluster_ip(1).of(family), SERVICE_PORT);
            for protocol in ["tcp", "udp"] {
                for (from, kind, to) in [
                    ("client", "load balancer", vip),
                    ("client", "NodePort", node_port),
                    ("pod", "ClusterIP", cluster_ip),
                ] {
                    let tally = match from {
                        "pod" => self.ask_as_pod(topology, cgroup, protocol, to)?,
                        _ => self.ask_as_client(topology, protocol, to),
                    };
                    let good: u32 = tally.iter().filter(|(who, _)| is_backend(who)).map(|(_, n)| n).sum();
                    failures += self.connections.saturating_sub(good);
                    go_on()?;
                    rows.push(row(from, kind, protocol, to, &tally));
                    write!(Output::lock(), ".")?;
                    Output::lock().flush()?;
                }
            }
        }
        print("")?;
        let columns = ["from", "to", "protocol", "address", "backend1", "backend2", "backend3", "failed"];
        print(&indent(&table(&columns, rows), usize::MAX))?;
        Ok(failures)
    }

    fn ask_as_client(&self, topology: &Topology, protocol: &str, to: SocketAddr) -> Tally {
        let client = topology.client();
        let mut tally = Tally::new();
        for _ in 0..self.connections {
            if INTERRUPTED.load(Ordering::Relaxed) {
                break;
            }
            let answer = match protocol {
                "tcp" => client.tcp_once(to).map(|answer| answer.backend),
                _ => client.udp_once(to, 32).map(|datagram| datagram.answer.backend),
            };
            *tally.entry(answer.unwrap_or_else(|error| error.to_string())).or_default() += 1;
        }
        tally
    }

    /// A cgroup holds processes, so the pod's connections come from one of its own.
    fn ask_as_pod(
        &self,
        topology: &Topology,
        cgroup: &Cgroup,
        protocol: &str,
        to: SocketAddr,
    ) -> anyhow::Result<Tally> {
        let mut agent = topology.pod.command(env::current_exe()?);
        agent.args(["lab-agent", protocol, &to.to_string(), "--times", &self.connections.to_string()]);
        cgroup.place(&mut agent);
        let output = lab::output(&mut agent)?;
        let mut tally = Tally::new();
        for line in output.stdout.lines() {
            let report: Report =
                serde_json::from_str(line).context("the lab's agent printed something else")?;
            let who = report.backend.or(report.error).unwrap_or_default();
            *tally.entry(who).or_default() += 1;
        }
        Ok(tally)
    }
}

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Lets the demo end by itself when it is told to stop, and remove what it made on its way out.
fn catch_signals() -> anyhow::Result<()> {
    let signals = SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM]);
    // Before any other thread exists, so that all inherit it. Children start without.
    signals.thread_block()?;
    thread::spawn(move || {
        if signals.wait().is_ok() {
            INTERRUPTED.store(true, Ordering::Relaxed);
        }
    });
    Ok(())
}

fn go_on() -> anyhow::Result<()> {
    if INTERRUPTED.load(Ordering::Relaxed) {
        bail!("interrupted, everything is removed");
    }
    Ok(())
}

fn is_backend(who: &str) -> bool {
    who.starts_with("backend")
}

fn row(from: &str, kind: &str, protocol: &str, to: SocketAddr, tally: &Tally) -> Vec<String> {
    let count = |name: &str| tally.get(name).copied().unwrap_or_default().to_string();
    let failed: Vec<String> = tally
        .iter()
        .filter(|(who, _)| !is_backend(who))
        .map(|(error, times)| format!("{times} x {error}"))
        .collect();
    vec![
        from.to_owned(),
        kind.to_owned(),
        protocol.to_owned(),
        to.to_string(),
        count("backend1"),
        count("backend2"),
        count("backend3"),
        failed.join("; "),
    ]
}

/// Prints the first lines that a command prints.
fn head(command: &mut std::process::Command, arguments: &[&str], lines: usize) -> anyhow::Result<()> {
    write!(Output::lock(), "{}", indent(&lab::output(command.args(arguments))?.stdout, lines))?;
    Ok(())
}

fn counters(daemon: &Daemon) -> anyhow::Result<()> {
    let output = lab::output(&mut daemon.command(&["get", "counters"]))?.stdout;
    let occurred = output.lines().filter(|line| line.split_whitespace().nth(2) != Some("0"));
    print(&indent(&occurred.collect::<Vec<_>>().join("\n"), usize::MAX))?;
    Ok(())
}

fn indent(text: &str, lines: usize) -> String {
    text.lines().take(lines).map(|line| format!("   {line}\n")).collect()
}

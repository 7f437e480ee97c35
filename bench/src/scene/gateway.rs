//! What forwards in the middle of a scene.

use std::{
    io::Write as _,
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use lab::{Cgroup, Daemon, Netns, Options, Workspace, XdpMode, manifest::Manifests};
use nix::net::if_::if_nametoindex;

use super::{
    FAR, MACS, NEAR,
    kube_proxy::{self, KubeProxy},
    objects::Services,
};
use crate::{
    generator::{
        End,
        abi::{Redirect, Sink},
    },
    ruleset,
    variants::Variant,
};

/// The file with them.
const SERVICES: &str = "services.yaml";
/// How long a daemon may take to write its services.
const SYNCED: Duration = Duration::from_secs(120);

/// Programs that scenes run.
#[derive(Clone, Debug)]
pub(crate) struct Binaries {
    pub(crate) portico: PathBuf,
    /// What `portico run --help` prints.
    pub(crate) help: String,
    /// What it is told besides.
    pub(crate) more: Vec<&'static str>,
}

impl Binaries {
    pub(crate) fn new(portico: PathBuf) -> anyhow::Result<Self> {
        let help = Command::new(&portico).args(["run", "--help"]).output();
        let help = help.with_context(|| format!("cannot run {}", portico.display()))?;
        Ok(Self { portico, help: String::from_utf8_lossy(&help.stdout).into_owned(), more: Vec::new() })
    }

    /// Why a variant cannot be measured here.
    pub(crate) fn lack(&self, variant: Variant) -> Option<String> {
        match variant {
            Variant::Iptables if !runs("iptables-nft-restore") => {
                Some("iptables-nft-restore is not installed (apt-get install iptables)".to_owned())
            }
            Variant::KubeProxy => kube_proxy::lack(),
            _ => variant.lacks(&self.help),
        }
    }
}

fn runs(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success())
}

/// What forwards; gone on drop.
pub(crate) enum Gateway {
    /// The kernel, by itself or with rules.
    Kernel,
    /// A program that counts and drops.
    Drop(Box<End>),
    /// One that redirects.
    Redirect { _end: Box<End> },
    /// `portico run`.
    Portico(Box<Portico>),
    /// kube-proxy.
    KubeProxy { _proxy: Box<KubeProxy> },
}

/// Fields are dropped in this order.
pub(crate) struct Portico {
    pub(crate) daemon: Daemon,
    pub(crate) cgroup: Cgroup,
    pub(crate) workspace: Workspace,
}

impl Portico {
    /// Writes other services for the daemon to find.
    pub(crate) fn serve(&self, services: &Services) -> anyhow::Result<()> {
        Ok(Manifests::new(self.workspace.manifests()).put_text(SERVICES, &services.manifests())?)
    }

    /// Waits until it has written everything.
    pub(crate) fn wait_synced(&mut self) -> anyhow::Result<()> {
        Ok(self.daemon.wait_synced(SYNCED)?)
    }
}

impl Gateway {
    /// Starts what forwards between these interfaces of a namespace.
    pub(crate) fn start(
        variant: Variant,
        services: &Services,
        ns: &Netns,
        interfaces: &[&str],
        binaries: &Binaries,
    ) -> anyhow::Result<Self> {
        Ok(match variant {
            Variant::Drop => {
                // Everything counts.
                Self::Drop(Box::new(ns.run(|| End::sink(NEAR, Sink::default()))??))
            }
            Variant::Redirect => {
                let to = ns.run(|| if_nametoindex(FAR))??;
                let to = Redirect { interface: to, macs: macs() };
                Self::Redirect { _end: Box::new(ns.run(|| End::redirect(NEAR, to))??) }
            }
            Variant::Route => {
                ns.ip("route add 10.0.0.0/8 via 198.18.1.2\nroute add fd10::/16 via 2001:db8:b::2\n")?;
                Self::Kernel
            }
            Variant::Nftables => {
                feed(ns, "nft", &["-f", "-"], &ruleset::nft(services))?;
                Self::Kernel
            }
            Variant::Iptables => {
                let program = if services.address(0).is_ipv4() {
                    "iptables-nft-restore"
                } else {
                    "ip6tables-nft-restore"
                };
                feed(ns, program, &[], &ruleset::iptables(services))?;
                Self::Kernel
            }
            Variant::KubeProxy => Self::KubeProxy { _proxy: Box::new(KubeProxy::start(ns, services)?) },
            _ => Self::portico(variant, services, ns, interfaces, binaries)?,
        })
    }

    fn portico(
        variant: Variant,
        services: &Services,
        ns: &Netns,
        interfaces: &[&str],
        binaries: &Binaries,
    ) -> anyhow::Result<Self> {
        let (workspace, cgroup) = (Workspace::new()?, Cgroup::new("bench")?);
        let manifests = Manifests::new(workspace.manifests());
        manifests.put_node()?;
        manifests.put_text(SERVICES, &services.manifests())?;
        let mut options = Options::new(&binaries.portico, &workspace, cgroup.path());
        options.interfaces = interfaces.iter().map(|&interface| interface.to_owned()).collect();
        options.xdp = if variant == Variant::TcOnly { XdpMode::Off } else { XdpMode::Native };
        let mut more = vec!["--metrics-bind-address", "off", "--healthz-bind-address", "off"];
        if services.masquerade {
            more.push("--masquerade-all");
        }
        more.extend(variant.options(&binaries.help));
        more.extend(&binaries.more);
        options.more = more.into_iter().map(Into::into).collect();
        let daemon = Daemon::start(ns, options)?;
        let mut portico = Portico { daemon, cgroup, workspace };
        portico.wait_synced()?;
        Ok(Self::Portico(Box::new(portico)))
    }

    /// The daemon, if there is one.
    pub(crate) fn portico_mut(&mut self) -> Option<&mut Portico> {
        match self {
            Self::Portico(portico) => Some(portico),
            _ => None,
        }
    }

    /// Makes a command start where Portico's hooks on sockets are, if they are.
    pub(crate) fn place(&self, command: &mut Command) {
        if let Self::Portico(portico) = self {
            portico.cgroup.place(command);
        }
    }

    /// Where packets end, if it is here.
    pub(crate) fn end(&self) -> Option<&End> {
        match self {
            Self::Drop(end) => Some(end),
            _ => None,
        }
    }

    pub(crate) fn end_mut(&mut self) -> Option<&mut End> {
        match self {
            Self::Drop(end) => Some(end),
            _ => None,
        }
    }
}

/// Destination and source, as 16-bit words in memory order.
fn macs() -> [u16; 6] {
    let [_, _, source, destination] = MACS;
    let mut words = [0; 6];
    let bytes: Vec<_> = destination.into_iter().chain(source).collect();
    for (word, pair) in words.iter_mut().zip(bytes.chunks_exact(2)) {
        *word = u16::from_ne_bytes([pair[0], pair[1]]);
    }
    words
}

/// Runs a program in a namespace with something to read.
pub(crate) fn feed(ns: &Netns, program: &str, arguments: &[&str], input: &str) -> anyhow::Result<()> {
    let mut command = ns.command(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("cannot run {program}"))?;
    let mut stdin = child.stdin.take().context("no pipe")?;
    // A program that stops reading says why by its exit code.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}

//! What `portico status` shows.

use std::{collections::BTreeMap, net::SocketAddr};

use datapath::abi::{Name, TCP, Traffic, TrafficKey};
use nix::net::if_::if_indextoname;
use serde::{Deserialize, Serialize};
use tracing::warn;

use super::{Daemon, GuardReport, settings::SysctlReport};
use crate::{
    config::Note,
    driver::maps::{self, Maps},
    error::chain,
};

/// The daemon's view of itself, and of what it set up.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Version of the program.
    pub version: String,
    /// Process id of the daemon.
    pub pid: u32,
    /// Where state is pinned.
    pub pin_dir: String,
    /// Node name.
    pub node: String,
    /// Where objects come from.
    pub source: String,
    /// Seconds since the daemon started.
    pub uptime_seconds: u64,
    /// Every kind of object was listed, and the kernel holds what they ask for.
    pub synced: bool,
    /// Entries of the kernel that are not as they should be.
    pub pending: usize,
    /// Rounds of writes.
    pub rounds: u64,
    /// Entries written or deleted in all rounds.
    pub entries: u64,
    /// Duration of the latest round in milliseconds.
    pub latest_round_milliseconds: f64,
    /// Why the latest round was not completed.
    pub error: Option<String>,
    /// Service ports, with what they have.
    pub services: usize,
    /// Frontends.
    pub frontends: usize,
    /// Frontends that a former process served and that are kept, because some objects cannot be read.
    pub kept: usize,
    /// Interfaces and what runs on them.
    pub interfaces: Vec<InterfaceReport>,
    /// The cgroup whose sockets are translated.
    pub cgroup: String,
    /// Translation by the kernel.
    pub translation: Translations,
    /// Addresses that serve `NodePorts`.
    pub node_port_addresses: Vec<String>,
    /// Kernel settings.
    pub sysctls: Vec<SysctlReport>,
    /// Verdicts of the programs.
    pub counters: Vec<CounterReport>,
    /// What XDP forwarded. There may be very much of it, so `status` leaves it to `portico get traffic`.
    #[serde(skip)]
    pub traffic: Vec<TrafficReport>,
    /// How many connections are opened.
    #[serde(default)]
    pub guards: Vec<GuardReport>,
    /// What is not served, and why.
    pub rejected: Vec<Trouble>,
    /// What is served, but not entirely as written.
    pub notes: Vec<Trouble>,
}

/// An interface that packets arrive on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InterfaceReport {
    /// Name.
    pub name: String,
    /// `tcx` or `clsact`.
    pub tc: String,
    /// XDP.
    pub xdp: XdpReport,
    /// Whether XDP forwards established flows that arrive here.
    #[serde(default)]
    pub fast_path: SwitchReport,
    /// Whether XDP drops what may not open a connection.
    #[serde(default)]
    pub guard: SwitchReport,
}

/// Something that XDP does or does not do on an interface.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SwitchReport {
    /// Whether it is on.
    pub on: bool,
    /// Why not, or what it does not do; may be empty.
    pub reason: String,
}

impl std::fmt::Display for SwitchReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.on { "on" } else { "off" })?;
        if self.reason.is_empty() { Ok(()) } else { write!(f, " ({})", self.reason) }
    }
}

/// XDP of an interface.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct XdpReport {
    /// The device it runs on, which is the one beneath for a VLAN.
    pub device: String,
    /// `native`, `generic` or `off`.
    pub mode: String,
    /// Why not a better one; may be empty.
    pub reason: String,
}

impl XdpReport {
    pub(super) const OFF: &str = "off";

    pub(super) fn is_off(&self) -> bool {
        self.mode == Self::OFF
    }
}

impl std::fmt::Display for XdpReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} on {}", self.mode, self.device)?;
        if self.reason.is_empty() { Ok(()) } else { write!(f, " ({})", self.reason) }
    }
}

/// How often a program gave a verdict for a reason.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CounterReport {
    /// `xdp`, `tc` or `socket`.
    pub hook: String,
    /// Name of the reason.
    pub reason: String,
    /// Packets, or calls for `socket`.
    pub count: u64,
}

/// What XDP forwarded of established flows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TrafficReport {
    /// Service port.
    pub service: String,
    /// `tcp` or `udp`.
    pub protocol: String,
    /// Address and port of the backend.
    pub backend: String,
    /// `backend` or `client`.
    pub to: String,
    /// The device that received.
    pub input: String,
    /// The device that sent.
    pub output: String,
    /// Packets.
    pub packets: u64,
    /// Bytes, with IP headers.
    pub bytes: u64,
}

impl TrafficReport {
    /// Everything, in order.
    ///
    /// # Errors
    ///
    /// A map cannot be read.
    pub fn list(maps: &Maps) -> Result<Vec<Self>, maps::Error> {
        let names: BTreeMap<u32, Name> = maps.services.load()?.into_iter().collect();
        let mut devices: BTreeMap<u32, String> = BTreeMap::new();
        let mut device = |index: u32| {
            let name = || {
                if_indextoname(index)
                    .map_or_else(|_| format!("#{index}"), |name| name.to_string_lossy().into_owned())
            };
            devices.entry(index).or_insert_with(name).clone()
        };
        let row = |(key, traffic): (TrafficKey, Traffic)| Self {
            service: names
                .get(&key.service)
                .map_or_else(|| format!("#{}", key.service), |name| name.as_str().to_owned()),
            protocol: if key.protocol == TCP { "tcp" } else { "udp" }.to_owned(),
            backend: SocketAddr::new(key.backend.into(), u16::from_be_bytes(key.port)).to_string(),
            to: if key.reply == 0 { "backend" } else { "client" }.to_owned(),
            input: device(key.input),
            output: device(key.output),
            packets: traffic.packets,
            bytes: traffic.bytes,
        };
        let mut rows: Vec<Self> = maps.forwarding.traffic()?.into_iter().map(row).collect();
        rows.sort_by(|a, b| (&a.service, &a.backend, &a.to).cmp(&(&b.service, &b.backend, &b.to)));
        Ok(rows)
    }
}

/// Whether the kernel translates labels, per family, by the latest probe.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Translations {
    /// `active`, `inactive`, or `unknown: ` and why.
    pub ipv4: String,
    /// Likewise.
    pub ipv6: String,
    /// How often the nft table had to be mended.
    pub repairs: u64,
}

/// An object, or a place objects come from, and what is the matter with it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    /// Kind.
    pub kind: String,
    /// Namespace and name, or the place.
    pub object: String,
    /// One line.
    pub reason: String,
}

impl From<crate::plan::Rejection> for Trouble {
    fn from(rejection: crate::plan::Rejection) -> Self {
        let crate::plan::Rejection { kind, object, reason } = rejection;
        Self { kind: kind.to_owned(), object, reason }
    }
}

impl From<&Note> for Trouble {
    fn from(note: &Note) -> Self {
        let Note { object, reason } = note.clone();
        Self { kind: "Configuration".to_owned(), object, reason }
    }
}

impl Report {
    pub(super) fn of(daemon: &Daemon) -> Self {
        let planner = daemon.reconciler.planner();
        let progress = daemon.reconciler.progress();
        let counters = daemon.reconciler.kernel().maps.counters.load().unwrap_or_else(|error| {
            warn!(reason = chain(&error), "cannot read the counters");
            Vec::new()
        });
        let traffic = TrafficReport::list(&daemon.reconciler.kernel().maps).unwrap_or_else(|error| {
            warn!(reason = chain(&error), "cannot read what was forwarded");
            Vec::new()
        });
        let guards = GuardReport::list(&daemon.reconciler.kernel().maps).unwrap_or_else(|error| {
            warn!(reason = chain(&error), "cannot read what the guard sees");
            Vec::new()
        });
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            pin_dir: daemon.pins.name().display().to_string(),
            node: daemon.options.node_name.clone(),
            source: daemon.options.source.to_string(),
            uptime_seconds: daemon.started.elapsed().as_secs(),
            synced: daemon.synced && progress.error.is_none(),
            pending: planner.pending(),
            rounds: progress.rounds,
            entries: progress.entries,
            latest_round_milliseconds: progress.latest.as_secs_f64() * 1_000.0,
            error: progress.error.clone(),
            services: planner.services().count(),
            frontends: planner.services().map(|service| service.frontends.len()).sum(),
            kept: planner.kept(),
            interfaces: daemon.interfaces.report(),
            cgroup: daemon.cgroup.display().to_string(),
            translation: daemon.translation.report().clone(),
            node_port_addresses: daemon.facts().node_port_addresses.iter().map(ToString::to_string).collect(),
            sysctls: daemon.settings.sysctls.clone(),
            counters: counters
                .into_iter()
                .map(|(hook, counter, count)| CounterReport {
                    hook: hook.name().to_owned(),
                    reason: counter.name().to_owned(),
                    count,
                })
                .collect(),
            traffic,
            guards,
            rejected: daemon.index.rejections().chain(planner.rejections()).map(Trouble::from).collect(),
            notes: daemon
                .options
                .notes
                .iter()
                .map(Trouble::from)
                .chain(daemon.index.notes().map(Trouble::from))
                .collect(),
        }
    }
}

//! What the daemon says of itself: `portico status` shows it, and the metrics.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{guards::GuardReport, traffic::TrafficReport};
use crate::{config::Note, plan::Rejection, text};

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
    /// The schema of the programs of another version that serve until everything is read and written; none if it is this
    /// version's programs that serve. 0 if their maps are not pinned any more, so that nobody knows.
    #[serde(default)]
    pub former_schema: Option<u32>,
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
    /// What was attached or pinned and is not, because it could not be put back; and named interfaces on which nothing
    /// runs.
    #[serde(default)]
    pub missing: Vec<MissingReport>,
    /// How often something of ours was put back, by kind.
    #[serde(default)]
    pub repairs: BTreeMap<String, u64>,
    /// The cgroup whose sockets are translated.
    pub cgroup: String,
    /// Translation by the kernel.
    pub translation: Translations,
    /// Addresses that serve `NodePorts`.
    pub node_port_addresses: Vec<String>,
    /// Lines of the log that standard error did not take.
    #[serde(default)]
    pub log_lines_lost: u64,
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
    /// The name that the user gave, if the interface is called otherwise now.
    #[serde(default)]
    pub named: Option<String>,
}

/// Something of ours that is missing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MissingReport {
    /// What.
    pub what: String,
    /// Why it is not there.
    pub reason: String,
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
    pub(crate) const OFF: &str = "off";

    pub(crate) fn is_off(&self) -> bool {
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

impl From<Rejection> for Trouble {
    fn from(rejection: Rejection) -> Self {
        let Rejection { kind, object, reason } = rejection;
        Self { kind: kind.to_owned(), object, reason }
    }
}

impl From<&Note> for Trouble {
    fn from(note: &Note) -> Self {
        let Note { object, reason } = note;
        let kind = "Configuration".to_owned();
        Self { kind, object: text::line(object.as_str()), reason: text::line(reason.as_str()) }
    }
}

/// A kernel setting.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SysctlReport {
    /// Name, with slashes.
    pub name: String,
    /// Value now, "absent" if this kernel has no such setting.
    pub value: String,
    /// Why it is needed.
    pub reason: String,
}

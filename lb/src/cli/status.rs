use std::{io::Write as _, path::Path, process::ExitCode};

use clap::Args;
use serde::Serialize;

use super::{
    PinDirArg,
    output::{Format, Output, json, table, yaml},
};
use crate::{
    daemon,
    driver::{attach, maps::Maps, nft::Nft, pins::PinDir},
    error::chain,
    text,
    view::{self, GuardReport, InterfaceReport, MissingReport, Report, Trouble},
};

/// Show what runs where and why, and what is not served; works while the daemon is down
///
/// Exits with 0 if the state could be told, good or bad; --check tells by the exit code.
#[derive(Debug, Args)]
pub(super) struct Status {
    #[command(flatten)]
    pin_dir: PinDirArg,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
    /// Exit with 1 unless the daemon runs, the kernel holds what the objects ask for, and no attachment, pin or
    /// named interface is missing
    #[arg(long)]
    check: bool,
}

/// What is there, with and without a daemon.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct State {
    running: bool,
    /// Told by the report if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    synced: Option<bool>,
    /// The pin directory of a daemon in this network namespace that uses another one.
    other_daemon: Option<String>,
    data_path: Option<DataPath>,
    #[serde(flatten)]
    report: Option<Report>,
}

/// What the pins and the nft table say.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct DataPath {
    pin_dir: String,
    xdp: Vec<String>,
    tcx: Vec<String>,
    socket_hooks: usize,
    frontends: usize,
    backends: usize,
    nft_table: String,
    other_namespace: bool,
}

impl Status {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let pin_dir = &self.pin_dir.pin_dir;
        let daemon = view::query()?;
        let (report, other) = match daemon {
            Some(report) if Path::new(&report.pin_dir) == pin_dir => (Some(report), None),
            Some(other) => (None, Some(other.pin_dir)),
            None => (None, None),
        };
        let data_path = match PinDir::find(pin_dir).filter(PinDir::exists) {
            Some(pins) => Some(DataPath::read(&pins)?),
            None => None,
        };
        let synced = report.as_ref().is_some_and(|report| report.synced);
        let whole = report.as_ref().is_some_and(|report| report.missing.is_empty());
        let state = State {
            running: report.is_some(),
            synced: report.is_none().then_some(false),
            other_daemon: other,
            data_path,
            report,
        };
        match self.output {
            Format::Json => json(&state)?,
            Format::Yaml => yaml(&state)?,
            Format::Table => state.print(pin_dir)?,
        }
        Ok(if self.check && !(synced && whole) { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }
}

impl DataPath {
    fn read(pins: &PinDir) -> anyhow::Result<Self> {
        let attached = attach::attached_now(pins)?;
        let maps = Maps::exist(pins).then(|| Maps::open(pins)).transpose()?;
        let (frontends, backends, other_namespace) = match &maps {
            Some(maps) => (
                maps.frontends.load()?.len(),
                maps.backends.load()?.len(),
                daemon::describe(&maps.saved)?.is_some(),
            ),
            None => (0, 0, false),
        };
        let nft_table = match Nft::beside(None).and_then(|nft| nft.present()) {
            _ if other_namespace => "in another network namespace".to_owned(),
            Ok(true) => "present".to_owned(),
            Ok(false) => "missing or changed".to_owned(),
            Err(error) => format!("unknown: {}", chain(&error)),
        };
        Ok(Self {
            pin_dir: pins.name().display().to_string(),
            xdp: attached.xdp.iter().map(|(interface, mode)| format!("{interface} ({mode})")).collect(),
            tcx: attached.tcx,
            socket_hooks: attached.sockets.len(),
            frontends,
            backends,
            nft_table,
            other_namespace,
        })
    }
}

impl State {
    fn print(&self, pin_dir: &Path) -> anyhow::Result<()> {
        let mut rows: Vec<Vec<String>> = Vec::new();
        let mut row = |name: &str, value: String| rows.push(vec![name.to_owned(), value]);
        match &self.report {
            Some(report) => describe(report, &mut row),
            None => row("daemon", "not running".to_owned()),
        }
        if let Some(other) = &self.other_daemon {
            row("but", format!("another daemon runs in this network namespace, with --pin-dir {other}"));
        }
        match &self.data_path {
            Some(path) => {
                row(
                    "data path",
                    format!(
                        "{} frontends, {} backends, pinned in {}",
                        path.frontends, path.backends, path.pin_dir
                    ),
                );
                row("nft table", path.nft_table.clone());
                if self.report.is_none() {
                    row("xdp", path.xdp.join(", "));
                    row("tcx", path.tcx.join(", "));
                    row("socket hooks", path.socket_hooks.to_string());
                }
            }
            None => row("data path", format!("nothing is pinned in {}", pin_dir.display())),
        }
        let mut out = Output::lock();
        for row in rows {
            if let [name, value] = row.as_slice() {
                writeln!(out, "{name:<14} {}", text::clean(value))?;
            }
        }
        if let Some(report) = &self.report {
            for (title, list) in [("not served", &report.rejected), ("notes", &report.notes)] {
                print_troubles(&mut out, title, list)?;
            }
        }
        Ok(())
    }
}

fn print_troubles(out: &mut impl std::io::Write, title: &str, list: &[Trouble]) -> std::io::Result<()> {
    if list.is_empty() {
        return Ok(());
    }
    let rows = list.iter().map(|t| vec![t.kind.clone(), t.object.clone(), t.reason.clone()]).collect();
    writeln!(out, "\n{title}:\n{}", table(&["kind", "object", "reason"], rows))
}

fn describe(report: &Report, row: &mut impl FnMut(&str, String)) {
    row(
        "daemon",
        format!(
            "running for {} s as process {}, version {}",
            report.uptime_seconds, report.pid, report.version
        ),
    );
    row("node", report.node.clone());
    row("source", report.source.clone());
    let sync = match (&report.error, report.former_schema) {
        (Some(error), _) => format!("failing: {error}"),
        (None, Some(former)) => {
            format!(
                "no, programs of another version (schema {former}) serve until everything is read and written"
            )
        }
        (None, None) if report.synced => format!(
            "yes, {} entries in {} rounds, the latest took {:.1} ms",
            report.entries, report.rounds, report.latest_round_milliseconds
        ),
        (None, None) => "waiting for the first list of every kind of object".to_owned(),
    };
    row("in sync", sync);
    row("services", format!("{} ports, {} frontends", report.services, report.frontends));
    if report.kept > 0 {
        let why = "served by a former process, kept while some objects cannot be read";
        row("kept", format!("{} frontends, {why}", report.kept));
    }
    for interface in &report.interfaces {
        let InterfaceReport { name, tc, xdp, fast_path, guard, named } = interface;
        let name = named.as_ref().map_or_else(|| name.clone(), |named| format!("{name} (named {named})"));
        row("interface", format!("{name}: tc {tc}, xdp {xdp}, fast path {fast_path}, guard {guard}"));
    }
    for MissingReport { what, reason } in &report.missing {
        row("missing", format!("{what}: {reason}"));
    }
    let repairs: Vec<String> =
        report.repairs.iter().filter(|(_, n)| **n > 0).map(|(kind, n)| format!("{kind} {n}")).collect();
    if !repairs.is_empty() {
        row("put back", format!("{} times", repairs.join(", ")));
    }
    row("cgroup", report.cgroup.clone());
    for guard in report.guards.iter().filter(|guard| guard.asking) {
        let GuardReport { service, opening, .. } = guard;
        row("syn cookies", format!("{service}: clients prove their address, {opening} SYNs in this second"));
    }
    let translation = &report.translation;
    row(
        "translation",
        format!(
            "IPv4 {}, IPv6 {}, table mended {} times",
            translation.ipv4, translation.ipv6, translation.repairs
        ),
    );
    if report.log_lines_lost > 0 {
        let why = "standard error is a full disk, or nobody reads it";
        row("log", format!("{} lines were lost: {why}", report.log_lines_lost));
    }
    row("node ports on", report.node_port_addresses.join(", "));
    for sysctl in &report.sysctls {
        row("sysctl", format!("{} = {}: {}", sysctl.name, sysctl.value, sysctl.reason));
    }
}

use std::{fs, path::Path, process::ExitCode};

use aya::{
    maps::MapType,
    programs::ProgramType,
    sys::{is_map_supported, is_program_supported},
    util::KernelVersion,
};
use clap::Args;
use serde::Serialize;

use super::output::{Format, Row, list};
use crate::driver::{cgroup, conntrack::Conntrack, diag, nft::Nft, pins::PinDir, privileges, sysctl};

/// Check what this machine has of what Portico needs
///
/// Exits with 1 if something is missing without which Portico does not run.
#[derive(Debug, Args)]
pub(super) struct Doctor {
    /// How to print it
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
enum Health {
    Works,
    Degraded,
    Missing,
}

#[derive(Debug, Serialize)]
struct Check {
    what: &'static str,
    health: Health,
    found: String,
    mend: &'static str,
}

impl Row for Check {
    const COLUMNS: &'static [&'static str] = &["check", "health", "found", "what to do"];

    fn cells(&self) -> Vec<String> {
        let health = match self.health {
            Health::Works => "works",
            Health::Degraded => "degraded",
            Health::Missing => "missing",
        };
        let mend = if self.health == Health::Works { "" } else { self.mend };
        vec![self.what.to_owned(), health.to_owned(), self.found.clone(), mend.to_owned()]
    }
}

impl Doctor {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let mut checks = vec![root(), kernel(), btf()];
        checks.extend(programs());
        checks.extend([inner_maps(), tcx(), bpffs(), cgroup2(), nft(), conntrack(), sockets()]);
        checks.extend(sysctl::NEEDED.iter().map(|(name, needed, _)| setting(name, needed)));
        list(self.output, &checks)?;
        let broken = checks.iter().any(|check| check.health == Health::Missing);
        Ok(if broken { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }
}

fn check(what: &'static str, outcome: Result<String, String>, mend: &'static str) -> Check {
    match outcome {
        Ok(found) => Check { what, health: Health::Works, found, mend },
        Err(found) => Check { what, health: Health::Missing, found, mend },
    }
}

/// What Portico can do without, though not as well.
fn wish(what: &'static str, outcome: Result<String, String>, mend: &'static str) -> Check {
    let mut check = check(what, outcome, mend);
    if check.health == Health::Missing {
        check.health = Health::Degraded;
    }
    check
}

fn root() -> Check {
    let outcome = match privileges::missing() {
        _ if !nix::unistd::geteuid().is_root() => Err("not root".to_owned()),
        Ok(missing) if missing.is_empty() => Ok("root".to_owned()),
        Ok(missing) => Err(format!("root without {}", missing.join(", "))),
        Err(error) => Err(error.to_string()),
    };
    check("privileges", outcome, "run as root, with CAP_NET_ADMIN and CAP_SYS_ADMIN")
}

/// Linux 5.14 has the namespace cookie, the last of the things there is no way around.
fn kernel() -> Check {
    let outcome = match KernelVersion::current() {
        Ok(version) if version >= KernelVersion::new(5, 14, 0) => Ok(release()),
        Ok(_) => Err(release()),
        Err(error) => Err(error.to_string()),
    };
    check("kernel", outcome, "boot Linux 5.14 or newer")
}

fn release() -> String {
    fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned()
}

fn btf() -> Check {
    let path = "/sys/kernel/btf/vmlinux";
    let outcome = if Path::new(path).exists() { Ok(path.to_owned()) } else { Err("no BTF".to_owned()) };
    check("kernel BTF", outcome, "boot a kernel with CONFIG_DEBUG_INFO_BTF")
}

fn programs() -> [Check; 3] {
    let ask = |what, kind, mend| {
        let outcome = match is_program_supported(kind) {
            Ok(true) => Ok("supported".to_owned()),
            Ok(false) => Err("not supported".to_owned()),
            Err(error) => Err(error.to_string()),
        };
        (what, outcome, mend)
    };
    let (what, outcome, mend) = ask(
        "XDP programs",
        ProgramType::Xdp,
        "tc alone serves, at a lower packet rate; boot a kernel with XDP",
    );
    let xdp = wish(what, outcome, mend);
    let (what, outcome, mend) =
        ask("tc programs", ProgramType::SchedClassifier, "boot a kernel with CONFIG_NET_CLS_BPF");
    let tc = check(what, outcome, mend);
    let (what, outcome, mend) =
        ask("cgroup socket hooks", ProgramType::CgroupSockAddr, "boot a kernel with CONFIG_CGROUP_BPF");
    [xdp, tc, check(what, outcome, mend)]
}

fn inner_maps() -> Check {
    let outcome = match is_map_supported(MapType::HashOfMaps) {
        Ok(true) => Ok("supported".to_owned()),
        Ok(false) => Err("not supported".to_owned()),
        Err(error) => Err(error.to_string()),
    };
    check("maps of maps", outcome, "boot Linux 5.10 or newer")
}

fn tcx() -> Check {
    let outcome = match KernelVersion::current() {
        Ok(version) if version >= KernelVersion::new(6, 6, 0) => Ok("TCX".to_owned()),
        _ => Err("clsact".to_owned()),
    };
    wish("tc attachment", outcome, "clsact serves; Linux 6.6 replaces programs more cleanly with TCX")
}

fn bpffs() -> Check {
    let path = Path::new(crate::driver::pins::DEFAULT);
    let found = PinDir::find(path).map(|_| "mounted".to_owned());
    let outcome = found.ok_or_else(|| "not mounted".to_owned());
    wish(
        "BPF filesystem",
        outcome,
        "`portico run` mounts it at /sys/fs/bpf; or: mount -t bpf bpf /sys/fs/bpf",
    )
}

fn cgroup2() -> Check {
    let outcome =
        cgroup::root().map(|path| path.display().to_string()).ok_or_else(|| "not mounted".to_owned());
    check("cgroup v2", outcome, "mount it: mount -t cgroup2 none DIR")
}

fn nft() -> Check {
    let outcome = match Nft::beside(None).and_then(|nft| nft.present()) {
        Ok(true) => Ok("answers, table inet portico is there".to_owned()),
        Ok(false) => Ok("answers, no table inet portico".to_owned()),
        Err(error) => Err(crate::error::chain(&error)),
    };
    check(
        "nftables",
        outcome,
        "boot a kernel with CONFIG_NF_TABLES_INET, NFT_CT, NFT_NAT, NFT_MASQ and NFT_REJECT_INET",
    )
}

fn conntrack() -> Check {
    let outcome = Conntrack::open().and_then(|mut conntrack| conntrack.count());
    let outcome = outcome
        .map(|count| format!("{} of {} entries", count.entries, count.max))
        .map_err(|error| crate::error::chain(&error));
    wish(
        "conntrack netlink",
        outcome,
        "`get connections` needs CONFIG_NF_CT_NETLINK: modprobe nf_conntrack_netlink",
    )
}

fn sockets() -> Check {
    let outcome = match diag::probe() {
        Ok(()) => Ok("UDP sockets can be destroyed".to_owned()),
        Err(error) => Err(crate::error::chain(&error)),
    };
    wish(
        "socket diagnosis",
        outcome,
        "connected UDP sockets of processes stay with endpoints that are gone: boot a kernel with CONFIG_INET_UDP_DIAG and \
         CONFIG_INET_DIAG_DESTROY",
    )
}

fn setting(name: &'static str, needed: &str) -> Check {
    let found = |value: String| match value == needed {
        true => value,
        false => format!("{value}, `portico run` makes it {needed}"),
    };
    let outcome = sysctl::read(name).map(found).map_err(|error| crate::error::chain(&error));
    wish(name, outcome, "loaded with the conntrack module, or IPv6 is disabled")
}

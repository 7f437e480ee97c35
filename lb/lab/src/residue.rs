use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::CString,
    fs, io,
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::{Path, PathBuf},
};

use aya::programs::{SchedClassifier, TcAttachType};
use nix::libc;
use serde_json::Value;

use super::{LabError, Netns, command};

/// Sysctls that are not configuration: state, secrets made on first use, and what all namespaces share.
const VOLATILE: [&str; 7] = [
    "ipv4/tcp_fastopen_key",
    "netfilter/nf_conntrack_buckets",
    "netfilter/nf_conntrack_count",
    "netfilter/nf_conntrack_expect_max",
    "netfilter/nf_conntrack_max",
    "ipv4/fib_multipath_hash_seed",
    "ipv4/tcp_child_ehash_entries",
];

/// What a daemon may leave in a namespace and a BPF file system: pins, nftables tables, qdiscs, programs on
/// interfaces, addresses, rules and sysctls. Two of them are compared with [`Residue::changes_to`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Residue {
    found: BTreeMap<String, String>,
}

impl Residue {
    /// Looks. Needs the commands `nft`, `tc` and `ip`.
    ///
    /// # Errors
    ///
    /// When something cannot be listed.
    pub fn take(ns: &Netns, bpffs: &Path) -> Result<Self, LabError> {
        let mut found = BTreeMap::new();
        for path in pins(bpffs)? {
            found.insert(format!("pin {}", path.display()), String::new());
        }
        for line in command::stdout(ns.command("nft").args(["list", "tables"]))?.lines() {
            found.insert(format!("nft {line}"), String::new());
        }
        for family in ["-4", "-6"] {
            for line in command::stdout(ns.command("ip").args([family, "rule"]))?.lines() {
                found.insert(format!("rule {family} {line}"), String::new());
            }
        }
        for qdisc in list(ns, "tc", &["-j", "qdisc", "show"])? {
            let key = format!("qdisc {} on {}", text(&qdisc, "kind"), text(&qdisc, "dev"));
            found.insert(key, text(&qdisc, "parent"));
        }
        let links = list(ns, "ip", &["-j", "address"])?;
        for link in &links {
            let name = text(link, "ifname");
            found.insert(format!("xdp on {name}"), text(link, "xdp"));
            for address in link.get("addr_info").and_then(Value::as_array).into_iter().flatten() {
                let key = format!("address {} on {name}", text(address, "local"));
                found.insert(key, text(address, "prefixlen"));
            }
        }
        let names: Vec<_> = links.iter().map(|link| text(link, "ifname")).collect();
        ns.run(|| {
            found.extend(tcx(&names));
            sysctls(&mut found);
        })?;
        Ok(Self { found })
    }

    /// One line for each thing that is there before or after but not both, or not the same.
    #[must_use]
    pub fn changes_to(&self, after: &Self) -> Vec<String> {
        let keys: BTreeSet<_> = self.found.keys().chain(after.found.keys()).collect();
        keys.into_iter()
            .filter_map(|key| match (self.found.get(key), after.found.get(key)) {
                (None, Some(value)) => Some(format!("added: {key} {value}")),
                (Some(value), None) => Some(format!("gone: {key} {value}")),
                (Some(a), Some(b)) if a != b => Some(format!("changed: {key}: {a:?} -> {b:?}")),
                _ => None,
            })
            .collect()
    }
}

fn list(ns: &Netns, program: &str, arguments: &[&str]) -> Result<Vec<Value>, LabError> {
    let text = command::stdout(ns.command(program).args(arguments))?;
    serde_json::from_str(&text)
        .map_err(|_| LabError::Parse { what: format!("output of {program} {}", arguments.join(" ")), text })
}

/// A member of an object, as text; empty if there is none.
fn text(object: &Value, member: &str) -> String {
    match object.get(member) {
        None => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

fn tcx(interfaces: &[String]) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for interface in interfaces {
        for (direction, name) in [(TcAttachType::Ingress, "ingress"), (TcAttachType::Egress, "egress")] {
            // A kernel without TCX has nothing there.
            let Ok((_, programs)) = SchedClassifier::query_tcx(interface, direction) else { continue };
            for program in programs {
                let program = program.name_as_str().unwrap_or("?").to_owned();
                found.insert(format!("tcx {name} on {interface}"), program);
            }
        }
    }
    found
}

/// `/proc/sys/net` shows the namespace of the thread that looks.
fn sysctls(found: &mut BTreeMap<String, String>) {
    let root = Path::new("/proc/sys/net");
    let mut pending = ["ipv4", "ipv6", "netfilter"].map(|d| root.join(d)).to_vec();
    while let Some(path) = pending.pop() {
        let Ok(key) = path.strip_prefix(root) else { continue };
        let key = key.display().to_string();
        if path.is_dir() {
            pending.extend(fs::read_dir(&path).into_iter().flatten().flatten().map(|e| e.path()));
        } else if !VOLATILE.contains(&key.as_str()) {
            // Some are for writing only.
            let Ok(value) = fs::read_to_string(&path) else { continue };
            found.insert(format!("sysctl {key}"), value.trim().to_owned());
        }
    }
}

/// Every file below a BPF file system's root.
fn pins(bpffs: &Path) -> Result<Vec<PathBuf>, LabError> {
    let mut found = Vec::new();
    let mut pending = vec![bpffs.to_owned()];
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(&directory).map_err(LabError::file("list", &directory))? {
            let path = entry.map_err(LabError::file("list", &directory))?.path();
            if path.is_dir() {
                pending.push(path.clone());
            }
            found.push(path);
        }
    }
    Ok(found)
}

/// The kernel objects that were pinned when it was taken, by their ids, which the kernel never uses twice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Objects {
    found: BTreeMap<(Kind, u32), PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Program,
    Map,
    Link,
}

/// `enum bpf_cmd` of `linux/bpf.h`.
const OBJ_GET: libc::c_long = 7;

impl Kind {
    const ALL: [Self; 3] = [Self::Program, Self::Map, Self::Link];

    /// Its field in `/proc/self/fdinfo`.
    const fn field(self) -> &'static str {
        match self {
            Self::Program => "prog_id:",
            Self::Map => "map_id:",
            Self::Link => "link_id:",
        }
    }

    /// `BPF_..._GET_FD_BY_ID`.
    const fn get_by_id(self) -> libc::c_long {
        match self {
            Self::Program => 13,
            Self::Map => 14,
            Self::Link => 30,
        }
    }
}

impl Objects {
    /// Looks at everything in a pin directory. (The root of a BPF file system contains iterators of the kernel's own.)
    ///
    /// # Errors
    ///
    /// When a pin cannot be opened.
    pub fn take(pin_directory: &Path) -> Result<Self, LabError> {
        let mut found = BTreeMap::new();
        for path in pins(pin_directory)?.into_iter().filter(|p| !p.is_dir()) {
            let identified = identify(&path).map_err(LabError::file("open the pinned object", &path))?;
            found.extend(identified.map(|id| (id, path)));
        }
        Ok(Self { found })
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.found.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// Those that still exist, as text.
    #[must_use]
    pub fn alive(&self) -> Vec<String> {
        let alive = |(kind, id): (Kind, u32)| {
            // struct { __u32 id; __u32 next_id; __u32 open_flags; }
            bpf(kind.get_by_id(), &mut [u64::from(id), 0]).is_ok()
        };
        self.found
            .iter()
            .filter(|(id, _)| alive(**id))
            .map(|((kind, id), path)| format!("{kind:?} {id}, was pinned at {}", path.display()))
            .collect()
    }
}

fn identify(path: &Path) -> io::Result<Option<(Kind, u32)>> {
    let name = CString::new(path.as_os_str().as_bytes())?;
    // struct { __aligned_u64 pathname; __u32 bpf_fd; __u32 file_flags; }
    let fd = bpf(OBJ_GET, &mut [name.as_ptr() as u64, 0])?;
    let info = fs::read_to_string(format!("/proc/thread-self/fdinfo/{}", fd.as_raw_fd()))?;
    // A link tells the id of its program too.
    let id = Kind::ALL.into_iter().rev().find_map(|kind| {
        let line = info.lines().find_map(|line| line.strip_prefix(kind.field()))?;
        Some((kind, line.trim().parse().ok()?))
    });
    Ok(id)
}

/// bpf(2) with the beginning of `union bpf_attr`, for commands that return a descriptor.
fn bpf(command: libc::c_long, attributes: &mut [u64; 2]) -> io::Result<OwnedFd> {
    // SAFETY: the attributes are as large as said, and what they point to outlives the call.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, attributes.as_mut_ptr(), size_of_val(attributes)) };
    let fd = i32::try_from(result).unwrap_or(-1);
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just gave us this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

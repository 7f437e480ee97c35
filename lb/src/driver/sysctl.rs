//! Kernel settings of the network namespace. What was found is remembered in a pinned map and restored by `cleanup`.

use std::{fs, io, path::Path};

/// Settings that forwarding and NAT need, with the reason for each.
pub const NEEDED: [(&str, &str, &str); 3] = [
    ("net/ipv4/ip_forward", "1", "packets are routed to backends"),
    ("net/ipv6/conf/all/forwarding", "1", "packets are routed to backends"),
    (
        "net/netfilter/nf_conntrack_tcp_be_liberal",
        "1",
        "a segment outside the window is translated like the rest instead of reaching the client untranslated",
    ),
];

/// What the fast path needs besides.
pub const NEEDED_FAST: (&str, &str, &str) = (
    "net/netfilter/nf_conntrack_tcp_ignore_invalid_rst",
    "1",
    "a reset ends its connection although conntrack did not see what XDP forwarded before",
);

/// Why a setting could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("cannot {op} sysctl {name}")]
pub struct Error {
    op: &'static str,
    name: String,
    source: io::Error,
}

impl Error {
    /// Whether it may not be changed here: not in this network namespace, or not with these privileges.
    #[must_use]
    pub fn is_forbidden(&self) -> bool {
        use io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem};
        matches!(self.source.kind(), PermissionDenied | ReadOnlyFilesystem)
    }

    /// Whether this kernel has no such setting.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        self.source.kind() == io::ErrorKind::NotFound
    }
}

/// What writing [`NEEDED`] forwarding changes besides, and writing the old value back would not bring back: names and
/// values now. Forwarding of all interfaces is forwarding of each, and for IPv4 also decides about
/// `accept_redirects` (`inet_forward_change`, `addrconf_forward_change`).
///
/// # Errors
///
/// A setting cannot be read.
pub fn swept_along(name: &str) -> Result<Vec<(String, String)>, Error> {
    let (conf, redirects) = match name {
        "net/ipv4/ip_forward" => ("net/ipv4/conf", Some("net/ipv4/conf/all/accept_redirects")),
        "net/ipv6/conf/all/forwarding" => ("net/ipv6/conf", None),
        _ => return Ok(Vec::new()),
    };
    let failed = |source| Error { op: "list", name: conf.to_owned(), source };
    let mut found = Vec::new();
    for entry in fs::read_dir(Path::new("/proc/sys").join(conf)).map_err(failed)? {
        let interface = entry.map_err(failed)?.file_name().to_string_lossy().into_owned();
        if interface != "all" {
            found.push(format!("{conf}/{interface}/forwarding"));
        }
    }
    found.extend(redirects.map(str::to_owned));
    let mut values = Vec::new();
    for name in found {
        match read(&name) {
            // Forwarding of all is off now, and so will the others be again; redirects will be on.
            Ok(value) if (value == "0") == name.ends_with("/forwarding") => {}
            Ok(value) => values.push((name, value)),
            Err(error) if error.is_absent() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(values)
}

/// The value of a setting, its name written with slashes.
///
/// # Errors
///
/// There is none, or it cannot be read.
pub fn read(name: &str) -> Result<String, Error> {
    fs::read_to_string(Path::new("/proc/sys").join(name))
        .map(|value| value.trim().to_owned())
        .map_err(|source| Error { op: "read", name: name.to_owned(), source })
}

/// Whether a setting can be changed, without doing so.
///
/// # Errors
///
/// It cannot, see [`Error::is_forbidden`]; or there is none.
pub fn writable(name: &str) -> Result<(), Error> {
    let opened = fs::OpenOptions::new().write(true).open(Path::new("/proc/sys").join(name));
    opened.map(drop).map_err(|source| Error { op: "change", name: name.to_owned(), source })
}

/// Sets a setting.
///
/// # Errors
///
/// There is none, or it cannot be written.
pub fn write(name: &str, value: &str) -> Result<(), Error> {
    fs::write(Path::new("/proc/sys").join(name), value).map_err(|source| Error {
        op: "write",
        name: name.to_owned(),
        source,
    })
}

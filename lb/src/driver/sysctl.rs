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

/// Why a setting could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("cannot {op} sysctl {name}")]
pub struct Error {
    op: &'static str,
    name: String,
    source: io::Error,
}

impl Error {
    /// Whether this kernel has no such setting.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        self.source.kind() == io::ErrorKind::NotFound
    }
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

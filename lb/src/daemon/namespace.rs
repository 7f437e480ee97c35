//! State belongs to one network namespace. Attachments and nft tables of another one look alike and are not ours.

use std::{io, os::fd::AsRawFd as _};

use anyhow::{Context as _, bail};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use crate::driver::{
    maps::{Hash, Maps, Text},
    pins::PinDir,
};

const KEY: &str = "netns";

/// The kernel's number for the network namespace of the calling thread, never given twice (Linux 5.14).
///
/// # Errors
///
/// The kernel is older.
pub fn cookie() -> io::Result<u64> {
    let socket = socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    let mut cookie = 0_u64;
    let mut length = size_of::<u64>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes, which is the size of `cookie`.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    if result == 0 { Ok(cookie) } else { Err(io::Error::last_os_error()) }
}

/// The namespace that the pinned state belongs to, if it is not the calling thread's.
///
/// # Errors
///
/// The state cannot be read.
pub fn describe(saved: &Hash<Text, Text>) -> anyhow::Result<Option<String>> {
    let own = cookie().context("cannot identify the network namespace")?.to_string();
    let owner = saved.get(&Text::new(KEY))?;
    Ok(owner.map(|text| text.as_str().to_owned()).filter(|owner| *owner != own))
}

/// Makes sure that the pinned state belongs to the calling thread's namespace.
pub(super) fn claim(maps: &Maps, pins: &PinDir) -> anyhow::Result<()> {
    if describe(&maps.saved)?.is_some() {
        bail!(
            "the state in {} belongs to another network namespace; choose another --pin-dir, or remove it with \
             `portico cleanup` if that namespace is gone",
            pins.name().display()
        );
    }
    let own = cookie().context("cannot identify the network namespace")?.to_string();
    maps.saved.put(&[(Text::new(KEY), Text::new(&own))])?;
    Ok(())
}

//! Seeing the host's filesystems from a mount namespace that hides them.
//!
//! `ip netns exec` and some containers run a program with a fresh `/sys`, without the host's BPF filesystem and cgroup
//! hierarchy below it. The host's view is reached through process 1, or, where that is not permitted, through the
//! program's own ancestors.

use std::{
    fs, io,
    os::fd::AsRawFd as _,
    path::{Path, PathBuf},
};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

/// `path` as this process sees it, then as processes outside of its mount namespace may see it.
pub(super) fn views(path: &Path) -> impl Iterator<Item = PathBuf> {
    let inside = path.strip_prefix("/").unwrap_or(path).to_owned();
    let outside = outer_processes().into_iter().map(move |pid| format!("/proc/{pid}/root").into());
    std::iter::once(path.to_owned()).chain(outside.map(move |root: PathBuf| root.join(&inside)))
}

/// A path that leads through another process' root, as that process has it.
pub(super) fn path(path: &Path) -> PathBuf {
    let mut parts = path.components();
    let through = |parts: &mut std::path::Components<'_>| {
        let mut name = || parts.next().map(|part| part.as_os_str().to_owned());
        let (_, process, _, root) = (name(), name(), name(), name());
        process.is_some_and(|name| name == "proc") && root.is_some_and(|name| name == "root")
    };
    if through(&mut parts) { Path::new("/").join(parts.as_path()) } else { path.to_owned() }
}

/// Process 1 and this process' ancestors, the oldest first.
pub(super) fn outer_processes() -> Vec<u32> {
    let mut ancestors: Vec<u32> =
        std::iter::successors(Some(std::process::id()), |pid| parent(*pid)).skip(1).collect();
    ancestors.push(1);
    ancestors.reverse();
    ancestors.dedup();
    ancestors
}

/// See proc_pid_stat(5); the command name before the state may itself hold blanks and parentheses.
fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let parent = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?;
    (parent != 0).then_some(parent)
}

/// The kernel's number for the network namespace of the calling thread, never given twice (Linux 5.14).
///
/// # Errors
///
/// The kernel is older.
pub fn namespace_cookie() -> io::Result<u64> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ancestors_end_with_the_parent() {
        assert_eq!(outer_processes().last().copied(), Some(std::os::unix::process::parent_id()));
    }

    #[test]
    fn a_path_is_shown_without_the_process_it_leads_through() {
        assert_eq!(path(Path::new("/proc/1/root/sys/fs/cgroup")), Path::new("/sys/fs/cgroup"));
        assert_eq!(path(Path::new("/sys/fs/cgroup/a")), Path::new("/sys/fs/cgroup/a"));
        assert_eq!(path(Path::new("/proc")), Path::new("/proc"));
    }
}

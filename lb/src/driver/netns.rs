//! The network namespaces of this host, as far as they can be seen: those of the processes in `/proc`, and those that
//! are bound to a name by `ip netns` or a container runtime.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs::{self, File},
    io,
    os::unix::{
        ffi::{OsStrExt as _, OsStringExt as _},
        fs::MetadataExt as _,
    },
    path::{Path, PathBuf},
};

use nix::sched::{CloneFlags, setns};

use super::host;

/// Where the calling thread is; `/proc/self` would be where the main thread is.
const OWN: &str = "/proc/thread-self/ns/net";

/// A network namespace, which exists at least as long as this.
#[derive(Debug)]
pub struct Namespace {
    path: PathBuf,
    file: File,
}

impl Namespace {
    /// That of the calling thread.
    ///
    /// # Errors
    ///
    /// `/proc` is not mounted.
    pub fn own() -> io::Result<Self> {
        Ok(Self { path: OWN.into(), file: File::open(OWN)? })
    }

    /// Where it was found.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Moves the calling thread into it, for good: the thread should be one made for that.
    ///
    /// # Errors
    ///
    /// It takes `CAP_SYS_ADMIN`, here and there.
    pub fn enter(&self) -> io::Result<()> {
        Ok(setns(&self.file, CloneFlags::CLONE_NEWNET)?)
    }
}

/// Each network namespace once, opened when it is its turn. Those that vanish meanwhile are left out.
pub fn all() -> impl Iterator<Item = Namespace> {
    let mut seen = BTreeSet::new();
    std::iter::once(PathBuf::from(OWN)).chain(of_processes()).chain(bound()).filter_map(move |path| {
        // Looking at the link is much cheaper than opening it, and most processes share a namespace.
        let inode = fs::read_link(&path).ok().and_then(|link| inode(link.as_os_str().as_bytes()));
        if inode.is_some_and(|inode| seen.contains(&inode)) {
            return None;
        }
        let file = File::open(&path).ok()?;
        seen.insert(file.metadata().ok()?.ino()).then_some(Namespace { path, file })
    })
}

fn of_processes() -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let processes = entries.filter(|e| e.file_name().as_bytes().iter().all(u8::is_ascii_digit));
    processes.map(|entry| entry.path().join("ns/net"))
}

/// Mounts of namespaces, as this process sees them and as those outside of its mount namespace do.
fn bound() -> impl Iterator<Item = PathBuf> {
    let inside = ("/proc/self/mountinfo".to_owned(), PathBuf::from("/"));
    let outside = host::outer_processes()
        .into_iter()
        .map(|pid| (format!("/proc/{pid}/mountinfo"), PathBuf::from(format!("/proc/{pid}/root"))));
    std::iter::once(inside).chain(outside).flat_map(|(mounts, root)| {
        let mounts = fs::read(mounts).unwrap_or_default();
        let points = mounts.split(|byte| *byte == b'\n').filter_map(mount_point);
        points.map(|path| root.join(path.strip_prefix("/").unwrap_or(&path))).collect::<Vec<_>>()
    })
}

/// The mount point of a line of proc_pid_mountinfo(5) that is about a network namespace.
fn mount_point(line: &[u8]) -> Option<PathBuf> {
    let mut fields = line.split(|byte| *byte == b' ').skip(3);
    inode(fields.next()?)?;
    Some(PathBuf::from(OsString::from_vec(unescape(fields.next()?))))
}

/// The number in `net:[4026531840]`.
fn inode(text: &[u8]) -> Option<u64> {
    let number = text.strip_prefix(b"net:[")?.strip_suffix(b"]")?;
    std::str::from_utf8(number).ok()?.parse().ok()
}

/// Blanks, line feeds and backslashes are written as a backslash and three octal digits.
fn unescape(mut text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    while let Some((first, rest)) = text.split_first() {
        let digits = rest.first_chunk::<3>().filter(|_| *first == b'\\');
        let octal = digits.and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                text = rest.get(3..).unwrap_or_default();
            }
            None => {
                bytes.push(*first);
                text = rest;
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_of_network_namespaces_are_recognised() {
        let line = br"612 26 0:4 net:[4026532277] /run/netns/a\040b rw shared:260 - nsfs nsfs rw";
        assert_eq!(mount_point(line), Some(PathBuf::from("/run/netns/a b")));
        for other in [
            &b"612 26 0:4 mnt:[4026532277] /run/snapd/ns/x.mnt rw - nsfs nsfs rw"[..],
            b"26 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw",
            b"26 1",
            b"",
        ] {
            assert_eq!(mount_point(other), None);
        }
    }

    #[test]
    fn the_own_namespace_is_found_once() {
        let own = fs::metadata(OWN).unwrap().ino();
        let found = all().filter(|namespace| namespace.file.metadata().unwrap().ino() == own).count();
        assert_eq!(found, 1);
    }
}

//! The pin directory: where everything in the kernel that is ours can be found again.
//!
//! ```text
//! <pin dir>/maps-v<SCHEMA>/FRONTENDS ...    survive the daemon, shared by all programs of a schema
//! <pin dir>/state-v<STATE>/AFFINITY ...      survive a change of the schema, too
//! <pin dir>/links/xdp-native-eth0 ...       attachments; removing one detaches its program
//! <pin dir>/saved                           what the host looked like before us
//! ```
//!
//! A BPF filesystem refuses names with a dot, and interfaces may have one. So in the name of a pin a dot of the interface's
//! name is written `%2e`, and a percent sign `%25`: `tcx-eth0%2e100` is of `eth0.100`. See [`escape`].

use std::{
    ffi::OsString,
    fs::{self, File},
    io,
    os::{fd::AsRawFd as _, unix::fs::MetadataExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use datapath::abi::{SCHEMA, STATE, map};
use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
    mount::{MsFlags, mount},
    sched::{CloneFlags, setns, unshare},
    sys::statfs::{BPF_FS_MAGIC, statfs},
};

use super::host;

/// Where state is pinned unless told otherwise.
pub const DEFAULT: &str = "/sys/fs/bpf/portico";

/// What the name of a directory of maps begins with; the version of their layout follows.
const LAYOUT: &str = "maps-v";
/// Likewise of the maps that outlive a change of that version.
const STATE_LAYOUT: &str = "state-v";

/// The name of an interface as it stands in the name of a pin.
#[must_use]
pub fn escape(interface: &str) -> String {
    interface.replace('%', "%25").replace('.', "%2e")
}

/// The name of the interface that was written so.
#[must_use]
pub fn unescape(pinned: &str) -> String {
    pinned.replace("%2e", ".").replace("%25", "%")
}

/// Why the pin directory cannot be used.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum Error {
    #[error("{path} is not on a BPF filesystem, and mounting one at {mount} failed")]
    NoBpfFs { path: PathBuf, mount: PathBuf, source: Errno },
    #[error("{path} is not on a BPF filesystem; choose a --pin-dir on one, such as {DEFAULT}")]
    NotBpfFs { path: PathBuf },
    #[error("cannot {op} {path}")]
    Io { op: &'static str, path: PathBuf, source: io::Error },
    #[error("another portico daemon uses {path}")]
    InUse { path: PathBuf },
}

/// A pin directory on a BPF filesystem. It need not exist yet.
#[derive(Clone, Debug)]
pub struct PinDir {
    /// As the user named it.
    name: PathBuf,
    /// How this process reaches it.
    path: PathBuf,
    /// Keeps a `path` that leads through `/proc/self/fd` valid.
    _base: Option<Arc<File>>,
}

impl PinDir {
    /// Finds the directory, for reading: nothing is created or mounted.
    #[must_use]
    pub fn find(name: &Path) -> Option<Self> {
        let mut views = host::views(name);
        let own = views.next().filter(|path| on_bpffs(path));
        if let Some(path) = own {
            return Some(Self { name: name.to_owned(), path, _base: None });
        }
        // The process that lends its view may end before this one.
        views.find_map(|path| {
            let base = existing_ancestor(path.parent()?);
            if !on_bpffs(base) {
                return None;
            }
            let file = File::open(base).ok()?;
            let rest = path.strip_prefix(base).ok()?;
            let path = Path::new("/proc/self/fd").join(file.as_raw_fd().to_string()).join(rest);
            Some(Self { name: name.to_owned(), path, _base: Some(Arc::new(file)) })
        })
    }

    /// Finds or prepares the directory for the daemon, mounting a BPF filesystem at `/sys/fs/bpf` if there is none.
    ///
    /// # Errors
    ///
    /// The directory cannot be made to lie on a BPF filesystem.
    pub fn prepare(name: &Path) -> Result<Self, Error> {
        let mount_point = Path::new("/sys/fs/bpf");
        let found = match Self::find(name) {
            Some(found) => found,
            None if name.starts_with(mount_point) => {
                mount_bpffs(mount_point).map_err(|source| Error::NoBpfFs {
                    path: name.to_owned(),
                    mount: mount_point.to_owned(),
                    source,
                })?;
                Self::find(name).ok_or_else(|| Error::NotBpfFs { path: name.to_owned() })?
            }
            None => return Err(Error::NotBpfFs { path: name.to_owned() }),
        };
        found.make()?;
        Ok(found)
    }

    /// Makes the directories for maps and attachments, unless they are there.
    ///
    /// # Errors
    ///
    /// They cannot be made.
    pub fn make(&self) -> Result<(), Error> {
        [self.maps(), self.state(), self.links()].into_iter().try_for_each(|dir| {
            fs::create_dir_all(&dir).map_err(|source| Error::Io { op: "create", path: dir, source })
        })
    }

    /// Which directory it is now; none if there is none.
    #[must_use]
    pub fn node(&self) -> Option<Node> {
        Node::of(&self.path)
    }

    /// Names of all pinned maps of this schema and of the state.
    ///
    /// # Errors
    ///
    /// The directory exists but cannot be read.
    pub fn map_names(&self) -> Result<Vec<String>, Error> {
        Ok([names(self.maps())?, names(self.state())?].concat())
    }

    /// The directory as the user named it.
    #[must_use]
    pub fn name(&self) -> &Path {
        &self.name
    }

    /// Pins of the maps of this schema.
    #[must_use]
    pub fn maps(&self) -> PathBuf {
        self.maps_of(SCHEMA)
    }

    /// Pins of the maps of a schema.
    #[must_use]
    pub fn maps_of(&self, schema: u32) -> PathBuf {
        self.path.join(format!("{LAYOUT}{schema}"))
    }

    /// Pins of the maps that outlive a change of the schema.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.path.join(format!("{STATE_LAYOUT}{STATE}"))
    }

    /// The pin of a map.
    #[must_use]
    pub fn map(&self, name: &str) -> PathBuf {
        let dir = if map::STATE.contains(&name) { self.state() } else { self.maps() };
        dir.join(name)
    }

    /// The schemas that there are maps of.
    ///
    /// # Errors
    ///
    /// The directory cannot be read.
    pub fn schemas(&self) -> Result<Vec<u32>, Error> {
        let layouts = self.directories(&[LAYOUT]).map_err(|source| self.unlisted(source))?;
        let schema = |dir: PathBuf| dir.file_name()?.to_str()?.strip_prefix(LAYOUT)?.parse().ok();
        Ok(layouts.into_iter().filter_map(schema).collect())
    }

    /// Removes the pins of a schema's maps, and puts an empty directory into the place of this schema's. Programs keep the
    /// maps that they use.
    ///
    /// # Errors
    ///
    /// A pin cannot be removed.
    pub fn discard(&self, schema: u32) -> Result<(), Error> {
        remove_dir(self.maps_of(schema))?;
        self.make()
    }

    /// Pin of the map that remembers the host as it was.
    #[must_use]
    pub fn saved(&self) -> PathBuf {
        self.path.join("saved")
    }

    /// Pins of attachments.
    #[must_use]
    pub fn links(&self) -> PathBuf {
        self.path.join("links")
    }

    /// Puts a new directory into the place of the one for maps that outlive a change of the schema. It is filled first, under
    /// another name, so that it is never seen with a part of its maps.
    ///
    /// # Errors
    ///
    /// A pin cannot be removed or made.
    pub fn renew_state<E: From<Error>>(&self, fill: impl FnOnce(&Path) -> Result<(), E>) -> Result<(), E> {
        let (dir, new) = (self.state(), self.path.join(format!("{STATE_LAYOUT}new")));
        let io = |op, path: &Path| {
            let path = path.to_owned();
            move |source| Error::Io { op, path, source }
        };
        remove_dir(new.clone())?;
        fs::create_dir(&new).map_err(io("create", &new))?;
        fill(&new)?;
        remove_dir(dir.clone())?;
        fs::rename(&new, &dir).map_err(io("rename", &new))?;
        Ok(())
    }

    /// Names of all pinned attachments.
    ///
    /// # Errors
    ///
    /// The directory exists but cannot be read.
    pub fn link_names(&self) -> Result<Vec<String>, Error> {
        names(self.links())
    }

    /// Whether a daemon has pinned anything here, of whatever version.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.directories(&[LAYOUT, STATE_LAYOUT]).is_ok_and(|found| !found.is_empty())
            || self.link_names().is_ok_and(|names| !names.is_empty())
    }

    /// Directories of maps, of this and other versions, whose names begin so.
    fn directories(&self, prefixes: &[&str]) -> io::Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            let name = entry.file_name();
            if prefixes.iter().any(|prefix| name.to_string_lossy().starts_with(prefix)) {
                found.push(entry.path());
            }
        }
        Ok(found)
    }

    fn unlisted(&self, source: io::Error) -> Error {
        Error::Io { op: "list", path: self.path.clone(), source }
    }

    /// Claims the directory for this process, until the result is dropped.
    ///
    /// # Errors
    ///
    /// Another process has claimed it.
    pub fn lock(&self) -> Result<Lock, Error> {
        let io = |source| Error::Io { op: "open", path: self.path.clone(), source };
        let dir = File::open(&self.path).map_err(io)?;
        match Flock::lock(dir, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Lock { _lock: lock }),
            Err((_, Errno::EWOULDBLOCK)) => Err(Error::InUse { path: self.name.clone() }),
            Err((_, errno)) => Err(Error::Io { op: "lock", path: self.path.clone(), source: errno.into() }),
        }
    }

    /// Removes all pins of ours, links without another holder detach; and the directory, unless there is something else
    /// in it. By the maps we are known here, so they go last. A directory that is not there has none.
    ///
    /// # Errors
    ///
    /// Something in it cannot be removed.
    pub fn remove(&self) -> Result<(), Error> {
        let maps = match self.directories(&[STATE_LAYOUT, LAYOUT]) {
            Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(()),
            maps => maps.map_err(|source| self.unlisted(source))?,
        };
        [self.links()].into_iter().chain(maps).try_for_each(remove_dir)?;
        match fs::remove_file(self.saved()) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(Error::Io { op: "remove", path: self.saved(), source });
            }
            _ => {}
        }
        // Fails where it is shared, or is the mount point.
        let _ = fs::remove_dir(&self.path);
        Ok(())
    }
}

/// The claim on a pin directory.
#[derive(Debug)]
pub struct Lock {
    _lock: Flock<File>,
}

/// Tells a file, or directory, from another that has its name later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Node {
    device: u64,
    inode: u64,
}

impl Node {
    /// What has this name now.
    #[must_use]
    pub fn of(path: &Path) -> Option<Self> {
        let found = fs::symlink_metadata(path).ok()?;
        Some(Self { device: found.dev(), inode: found.ino() })
    }
}

/// The names of the pins in a directory, in order; none if it does not exist.
pub(super) fn names(path: PathBuf) -> Result<Vec<String>, Error> {
    let entries = match fs::read_dir(&path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(Error::Io { op: "list", path, source }),
    };
    // A pin is a file; what else somebody puts there is nobody's business.
    let pins = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file()));
    let mut names: Vec<String> = pins.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    Ok(names)
}

fn remove_dir(dir: PathBuf) -> Result<(), Error> {
    match fs::remove_dir_all(&dir) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(Error::Io { op: "remove", path: dir, source })
        }
        _ => Ok(()),
    }
}

fn existing_ancestor(path: &Path) -> &Path {
    path.ancestors().find(|ancestor| ancestor.exists()).unwrap_or(path)
}

fn on_bpffs(path: &Path) -> bool {
    statfs(existing_ancestor(path)).is_ok_and(|info| info.filesystem_type() == BPF_FS_MAGIC)
}

/// Mounts where it outlives this process and everyone sees it: in the outermost mount namespace that can be entered.
fn mount_bpffs(at: &Path) -> Result<(), Errno> {
    let at: OsString = at.into();
    let worker = std::thread::spawn(move || {
        let outer = host::outer_processes().into_iter();
        let namespace = outer.map(|pid| format!("/proc/{pid}/ns/mnt")).find_map(|path| File::open(path).ok());
        if let Some(namespace) = namespace {
            // A thread may change its mount namespace only if it shares its root and working directory with no other.
            unshare(CloneFlags::CLONE_FS)?;
            setns(&namespace, CloneFlags::CLONE_NEWNS)?;
        }
        let none: Option<&str> = None;
        mount(Some("bpf"), at.as_os_str(), Some("bpf"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, none)
    });
    worker.join().unwrap_or(Err(Errno::EIO))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn pins_of_interfaces_have_no_dots() {
        for (interface, pinned) in [
            ("eth0", "eth0"),
            ("eth0.100", "eth0%2e100"),
            ("flannel.1", "flannel%2e1"),
            ("a%2eb", "a%252eb"),
            ("100%.", "100%25%2e"),
            ("%", "%25"),
        ] {
            assert_eq!(escape(interface), pinned);
            assert_eq!(unescape(pinned), interface);
        }
    }

    proptest! {
        #[test]
        fn names_of_interfaces_come_back(name in "[a-z%.25e]{1,15}") {
            prop_assert!(!escape(&name).contains('.'));
            prop_assert_eq!(unescape(&escape(&name)), name);
        }
    }
}

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::{self, Command},
    sync::Arc,
    time::Duration,
};

use super::{LabError, command, eventually, netns};

/// How long the kernel may take to reap killed processes.
const EMPTY: Duration = Duration::from_secs(2);

/// A cgroup v2 directory. On drop, whatever still runs in it is killed, and it is removed.
///
/// Only whole processes can be put in one (threads share it), and only before they open sockets: a socket remembers
/// the cgroup of its making.
#[derive(Debug)]
pub struct Cgroup {
    path: PathBuf,
    procs: Arc<File>,
}

impl Cgroup {
    /// A new cgroup below the root of cgroup v2.
    ///
    /// # Errors
    ///
    /// When there is no cgroup v2 or it cannot be written.
    pub fn new(role: &str) -> Result<Self, LabError> {
        let root = root()?;
        let path = loop {
            let path = root.join(format!("ptc-{}-{}-{role}", process::id(), netns::number()));
            match fs::create_dir(&path) {
                Ok(()) => break path,
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(LabError::file("create", path)(e)),
            }
        };
        let procs = path.join("cgroup.procs");
        let procs = OpenOptions::new().write(true).open(&procs).map_err(LabError::file("open", procs))?;
        Ok(Self { path, procs: Arc::new(procs) })
    }

    /// Its directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes `command` start in this cgroup.
    pub fn place(&self, command: &mut Command) {
        let procs = Arc::clone(&self.procs);
        // "0" is the writing process.
        command::before_exec(command, move || (&*procs).write_all(b"0"));
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = fs::write(self.path.join("cgroup.kill"), "1");
        let _ = eventually("an empty cgroup", EMPTY, || fs::remove_dir(&self.path).ok());
    }
}

/// The mount point of the cgroup v2 hierarchy; on hosts that still have v1 too, it is not `/sys/fs/cgroup` itself.
fn root() -> Result<PathBuf, LabError> {
    const MOUNTS: &str = "/proc/self/mountinfo";
    let text = fs::read_to_string(MOUNTS).map_err(LabError::file("read", MOUNTS))?;
    mount_point(&text).ok_or(LabError::NoCgroup2)
}

/// `ID PARENT MAJOR:MINOR ROOT MOUNTPOINT OPTIONS [FIELD...] - TYPE SOURCE OPTIONS`, see proc(5).
fn mount_point(mountinfo: &str) -> Option<PathBuf> {
    mountinfo.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let mut fields = before.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        (after.starts_with("cgroup2 ") && root == "/").then(|| PathBuf::from(point))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_cgroup2_on_unified_and_hybrid_hosts() {
        let unified = "29 22 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
        assert_eq!(mount_point(unified), Some("/sys/fs/cgroup".into()));
        let hybrid = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n\
                      32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
                      41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        assert_eq!(mount_point(hybrid), Some("/sys/fs/cgroup/unified".into()));
        assert_eq!(mount_point("32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"), None);
    }
}

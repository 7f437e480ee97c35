//! Finding the root of cgroup v2.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};

use super::host;

/// Why there is no cgroup to attach to.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum Error {
    #[error(
        "no cgroup v2 hierarchy is mounted; mount one (mount -t cgroup2 none DIR) or name it with --cgroup"
    )]
    NotMounted,
    #[error("{path} is not in a cgroup v2 hierarchy")]
    NotCgroup2 { path: PathBuf },
    #[error("cannot open cgroup {path}")]
    Open { path: PathBuf, source: io::Error },
}

/// Opens the cgroup at `path`, or the root of the hierarchy, and tells its path as the host has it.
///
/// # Errors
///
/// There is none, or `path` is not one.
pub fn open(path: Option<&Path>) -> Result<(PathBuf, File), Error> {
    let path = match path {
        Some(path) => named(path)?,
        None => root().ok_or(Error::NotMounted)?,
    };
    let dir = File::open(&path).map_err(|source| Error::Open { path: path.clone(), source })?;
    Ok((host::path(&path), dir))
}

/// The path as it is, or as the host sees it where `/sys` was remounted.
fn named(path: &Path) -> Result<PathBuf, Error> {
    if let Some(found) = host::views(path).find(|path| is_cgroup2(path)) {
        return Ok(found);
    }
    if path.exists() {
        return Err(Error::NotCgroup2 { path: path.to_owned() });
    }
    Err(Error::Open { path: path.to_owned(), source: io::ErrorKind::NotFound.into() })
}

/// The root of cgroup v2, wherever it is mounted: alone at `/sys/fs/cgroup`, or beside version 1 on a hybrid host.
#[must_use]
pub fn root() -> Option<PathBuf> {
    let own = fs::read_to_string("/proc/self/mountinfo").ok().and_then(|text| mount_point(&text));
    own.filter(|path| is_cgroup2(path)).or_else(|| {
        host::outer_processes().into_iter().find_map(|pid| {
            let point = mount_point(&fs::read_to_string(format!("/proc/{pid}/mountinfo")).ok()?)?;
            let path = Path::new(&format!("/proc/{pid}/root")).join(point.strip_prefix("/").ok()?);
            is_cgroup2(&path).then_some(path)
        })
    })
}

fn is_cgroup2(path: &Path) -> bool {
    statfs(path).is_ok_and(|info| info.filesystem_type() == CGROUP2_SUPER_MAGIC)
}

/// The mount point of the whole hierarchy in the text of a `mountinfo`, see proc_pid_mountinfo(5).
fn mount_point(mountinfo: &str) -> Option<PathBuf> {
    mountinfo.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let mut fields = before.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        (after.starts_with("cgroup2 ") && root == "/").then(|| PathBuf::from(unescape(point)))
    })
}

/// Blank, tab, newline and backslash are written as three octal digits.
fn unescape(field: &str) -> String {
    field.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
29 23 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
30 29 0:27 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
39 29 0:36 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw
";

    #[test]
    fn is_found_beside_version_1() {
        assert_eq!(mount_point(HYBRID), Some("/sys/fs/cgroup/unified".into()));
    }

    #[test]
    fn a_bind_mount_of_a_subtree_is_not_the_root() {
        let subtree =
            "39 29 0:36 /kubepods /mnt rw - cgroup2 cgroup2 rw\n40 29 0:36 / /a\\040b rw - cgroup2 none rw\n";
        assert_eq!(mount_point(subtree), Some("/a b".into()));
        assert_eq!(mount_point("30 29 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"), None);
    }

    #[test]
    fn only_cgroups_are_opened() {
        assert!(matches!(open(Some(Path::new("/tmp"))), Err(Error::NotCgroup2 { .. })));
        assert!(matches!(open(Some(Path::new("/nowhere"))), Err(Error::Open { .. })));
    }
}

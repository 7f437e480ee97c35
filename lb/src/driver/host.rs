//! Seeing the host's filesystems from a mount namespace that hides them.
//!
//! `ip netns exec` and some containers run a program with a fresh `/sys`, without the host's BPF filesystem and cgroup
//! hierarchy below it. The host's view is reached through process 1, or, where that is not permitted, through the
//! program's own ancestors.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// `path` as this process sees it, then as processes outside of its mount namespace may see it.
pub(super) fn views(path: &Path) -> impl Iterator<Item = PathBuf> {
    let inside = path.strip_prefix("/").unwrap_or(path).to_owned();
    let outside = outer_processes().into_iter().map(move |pid| format!("/proc/{pid}/root").into());
    std::iter::once(path.to_owned()).chain(outside.map(move |root: PathBuf| root.join(&inside)))
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

//! The kernel's threads that poll an interface.

use std::{collections::BTreeSet, fs, path::Path, time::Duration};

use anyhow::{Context as _, ensure};
use lab::Netns;
use nix::{
    errno::Errno,
    libc,
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, CpuSet, sched_setaffinity, unshare},
    unistd::Pid,
};

/// Threads of one interface, gone with it.
#[derive(Debug)]
pub(super) struct Threads {
    pids: Vec<i32>,
}

impl Threads {
    /// Has threads poll an interface of a namespace, on one CPU.
    pub(super) fn poll(ns: &Netns, interface: &str, cpu: usize) -> anyhow::Result<Self> {
        let before = polling(interface)?;
        // A mount of sysfs shows the interfaces of the namespace it was made in.
        let directory = std::env::temp_dir();
        let file = directory.join("class/net").join(interface).join("threaded");
        ns.run(|| -> anyhow::Result<()> {
            // Of this thread alone.
            unshare(CloneFlags::CLONE_NEWNS).context("cannot make a mount namespace")?;
            let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
            mount(None::<&str>, "/", None::<&str>, private, None::<&str>)
                .context("cannot make mounts private")?;
            mount(Some("sysfs"), &directory, Some("sysfs"), MsFlags::empty(), None::<&str>)
                .context("cannot mount sysfs")?;
            let written = fs::write(&file, "1").context("cannot have a thread poll an interface");
            let _ = umount2(&directory, MntFlags::MNT_DETACH);
            written
        })??;
        let pids: Vec<i32> = polling(interface)?.difference(&before).copied().collect();
        ensure!(!pids.is_empty(), "no thread polls {interface}");
        let mut one = CpuSet::new();
        one.set(cpu)?;
        for pid in &pids {
            sched_setaffinity(Pid::from_raw(*pid), &one)
                .with_context(|| format!("cannot keep thread {pid} on CPU {cpu}"))?;
            // Before other processes, as softirqs would be.
            // SAFETY: takes numbers.
            let first = unsafe { libc::setpriority(libc::PRIO_PROCESS, pid.cast_unsigned(), -20) };
            Errno::result(first).with_context(|| format!("cannot prefer thread {pid}"))?;
        }
        Ok(Self { pids })
    }

    /// How long they have run.
    pub(super) fn ran(&self) -> anyhow::Result<Duration> {
        let mut sum = 0;
        for pid in &self.pids {
            let path = format!("/proc/{pid}/schedstat");
            let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
            let first = text.split(' ').next().and_then(|ns| ns.parse::<u64>().ok());
            sum += first.with_context(|| format!("{path} is {text:?}"))?;
        }
        Ok(Duration::from_nanos(sum))
    }
}

/// Threads that poll interfaces of this name, in all namespaces.
fn polling(interface: &str) -> anyhow::Result<BTreeSet<i32>> {
    let name = format!("napi/{interface}-");
    let mut pids = BTreeSet::new();
    for entry in fs::read_dir("/proc").context("cannot list processes")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let comm = fs::read_to_string(Path::new("/proc").join(entry.file_name()).join("comm"));
        if comm.is_ok_and(|comm| comm.starts_with(&name)) {
            pids.insert(pid);
        }
    }
    Ok(pids)
}

//! How much of its CPU's time a thread had.
//!
//! Packets are made and forwarded on the CPU of one thread. Where other processes want that CPU too, their time is none
//! that packets took. The kernel says how long a thread ran and how long it waited for the CPU (`schedstat`, see
//! Documentation/scheduler/sched-stats.rst); what `ksoftirqd` did meanwhile was for the packets as well.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use nix::{
    sched::sched_getcpu,
    time::{ClockId, clock_gettime},
};

/// The calling thread's times so far, in ns.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Times {
    ran: u64,
    waited: u64,
    softirqd: u64,
}

impl Times {
    /// None if the kernel does not say.
    pub(super) fn now() -> Option<Self> {
        // schedstat says how long it ran as of the last tick.
        let ran = Duration::from(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).ok()?).as_nanos() as u64;
        let [_, waited] = schedstat(Path::new("/proc/thread-self"))?;
        let softirqd = softirqd(sched_getcpu().ok()?).and_then(|path| schedstat(&path));
        Some(Self { ran, waited, softirqd: softirqd.map_or(0, |[ran, _]| ran) })
    }

    /// The share since then; sleep is not counted at all.
    pub(super) fn share(before: Option<Self>, after: Option<Self>) -> f64 {
        let (Some(before), Some(after)) = (before, after) else { return 1.0 };
        let ran = after.ran.saturating_sub(before.ran) as f64;
        let waited = after.waited.saturating_sub(before.waited) as f64;
        let softirqd = after.softirqd.saturating_sub(before.softirqd) as f64;
        if ran == 0.0 { 1.0 } else { (ran + softirqd.min(waited)) / (ran + waited) }
    }
}

/// How long a thread ran and waited.
fn schedstat(thread: &Path) -> Option<[u64; 2]> {
    let text = fs::read_to_string(thread.join("schedstat")).ok()?;
    let mut fields = text.split_whitespace().map_while(|field| field.parse().ok());
    Some([fields.next()?, fields.next()?])
}

/// The thread that takes over a CPU's softirqs when there are many.
fn softirqd(cpu: usize) -> Option<PathBuf> {
    let name = format!("ksoftirqd/{cpu}");
    fs::read_dir("/proc")
        .ok()?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| fs::read_to_string(path.join("comm")).is_ok_and(|comm| comm.trim_end() == name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_is_not_for_packets_but_for_ksoftirqd() {
        let before = Some(Times { ran: 100, waited: 50, softirqd: 10 });
        let share = |ran: u64, waited: u64, softirqd: u64| {
            Times::share(before, Some(Times { ran: 100 + ran, waited: 50 + waited, softirqd: 10 + softirqd }))
        };
        assert_eq!(share(100, 0, 0), 1.0);
        assert_eq!(share(100, 100, 0), 0.5);
        assert_eq!(share(100, 100, 50), 0.75);
        // What it did for others.
        assert_eq!(share(100, 100, 500), 1.0);
        assert_eq!(Times::share(None, before), 1.0);
    }

    #[test]
    fn this_thread_has_times() {
        let times = Times::now().unwrap();
        assert!(times.ran > 0);
    }
}

//! Network namespaces without names: they end with the last reference, whatever happens to the test.

use std::{
    fs::{self, File},
    io::{self, Write},
    os::fd::AsRawFd,
    process::{Command, Stdio, id},
    thread,
    time::{Duration, Instant},
};

use nix::sched::{CloneFlags, setns, unshare};

/// How long anything is waited for.
pub(crate) const DEADLINE: Duration = Duration::from_secs(10);

/// A network namespace with its loopback interface up.
pub(crate) struct Netns(File);

impl Netns {
    pub(crate) fn new() -> Self {
        let make = || {
            unshare(CloneFlags::CLONE_NEWNET).expect("making a network namespace needs root");
            File::open("/proc/thread-self/ns/net").unwrap()
        };
        let netns = Self(thread::spawn(make).join().unwrap());
        netns.sh("ip link set lo up");
        netns
    }

    /// A path by which `ip` finds it.
    pub(crate) fn path(&self) -> String {
        format!("/proc/{}/fd/{}", id(), self.0.as_raw_fd())
    }

    /// Runs `f` in it, on a thread of its own: a namespace belongs to a thread. Sockets made there stay there.
    pub(crate) fn run<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        let enter = || {
            setns(&self.0, CloneFlags::CLONE_NEWNET).unwrap();
            f()
        };
        thread::scope(|scope| match scope.spawn(enter).join() {
            Ok(value) => value,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    }

    /// Like [`Netns::run`], with a tokio runtime on that thread.
    pub(crate) fn run_async<T: Send>(&self, f: impl AsyncFnOnce() -> T + Send) -> T {
        self.run(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async { tokio::time::timeout(DEADLINE, f()).await.expect("in time") })
        })
    }

    /// Runs commands in it and returns what they print.
    pub(crate) fn sh(&self, script: &str) -> String {
        self.run(|| {
            let mut sh = Command::new("sh")
                .args(["-eu"])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            sh.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
            let output = sh.wait_with_output().unwrap();
            assert!(output.status.success(), "{script} failed");
            String::from_utf8(output.stdout).unwrap()
        })
    }

    pub(crate) fn sysctl(&self, name: &str, value: &str) {
        self.run(|| fs::write(format!("/proc/sys/net/{name}"), value).unwrap());
    }
}

/// Waits until a condition holds.
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < DEADLINE, "not in time: {what}");
        thread::yield_now();
    }
}

/// Repeats what fails for a passing reason, as binding a port does while a child that another test has just forked
/// still has a copy of the socket that had it before.
pub(crate) fn at_last<T>(what: &str, mut attempt: impl FnMut() -> io::Result<T>) -> T {
    let mut result = None;
    eventually(what, || {
        result = attempt().ok();
        result.is_some()
    });
    result.unwrap()
}

/// A reception that goes on after a signal; the kernel does not resume it where there is a timeout.
pub(crate) fn receive<T>(mut receive: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match receive() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

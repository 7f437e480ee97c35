//! Leaves nothing behind when this program is interrupted or panics.
//!
//! Scenes remove what they have made when they are dropped, which does not happen then. All of it carries this
//! process's id in its name, and so can be found.

use std::{
    fs,
    io::{PipeReader, Read as _},
    os::fd::IntoRawFd as _,
    panic,
    path::{Path, PathBuf},
    process,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicI32, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::Context as _;
use nix::{
    libc,
    mount::{MntFlags, umount2},
    sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, kill, sigaction},
    unistd::Pid,
};

/// Where the signal handler writes.
static PIPE: AtomicI32 = AtomicI32::new(-1);
/// Files to be written again, and what they held.
static RESTORE: Mutex<Vec<(PathBuf, String)>> = Mutex::new(Vec::new());
/// Exit code by the shells' convention.
const SIGNALLED: i32 = 128;
/// How often a cgroup is tried to be removed, whose processes have just been killed.
const TRIES: u32 = 50;

/// From now on an interruption or a panic removes what this process has made.
pub(crate) fn install() -> anyhow::Result<()> {
    let (reader, writer) = std::io::pipe().context("cannot make a pipe")?;
    PIPE.store(writer.into_raw_fd(), Ordering::Relaxed);
    let action = SigAction::new(SigHandler::Handler(note), SaFlags::SA_RESTART, SigSet::empty());
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        // SAFETY: the handler writes to a pipe and does nothing else.
        unsafe { sigaction(signal, &action) }.with_context(|| format!("cannot handle {signal}"))?;
    }
    thread::Builder::new().name("sweep".to_owned()).spawn(move || wait(reader))?;
    let before = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        before(panic);
        // Tests' panics are caught, and their scenes dropped.
        if cfg!(panic = "abort") {
            sweep();
        }
    }));
    Ok(())
}

extern "C" fn note(signal: libc::c_int) {
    let byte = signal as u8;
    // SAFETY: write(2) may be called in handlers; the descriptor stays open, and the byte outlives the call.
    unsafe { libc::write(PIPE.load(Ordering::Relaxed), (&raw const byte).cast(), 1) };
}

fn wait(mut reader: PipeReader) {
    let mut byte = [0];
    if reader.read_exact(&mut byte).is_ok() {
        let [signal] = byte;
        crate::progress("interrupted; cleaning up");
        sweep();
        process::exit(SIGNALLED + i32::from(signal));
    }
}

/// Has a file written again when the program is interrupted.
pub(crate) fn restore(path: &Path, value: &str) {
    let mut all = RESTORE.lock().unwrap_or_else(PoisonError::into_inner);
    all.push((path.to_owned(), value.to_owned()));
}

/// It has been, or need not be.
pub(crate) fn restored(path: &Path) {
    RESTORE.lock().unwrap_or_else(PoisonError::into_inner).retain(|(known, _)| known != path);
}

/// Children first, which hold the rest open.
fn sweep() {
    for (path, value) in RESTORE.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
        let _ = fs::write(path, value);
    }
    for child in children() {
        let _ = kill(Pid::from_raw(child), Signal::SIGKILL);
    }
    let own = format!("ptc-{}-", process::id());
    for path in entries("/run/netns", &own) {
        let _ = umount2(&path, MntFlags::MNT_DETACH);
        let _ = fs::remove_file(&path);
    }
    for path in entries(std::env::temp_dir(), &own) {
        let _ = umount2(&path.join("bpf"), MntFlags::MNT_DETACH);
        let _ = fs::remove_dir_all(&path);
    }
    let account = [format!("ptc-bench-{}", process::id())].map(|name| crate::memory::hierarchy().join(name));
    let cgroups =
        ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].into_iter().flat_map(|root| entries(root, &own));
    for path in cgroups.chain(account.into_iter().filter(|path| path.exists())) {
        let _ = fs::write(path.join("cgroup.kill"), "1");
        for _ in 0..TRIES {
            if fs::remove_dir(&path).is_ok() {
                break;
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

fn children() -> Vec<i32> {
    let threads = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let lists = threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    lists
        .flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>())
        .collect()
}

fn entries(directory: impl AsRef<Path>, prefix: &str) -> Vec<PathBuf> {
    let all = fs::read_dir(directory).into_iter().flatten().flatten();
    all.filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
        .map(|entry| entry.path())
        .collect()
}

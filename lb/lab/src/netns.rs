use std::{
    fs::{self, File, OpenOptions},
    io, panic,
    path::{Path, PathBuf},
    process::{self, Child, Command},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread,
};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, setns, unshare},
};

use super::{LabError, command};

/// Where iproute2 looks for named namespaces.
const DIRECTORY: &str = "/run/netns";
/// The calling thread's namespace; `/proc/self` would be that of the main thread.
const OWN: &str = "/proc/thread-self/ns/net";

/// Makes the names of one process unique.
static COUNTER: AtomicU32 = AtomicU32::new(0);

/// The next number that no other laboratory of this process has.
pub(super) fn number() -> u32 {
    COUNTER.fetch_add(1, Ordering::Relaxed)
}

/// A named network namespace, removed when the last clone is dropped. `ip netns` knows it by [`Netns::name`].
///
/// A namespace belongs to a thread. Nothing here changes that of the caller: code runs in it on threads of its own
/// ([`Netns::run`], [`Netns::spawn`]) or as child processes ([`Netns::command`]). A socket stays in the namespace it
/// was made in, so it may be made by `run` and used anywhere.
#[derive(Clone, Debug)]
pub struct Netns(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    name: String,
    path: PathBuf,
    file: File,
}

impl Netns {
    /// A new namespace with its loopback up and without duplicate address detection, named
    /// `ptc-<process id>-<number>-<role>`.
    ///
    /// # Errors
    ///
    /// What could not be made; needs `CAP_SYS_ADMIN`.
    pub fn new(role: &str) -> Result<Self, LabError> {
        fs::create_dir_all(DIRECTORY).map_err(LabError::file("create", DIRECTORY))?;
        let (name, path) = loop {
            let name = format!("ptc-{}-{}-{role}", process::id(), number());
            let path = Path::new(DIRECTORY).join(&name);
            match OpenOptions::new().write(true).create_new(true).open(&path) {
                Ok(_) => break (name, path),
                // Of a process that had this id before and was killed.
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(LabError::file("create", path)(e)),
            }
        };
        let bound = on_thread("netns", || {
            unshare(CloneFlags::CLONE_NEWNET).map_err(LabError::system("make a network namespace"))?;
            mount(Some(OWN), &path, None::<&str>, MsFlags::MS_BIND, None::<&str>)
                .map_err(LabError::system(format!("bind a network namespace to {}", path.display())))
        })
        .flatten();
        if let Err(error) = bound {
            let _ = fs::remove_file(&path);
            return Err(error);
        }
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) => {
                unlink(&path);
                return Err(LabError::file("open", path)(error));
            }
        };
        let ns = Self(Arc::new(Inner { name, path, file }));
        ns.ip("link set lo up")?;
        // A tentative link-local address cannot ask for its neighbours, and the packets that wait for the answer
        // are lost.
        ns.sysctl("ipv6/conf/all/accept_dad", "0")?;
        ns.sysctl("ipv6/conf/default/accept_dad", "0")?;
        Ok(ns)
    }

    /// Its name for `ip netns`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Runs `f` on a thread in this namespace and returns its result. A panic of `f` goes on in the caller.
    ///
    /// # Errors
    ///
    /// When the thread cannot be made or cannot enter the namespace.
    pub fn run<T: Send>(&self, f: impl FnOnce() -> T + Send) -> Result<T, LabError> {
        on_thread(self.name(), || self.enter().map(|()| f())).flatten()
    }

    /// Starts a thread in this namespace. `f` should look at the flag often, at least ten times a second, and return
    /// when it is set; dropping the result sets it and waits. Threads that `f` starts are in the namespace too.
    ///
    /// # Errors
    ///
    /// When the thread cannot be made.
    pub fn spawn(
        &self,
        name: &str,
        f: impl FnOnce(&Arc<AtomicBool>) + Send + 'static,
    ) -> Result<Spawned, LabError> {
        let stop = Arc::new(AtomicBool::new(false));
        let (ns, flag) = (self.clone(), Arc::clone(&stop));
        let thread = thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                if ns.enter().is_ok() {
                    drop(ns);
                    f(&flag);
                }
            })
            .map_err(LabError::io(format!("start the thread {name}")))?;
        Ok(Spawned { stop, thread: Some(thread) })
    }

    /// A command that will run in this namespace. Unlike `ip netns exec` it keeps the mounts of the caller.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        self.place(&mut command);
        command
    }

    /// Starts a command in this namespace.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    pub fn spawn_command(&self, mut command: Command) -> Result<Child, LabError> {
        self.place(&mut command);
        command.spawn().map_err(LabError::io(format!("start {}", command::line(&command))))
    }

    fn place(&self, command: &mut Command) {
        let ns = self.clone();
        command::before_exec(command, move || {
            setns(&ns.0.file, CloneFlags::CLONE_NEWNET).map_err(io::Error::from)
        });
    }

    /// Runs `ip` in this namespace with one command per line of `batch`.
    ///
    /// # Errors
    ///
    /// When `ip` cannot be started or refuses one of them.
    pub fn ip(&self, batch: &str) -> Result<(), LabError> {
        command::feed(self.command("ip").args(["-batch", "-"]), batch)
    }

    /// The value of a sysctl of this namespace; `key` is a path below `/proc/sys/net`.
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    pub fn read_sysctl(&self, key: &str) -> Result<String, LabError> {
        let path = Path::new("/proc/sys/net").join(key);
        let text = self.run(|| fs::read_to_string(&path))?.map_err(LabError::file("read", &path))?;
        Ok(text.trim().to_owned())
    }

    /// Sets a sysctl of this namespace.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<(), LabError> {
        let path = Path::new("/proc/sys/net").join(key);
        self.run(|| fs::write(&path, value))?.map_err(LabError::file("write", &path))
    }

    fn enter(&self) -> Result<(), LabError> {
        setns(&self.0.file, CloneFlags::CLONE_NEWNET)
            .map_err(LabError::system(format!("enter the network namespace {}", self.name())))
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        unlink(&self.path);
    }
}

fn unlink(path: &Path) {
    let _ = umount2(path, MntFlags::MNT_DETACH);
    let _ = fs::remove_file(path);
}

/// Runs `f` on a thread of its own, which may leave the namespace of the caller.
fn on_thread<T: Send>(name: &str, f: impl FnOnce() -> T + Send) -> Result<T, LabError> {
    thread::scope(|scope| {
        let thread = thread::Builder::new()
            .name(name.to_owned())
            .spawn_scoped(scope, f)
            .map_err(LabError::io(format!("start a thread for {name}")))?;
        thread.join().map_or_else(|payload| panic::resume_unwind(payload), Ok)
    })
}

/// A thread in a namespace, told to stop and awaited on drop.
#[derive(Debug)]
pub struct Spawned {
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Drop for Spawned {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // Its panic has been printed by then, and a drop must not panic.
            let _ = thread.join();
        }
    }
}

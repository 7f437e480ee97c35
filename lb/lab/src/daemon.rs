use std::{
    ffi::OsString,
    io::{BufRead as _, BufReader},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use super::{LabError, Netns, Workspace, command, command::Output, eventually, eventually_ok, manifest};

/// How long the daemon may take to stop after SIGTERM.
const STOP: Duration = Duration::from_secs(5);

/// `--xdp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XdpMode {
    /// In the driver.
    Native,
    /// In the stack.
    Generic,
    /// Not at all.
    Off,
}

impl XdpMode {
    /// As the option has it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
            Self::Off => "off",
        }
    }
}

/// Where the daemon has its objects from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// `--manifests`.
    Manifests(PathBuf),
    /// `--kubeconfig`.
    Kubernetes(PathBuf),
}

/// How to run the daemon.
#[derive(Clone, Debug)]
pub struct Options {
    /// The `portico` binary.
    pub binary: PathBuf,
    /// `--pin-dir`.
    pub pins: PathBuf,
    /// `--manifests` or `--kubeconfig`.
    pub source: Source,
    /// `--cgroup`.
    pub cgroup: PathBuf,
    /// `--interface`, each.
    pub interfaces: Vec<String>,
    /// `--xdp`.
    pub xdp: XdpMode,
    /// Further arguments of `run`.
    pub more: Vec<OsString>,
    /// Its standard error; none: a pipe, whose lines [`Daemon::stderr`] has.
    pub stderr: Option<Arc<OwnedFd>>,
    /// Run `portico cleanup` on drop.
    pub cleanup: bool,
}

impl Options {
    /// With the directories of a workspace, and native XDP.
    #[must_use]
    pub fn new(binary: impl Into<PathBuf>, workspace: &Workspace, cgroup: impl Into<PathBuf>) -> Self {
        Self {
            binary: binary.into(),
            pins: workspace.pins(),
            source: Source::Manifests(workspace.manifests()),
            cgroup: cgroup.into(),
            interfaces: Vec::new(),
            xdp: XdpMode::Native,
            more: Vec::new(),
            stderr: None,
            cleanup: true,
        }
    }
}

/// `portico run` in a namespace. Stopped on drop.
#[derive(Debug)]
pub struct Daemon {
    ns: Netns,
    options: Options,
    child: Child,
    stderr: Arc<Mutex<Vec<String>>>,
    /// Reads standard error of the process, and ends with it.
    reader: Option<JoinHandle<()>>,
}

impl Daemon {
    /// Starts it, and does not wait.
    ///
    /// # Errors
    ///
    /// When the binary cannot be started.
    pub fn start(ns: &Netns, options: Options) -> Result<Self, LabError> {
        let stderr = Arc::default();
        let (child, reader) = spawn(ns, &options, &stderr)?;
        Ok(Self { ns: ns.clone(), options, child, stderr, reader })
    }

    /// Has another version of the program started from now on.
    pub fn set_binary(&mut self, binary: &Path) {
        binary.clone_into(&mut self.options.binary);
    }

    /// Starts it again after [`Daemon::kill`] or [`Daemon::terminate`]; lines on standard error go on accumulating.
    ///
    /// # Errors
    ///
    /// When the binary cannot be started.
    pub fn start_again(&mut self) -> Result<(), LabError> {
        self.kill();
        (self.child, self.reader) = spawn(&self.ns, &self.options, &self.stderr)?;
        Ok(())
    }

    /// Waits until its status says that all sources are synced and the kernel holds what they want.
    ///
    /// # Errors
    ///
    /// When it exits before, or does not get there by the deadline; with what it wrote to standard error.
    pub fn wait_synced(&mut self, deadline: Duration) -> Result<(), LabError> {
        let mut exited = None;
        let synced = eventually_ok("the daemon is synced", deadline, || {
            exited = self.child.try_wait().ok().flatten();
            if exited.is_some() {
                return Ok(());
            }
            match self.status() {
                Ok(status) if status.get("synced") == Some(&Value::Bool(true)) => Ok(()),
                Ok(status) => Err(status.to_string()),
                Err(error) => Err(error.to_string()),
            }
        });
        match (exited, synced) {
            (Some(status), _) => Err(LabError::Command {
                command: "portico run".to_owned(),
                status: status.to_string(),
                stderr: self.stderr().join("\n"),
            }),
            (None, Err(LabError::Deadline { what, after, last })) => Err(LabError::Deadline {
                what,
                after,
                last: Some(format!("{}\n{}", last.unwrap_or_default(), self.stderr().join("\n"))),
            }),
            (None, result) => result,
        }
    }

    /// `portico status -o json`.
    ///
    /// # Errors
    ///
    /// When the command fails or prints something else.
    pub fn status(&self) -> Result<Value, LabError> {
        self.json(&["status"])
    }

    /// A command of the binary that lists something, as JSON.
    ///
    /// # Errors
    ///
    /// When the command fails or prints something else.
    pub fn json(&self, arguments: &[&str]) -> Result<Value, LabError> {
        let text = command::stdout(self.command(arguments).args(["-o", "json"]))?;
        serde_json::from_str(&text)
            .map_err(|_| LabError::Parse { what: format!("output of portico {}", arguments.join(" ")), text })
    }

    /// A command of the binary about this daemon, to run as is: in its namespace, with its pin directory.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.ns.command(&self.options.binary);
        command.args(arguments).arg("--pin-dir").arg(&self.options.pins);
        command
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it wrote to standard error so far, by line.
    #[must_use]
    pub fn stderr(&self) -> Vec<String> {
        self.stderr.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        // Fails only if it has been awaited already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGTERM, and waits for its end.
    ///
    /// # Errors
    ///
    /// When it does not end in time.
    pub fn terminate(&mut self) -> Result<ExitStatus, LabError> {
        if let (Ok(None), Ok(pid)) = (self.child.try_wait(), i32::try_from(self.child.id())) {
            kill(Pid::from_raw(pid), Signal::SIGTERM).map_err(LabError::system("stop the daemon"))?;
        }
        self.wait_exit(STOP)
    }

    /// Waits for its end.
    ///
    /// # Errors
    ///
    /// When it does not end in time.
    pub fn wait_exit(&mut self, deadline: Duration) -> Result<ExitStatus, LabError> {
        let status = eventually("the daemon ends", deadline, || self.child.try_wait().ok().flatten())?;
        // Its last words are the ones that are asked for.
        let read = || self.reader.as_ref().is_none_or(JoinHandle::is_finished).then_some(());
        eventually("standard error of the daemon is read", deadline, read)?;
        Ok(status)
    }

    /// `portico cleanup`.
    ///
    /// # Errors
    ///
    /// When the command cannot be run.
    pub fn cleanup(&self) -> Result<Output, LabError> {
        command::output(&mut self.command(&["cleanup"]))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if self.terminate().is_err() {
            self.kill();
        }
        if self.options.cleanup {
            let _ = self.cleanup();
        }
    }
}

/// The process, and what reads its standard error into `lines`.
fn spawn(
    ns: &Netns,
    options: &Options,
    lines: &Arc<Mutex<Vec<String>>>,
) -> Result<(Child, Option<JoinHandle<()>>), LabError> {
    let mut command = Command::new(&options.binary);
    command.arg("run").args(["--node-name", manifest::NODE, "--xdp", options.xdp.as_str()]);
    match &options.source {
        Source::Manifests(directory) => command.arg("--manifests").arg(directory),
        Source::Kubernetes(kubeconfig) => command.arg("--kubeconfig").arg(kubeconfig),
    };
    command.arg("--pin-dir").arg(&options.pins).arg("--cgroup").arg(&options.cgroup);
    for interface in &options.interfaces {
        command.arg("--interface").arg(interface);
    }
    command.args(&options.more);
    let stderr = match &options.stderr {
        Some(stderr) => stderr.try_clone().map_err(LabError::io("share standard error"))?.into(),
        None => Stdio::piped(),
    };
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr);
    let mut child = ns.spawn_command(command)?;
    let reader = child.stderr.take().map(|stderr| {
        let lines = Arc::clone(lines);
        // Ends with the pipe, that is with the daemon and all it started.
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                lines.lock().unwrap_or_else(PoisonError::into_inner).push(line);
            }
        })
    });
    Ok((child, reader))
}

use std::{io, path::PathBuf, time::Duration};

use nix::errno::Errno;

/// Why a part of the laboratory could not be set up or observed. Failures of the traffic that is sent through it are
/// [`super::client::FlowError`]s instead.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// A file or directory.
    #[error("cannot {op} {}", path.display())]
    File {
        /// The verb, such as "create".
        op: &'static str,
        /// On what.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A system call that is not about a path.
    #[error("cannot {op}")]
    System {
        /// What was attempted.
        op: String,
        /// The cause.
        #[source]
        source: Errno,
    },
    /// A socket, thread or process of the laboratory.
    #[error("cannot {op}")]
    Io {
        /// What was attempted.
        op: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A command ran and failed.
    #[error("`{command}` failed with {status}: {stderr}")]
    Command {
        /// The command line.
        command: String,
        /// Exit code or signal.
        status: String,
        /// What it wrote to standard error, trimmed.
        stderr: String,
    },
    /// The output of a command or a file is not what it should be.
    #[error("cannot understand {what}: {text}")]
    Parse {
        /// Whose output.
        what: String,
        /// It, or the part that matters.
        text: String,
    },
    /// Something awaited did not come.
    #[error("{what} did not happen within {after:?}{}", last.as_ref().map(|l| format!("; last: {l}")).unwrap_or_default())]
    Deadline {
        /// What was awaited.
        what: String,
        /// How long.
        after: Duration,
        /// The state at the last look.
        last: Option<String>,
    },
    /// No cgroup v2 hierarchy is mounted.
    #[error("no cgroup2 file system in /proc/self/mountinfo")]
    NoCgroup2,
}

impl LabError {
    pub(super) fn system(op: impl Into<String>) -> impl FnOnce(Errno) -> Self {
        move |source| Self::System { op: op.into(), source }
    }

    pub(super) fn io(op: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { op: op.into(), source }
    }

    pub(super) fn file(op: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::File { op, path: path.into(), source }
    }
}

//! Child processes.

use std::{
    io::{self, Write as _},
    os::unix::process::CommandExt as _,
    process::{Command, ExitStatus, Stdio},
};

use super::LabError;

/// What a finished command left.
#[derive(Clone, Debug)]
pub struct Output {
    /// Exit code; none if a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// Runs a command to its end, whatever its exit code.
///
/// # Errors
///
/// When it cannot be started.
pub fn output(command: &mut Command) -> Result<Output, LabError> {
    let output =
        command.stdin(Stdio::null()).output().map_err(LabError::io(format!("run `{}`", line(command))))?;
    Ok(Output {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// Runs a command to its end and returns its standard output; any exit code but 0 is an error.
pub(super) fn stdout(command: &mut Command) -> Result<String, LabError> {
    let Output { code, stdout, stderr } = output(command)?;
    if code == Some(0) {
        return Ok(stdout);
    }
    Err(LabError::Command {
        command: line(command),
        status: code.map_or_else(|| "a signal".to_owned(), |c| format!("exit code {c}")),
        stderr: stderr.trim().to_owned(),
    })
}

/// Runs a command with `input` as its standard input.
pub(super) fn feed(command: &mut Command, input: &str) -> Result<(), LabError> {
    let line = line(command);
    let failed = |e| LabError::Io { op: format!("run `{line}`"), source: e };
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        // A command that stops reading says why by its exit code.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().map_err(failed)?;
    check(&line, output.status, &output.stderr)
}

fn check(line: &str, status: ExitStatus, stderr: &[u8]) -> Result<(), LabError> {
    if status.success() {
        return Ok(());
    }
    Err(LabError::Command {
        command: line.to_owned(),
        status: status.to_string(),
        stderr: String::from_utf8_lossy(stderr).trim().to_owned(),
    })
}

/// The command as one would type it.
pub(super) fn line(command: &Command) -> String {
    let mut line = command.get_program().to_string_lossy().into_owned();
    for argument in command.get_args() {
        line.push(' ');
        line.push_str(&argument.to_string_lossy());
    }
    line
}

/// Runs `f` in the child before it executes the command. `f` must do nothing but system calls: no allocation, no
/// locks.
pub(super) fn before_exec(command: &mut Command, f: impl FnMut() -> io::Result<()> + Send + Sync + 'static) {
    // SAFETY: all closures given here only make system calls on descriptors they own, which is safe after a fork
    // from a process with many threads.
    unsafe {
        command.pre_exec(f);
    }
}

//! Running `nft`.

use std::{
    collections::VecDeque,
    ffi::OsString,
    io::{self, BufRead, BufReader, ErrorKind, Read, Write},
    process::{Child, ChildStderr, Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
};

use super::Error;

/// How much of the error output is looked at; nft repeats itself for each element of a transaction.
const ERROR_BYTES: u64 = 4096;

/// Changes of ours that a watcher may still have to recognise.
const OWN_CHANGES: usize = 1024;

/// The command.
#[derive(Clone, Debug)]
pub(super) struct Process {
    binary: OsString,
    pub(super) own: Own,
}

impl Process {
    pub(super) fn new(binary: OsString) -> Self {
        Self { binary, own: Own::default() }
    }

    /// Runs `nft -f -` on a script, which is one transaction.
    pub(super) fn write(&self, attempt: &'static str, script: &str) -> Result<(), Error> {
        let mut child = self.spawn(attempt, &["-f", "-"], Stdio::piped(), Stdio::null())?;
        self.own.add(child.id());
        if let Some(mut stdin) = child.stdin.take() {
            match stdin.write_all(script.as_bytes()) {
                // It stopped reading because it stopped; its exit code says why.
                Err(error) if error.kind() != ErrorKind::BrokenPipe => {
                    drop(stdin);
                    let _ = child.wait();
                    return Err(self.failed(attempt, error));
                }
                _ => {}
            }
        }
        self.finish(attempt, child)
    }

    /// Runs `nft` with these arguments and lets `read` consume its output as it comes.
    pub(super) fn read<T>(
        &self,
        attempt: &'static str,
        arguments: &[&str],
        read: impl FnOnce(&mut dyn BufRead) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let mut child = self.spawn(attempt, arguments, Stdio::null(), Stdio::piped())?;
        let mut output: Box<dyn BufRead> = match child.stdout.take() {
            Some(stdout) => Box::new(BufReader::with_capacity(1 << 16, stdout)),
            None => Box::new(io::empty()),
        };
        let value = read(&mut output);
        // Cut off, nft would fail for that reason, and hide why the rest was not wanted.
        io::copy(&mut output, &mut io::sink()).map_err(|error| self.failed(attempt, error))?;
        // Where nft failed, its own words explain more than those about half an output.
        self.finish(attempt, child)?;
        value
    }

    pub(super) fn failed(&self, attempt: &'static str, source: io::Error) -> Error {
        Error::Run { attempt, binary: self.binary.clone(), source }
    }

    fn spawn(
        &self,
        attempt: &'static str,
        arguments: &[&str],
        stdin: Stdio,
        stdout: Stdio,
    ) -> Result<Child, Error> {
        let mut command = Command::new(&self.binary);
        command.args(arguments).stdin(stdin).stdout(stdout).stderr(Stdio::piped()).env("LC_ALL", "C");
        command.spawn().map_err(|error| match error.kind() {
            ErrorKind::NotFound => Error::Missing { attempt, binary: self.binary.clone() },
            _ => self.failed(attempt, error),
        })
    }

    fn finish(&self, attempt: &'static str, mut child: Child) -> Result<(), Error> {
        let message = child.stderr.take().map(first_line).transpose();
        let status = child.wait().map_err(|error| self.failed(attempt, error))?;
        let message = message.map_err(|error| self.failed(attempt, error))?.unwrap_or_default();
        match status.success() {
            true => Ok(()),
            false if message.is_empty() => Err(Error::Refused { attempt, message: status.to_string() }),
            false => Err(Error::Refused { attempt, message }),
        }
    }
}

/// The first line, after reading all: a child that cannot write on does not end.
fn first_line(mut stderr: ChildStderr) -> io::Result<String> {
    let mut start = Vec::new();
    stderr.by_ref().take(ERROR_BYTES).read_to_end(&mut start)?;
    io::copy(&mut stderr, &mut io::sink())?;
    Ok(String::from_utf8_lossy(&start).lines().next().unwrap_or_default().trim().to_owned())
}

/// Netlink ports of our own `nft` processes. The kernel gives the first socket of a process the process id, as seen
/// in its own pid namespace, so unlike the pid in the message it is comparable inside a container.
#[derive(Clone, Debug, Default)]
pub(super) struct Own(Arc<Mutex<VecDeque<u32>>>);

impl Own {
    fn add(&self, port: u32) {
        let mut ports = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if ports.len() == OWN_CHANGES {
            ports.pop_front();
        }
        ports.push_back(port);
    }

    /// Whether a change came from one of ours, each of which makes one at most.
    pub(super) fn take(&self, port: u32) -> bool {
        let mut ports = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = ports.iter().position(|own| *own == port);
        found.is_some_and(|index| ports.remove(index).is_some())
    }
}

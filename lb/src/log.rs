//! The log: lines on standard error, and what becomes of those that cannot be written.
//!
//! Nobody waits for the log. Lines go to a thread of their own, which writes them; where standard error is a full disk or
//! a pipe whose reader has ended, a line is lost, and where a reader does not read, the thread waits and lines beyond
//! [`WAITING`] bytes are lost. Lost lines are counted, see [`lost`].

use std::{
    fs::File,
    io::{self, IsTerminal as _, Write},
    os::fd::{AsFd as _, BorrowedFd},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
        mpsc::{Receiver, Sender, SyncSender, channel, sync_channel},
    },
    thread,
    time::Duration,
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tracing_subscriber::EnvFilter;

use crate::text;

/// Bytes of lines that wait for a reader.
const WAITING: usize = 4 << 20;
/// The most bytes of a line.
const LINE: usize = 16 << 10;
/// For how long the end of the process waits for its last lines to be read.
const PATIENCE: Duration = Duration::from_secs(1);

static LOST: AtomicU64 = AtomicU64::new(0);

/// How many lines of this process's log were lost.
#[must_use]
pub fn lost() -> u64 {
    LOST.load(Ordering::Relaxed)
}

/// Begins to log, until the process ends. `filter` says what, unless `$RUST_LOG` does.
///
/// # Errors
///
/// No thread can be started.
pub fn start(filter: &str) -> io::Result<Log> {
    // A descriptor of its own: the one of the standard library is locked while somebody writes.
    let target = io::stderr().as_fd().try_clone_to_owned().map(File::from);
    let queue = Queue::start(target)?;
    let log = Log { queue: queue.clone() };
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(filter)))
        .with_writer(Arc::new(queue))
        .with_ansi(io::stderr().is_terminal())
        .with_target(false)
        // It would tell of them on standard error, and end the process if that fails, too.
        .log_internal_errors(false)
        .init();
    Ok(log)
}

/// Has the last lines written when it is dropped, if they can be written soon.
#[derive(Debug)]
#[must_use]
pub struct Log {
    queue: Queue,
}

impl Drop for Log {
    fn drop(&mut self) {
        self.queue.flush(PATIENCE);
    }
}

enum Message {
    Line(Vec<u8>),
    /// All before it is written.
    Flush(SyncSender<()>),
}

/// Lines on their way to the thread.
#[derive(Clone, Debug)]
struct Queue {
    sender: Sender<Message>,
    waiting: Arc<AtomicUsize>,
}

impl Queue {
    fn start<W: Write + Send + 'static>(target: io::Result<W>) -> io::Result<Self> {
        let (sender, receiver) = channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        let left = Arc::clone(&waiting);
        thread::Builder::new().name("log".to_owned()).spawn(move || write(target, &receiver, &left))?;
        Ok(Self { sender, waiting })
    }

    /// Never waits.
    fn put(&self, event: &[u8]) {
        let line = one_line(event);
        let length = line.len();
        let full = self.waiting.fetch_add(length, Ordering::Relaxed) + length > WAITING;
        if full || self.sender.send(Message::Line(line)).is_err() {
            self.waiting.fetch_sub(length, Ordering::Relaxed);
            LOST.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn flush(&self, patience: Duration) {
        let (done, wait) = sync_channel(1);
        if self.sender.send(Message::Flush(done)).is_ok() {
            // Who does not read by then has no more use for it.
            let _ = wait.recv_timeout(patience);
        }
    }
}

/// What the subscriber writes to. It writes each event at once.
impl Write for &Queue {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        self.put(event);
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn write(target: io::Result<impl Write>, messages: &Receiver<Message>, waiting: &AtomicUsize) {
    let mut target = target.ok();
    for message in messages {
        match message {
            Message::Line(line) => {
                let written = target.as_mut().is_some_and(|target| target.write_all(&line).is_ok());
                waiting.fetch_sub(line.len(), Ordering::Relaxed);
                if !written {
                    LOST.fetch_add(1, Ordering::Relaxed);
                }
            }
            Message::Flush(done) => {
                let _ = done.try_send(());
            }
        }
    }
}

/// An event on one line of limited length. The values in it have been escaped, but for line breaks.
fn one_line(event: &[u8]) -> Vec<u8> {
    let event = event.strip_suffix(b"\n").unwrap_or(event);
    let end = event.len().min(LINE);
    // Not within a character.
    let end =
        (0..=end).rev().find(|end| event.get(*end).is_none_or(|byte| byte & 0xc0 != 0x80)).unwrap_or(end);
    let mut line = Vec::with_capacity(end + 1);
    for byte in &event[..end] {
        match byte {
            b'\n' => line.extend_from_slice(b"\\n"),
            b'\r' => line.extend_from_slice(b"\\r"),
            byte => line.push(*byte),
        }
    }
    if end < event.len() {
        // The cut may be within a coloured part.
        if event.contains(&0x1b) {
            line.extend_from_slice(b"\x1b[0m");
        }
        line.extend_from_slice(format!("... ({} bytes)", event.len()).as_bytes());
    }
    line.push(b'\n');
    line
}

/// Says something on standard error, in one line, as the last thing that a command does. If it cannot be written, or
/// nobody reads it soon, it is not said.
pub fn say(message: &str) {
    say_all(&text::line(message));
}

/// As [`say`], of any number of lines.
pub(crate) fn say_all(message: &str) {
    let stderr = io::stderr();
    let ready = |fd: BorrowedFd<'_>| {
        let patience = PollTimeout::try_from(PATIENCE).unwrap_or(PollTimeout::ZERO);
        poll(&mut [PollFd::new(fd, PollFlags::POLLOUT)], patience).is_ok_and(|ready| ready > 0)
    };
    // A pipe that is ready has room for so much.
    for part in format!("{message}\n").as_bytes().chunks(libc::PIPE_BUF) {
        if !ready(stderr.as_fd()) || (&stderr).write_all(part).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line_of_limited_length() {
        assert_eq!(one_line(b"a b\n"), b"a b\n");
        assert_eq!(one_line(b"a\nb\r\nc\n"), b"a\\nb\\r\\nc\n");
        let long = one_line("\u{e4}".repeat(LINE).as_bytes());
        assert!(long.len() < LINE + 32);
        assert!(String::from_utf8(long).unwrap().ends_with(&format!("... ({} bytes)\n", 2 * LINE)));
        let odd = one_line(format!("x\x1b[31m{}\n", "\u{e4}".repeat(LINE)).as_bytes());
        assert!(String::from_utf8(odd).unwrap().contains("\x1b[0m..."));
    }

    /// A reader that does not read until it is told to.
    struct Slow(Receiver<()>);

    impl Write for Slow {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            let _ = self.0.recv();
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_a_reader_does_not_read_takes_limited_memory() {
        let (read, slow) = channel();
        let queue = Queue::start(Ok(Slow(slow))).unwrap();
        let before = lost();
        let lines = 3 * WAITING / LINE;
        for _ in 0..lines {
            queue.put(&[b'x'; LINE - 1]);
        }
        assert!(queue.waiting.load(Ordering::Relaxed) <= WAITING);
        let kept = WAITING / LINE;
        assert!(lost() - before >= (lines - kept - 1) as u64);
        queue.flush(Duration::ZERO);
        drop(read);
        queue.flush(10 * PATIENCE);
        assert_eq!(queue.waiting.load(Ordering::Relaxed), 0);
    }
}

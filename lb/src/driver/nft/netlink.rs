//! The socket to nf_tables, and its protocol: what an answer is, when a transaction was committed, when a list is whole.
//!
//! The kernel works on a request while it is being sent, so its answers are there when sending returns. It sends the
//! errors of a transaction first, one for each message that has one, and then what was asked to be acknowledged: the last
//! change. It acknowledges it even if another was refused, so only an acknowledgement without errors means committed.

use std::{
    collections::VecDeque,
    io,
    os::fd::{AsFd, AsRawFd as _},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use netlink_packet_core::{
    NLM_F_DUMP_INTR, NLMSG_ALIGNTO, NLMSG_DONE, NLMSG_ERROR, NLMSG_NOOP, NLMSG_OVERRUN, NlaBuffer,
    NlasIterator,
};
use netlink_sys::{Socket, protocols::NETLINK_NETFILTER};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{MsgFlags, recv, send, setsockopt, sockopt},
};

use super::{
    Error,
    message::{Batch, Request, SUBSYSTEM, TABLE, TRANSACTION},
};

/// For how long the kernel's answer is waited for, and a list begun anew that others interrupt by their changes. 200,000
/// elements are written in less than a second.
pub(super) const DEADLINE: Duration = Duration::from_secs(10);
/// Time between the end of a list that was interrupted and the next.
const PAUSE: Duration = Duration::from_millis(10);
/// The kernel fills at most 32 KiB at a time.
const BUFFER: usize = 1 << 16;
/// For the errors of a transaction, one for each message: enough for some thousand.
const ERRORS: usize = 4 << 20;
/// Header of a message: length, type, flags, sequence number, port.
const HEADER: usize = 16;
/// `struct nfgenmsg`: family, version, generation of the ruleset.
const FAMILY: usize = 4;

/// Changes of ours that a watcher may still have to recognise.
const OWN_CHANGES: usize = 1024;

/// Netlink ports that our changes came from.
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

/// What the protocol needs of a socket.
pub(super) trait Transport {
    /// Sends all of it as one.
    fn send(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Receives one datagram; [`io::ErrorKind::TimedOut`] if there is none by then.
    fn receive(&mut self, buffer: &mut [u8], until: Instant) -> io::Result<usize>;
}

/// A netlink socket. It belongs to the network namespace of the thread that opened it.
pub(super) struct Wire<F = Socket>(F);

impl Wire {
    /// Opens it, and returns its port.
    pub(super) fn open() -> io::Result<(Self, u32)> {
        let bound = || {
            let mut socket = Socket::new(NETLINK_NETFILTER)?;
            let port = socket.bind_auto()?.port_number();
            Ok::<_, io::Error>((socket, port))
        };
        let first = bound()?;
        // The first socket of a process gets the process's id for a port, as does that of a process with this id in
        // another pid namespace. Further ones get negative numbers by chance, by which changes can be recognised.
        let (socket, port) = if (first.1 as i32) < 0 { first } else { bound()? };
        socket.set_cap_ack(true)?;
        socket.set_ext_ack(true)?;
        Ok((Self(socket), port))
    }
}

impl<F: AsFd> Transport for Wire<F> {
    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let fd = self.0.as_fd();
        // What is smaller is sent with the limits that any process has.
        if bytes.len() > BUFFER {
            setsockopt(&fd, sockopt::SndBufForce, &(bytes.len() + BUFFER))?;
            setsockopt(&fd, sockopt::RcvBufForce, &ERRORS)?;
        }
        loop {
            match send(fd.as_raw_fd(), bytes, MsgFlags::empty()) {
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
                Ok(sent) if sent == bytes.len() => return Ok(()),
                Ok(_) => return Err(io::ErrorKind::WriteZero.into()),
            }
        }
    }

    fn receive(&mut self, buffer: &mut [u8], until: Instant) -> io::Result<usize> {
        let fd = self.0.as_fd();
        loop {
            match recv(fd.as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_TRUNC) {
                Ok(length) if length > buffer.len() => {
                    return Err(io::Error::other("an answer longer than the kernel makes them"));
                }
                Ok(length) => return Ok(length),
                Err(Errno::EINTR) => continue,
                Err(Errno::EAGAIN) => {}
                Err(errno) => return Err(errno.into()),
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            // At least a millisecond, or the last one would be spent in a loop.
            let wait = PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
            match poll(&mut [PollFd::new(fd, PollFlags::POLLIN)], wait) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

/// One message in a datagram.
struct Message<'a> {
    kind: u16,
    flags: u16,
    sequence: u32,
    payload: &'a [u8],
}

/// The messages of a datagram, until one that is cut off.
fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let (header, _) = bytes.split_first_chunk::<HEADER>()?;
        let [l0, l1, l2, l3, k0, k1, f0, f1, s0, s1, s2, s3, ..] = *header;
        let length = u32::from_ne_bytes([l0, l1, l2, l3]) as usize;
        let payload = bytes.get(HEADER..length)?;
        bytes = bytes.get(length.next_multiple_of(NLMSG_ALIGNTO as usize)..).unwrap_or_default();
        Some(Message {
            kind: u16::from_ne_bytes([k0, k1]),
            flags: u16::from_ne_bytes([f0, f1]),
            sequence: u32::from_ne_bytes([s0, s1, s2, s3]),
            payload,
        })
    })
}

/// What the kernel says to a message: nothing if all is well.
#[derive(Debug, PartialEq, Eq)]
struct Refusal {
    errno: Errno,
    /// In words of the kernel's, if it has any.
    words: Option<String>,
}

/// Reads a message of type `NLMSG_ERROR` or `NLMSG_DONE`.
fn outcome(message: &Message<'_>) -> Result<(), Refusal> {
    /// `NLMSGERR_ATTR_MSG`.
    const WORDS: u16 = 1;
    /// `NLM_F_ACK_TLVS`.
    const HAS_ATTRIBUTES: u16 = 0x200;
    let Some((code, rest)) = message.payload.split_first_chunk::<4>() else { return Ok(()) };
    let errno = match i32::from_ne_bytes(*code) {
        0.. => return Ok(()),
        negative => Errno::from_raw(-negative),
    };
    // An error repeats the header of what it is about, and no more (`NETLINK_CAP_ACK`); the end of a list does not.
    let skip = if message.kind == NLMSG_ERROR { HEADER } else { 0 };
    let attributes = (message.flags & HAS_ATTRIBUTES != 0).then(|| rest.get(skip..)).flatten();
    let words = attributes.and_then(|attributes| {
        let mut found = NlasIterator::new(attributes).filter_map(Result::ok);
        let words: NlaBuffer<&[u8]> = found.find(|attribute| attribute.kind() == WORDS)?;
        let words = words.value();
        Some(String::from_utf8_lossy(words.strip_suffix(&[0]).unwrap_or(words)).into_owned())
    });
    Err(Refusal { errno, words })
}

fn refused(attempt: &str, subject: &str, Refusal { errno, words }: Refusal) -> Error {
    let attempt = attempt.to_owned();
    match errno {
        Errno::EPERM | Errno::EACCES => Error::Permission { attempt },
        // No such subsystem, no such family of tables.
        Errno::EOPNOTSUPP if subject == TRANSACTION => Error::Missing { attempt, source: errno.into() },
        Errno::EAFNOSUPPORT if subject == TABLE => Error::Missing { attempt, source: errno.into() },
        errno => Error::Refused { attempt, subject: subject.to_owned(), words, source: errno.into() },
    }
}

fn failed(attempt: &str, source: io::Error) -> Error {
    let attempt = attempt.to_owned();
    match source.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EPERM | Errno::EACCES) => Error::Permission { attempt },
        Some(Errno::EPROTONOSUPPORT | Errno::EAFNOSUPPORT) => Error::Missing { attempt, source },
        _ if source.kind() == io::ErrorKind::TimedOut => {
            Error::Deadline { attempt, seconds: DEADLINE.as_secs() }
        }
        _ => Error::Socket { attempt, source },
    }
}

/// Opens a socket for one operation.
pub(super) fn open(attempt: &str) -> Result<(Wire, u32), Error> {
    Wire::open().map_err(|source| failed(attempt, source))
}

/// Sends a transaction, from a socket of its own. A watcher takes it for one of ours.
pub(super) fn commit(own: &Own, attempt: &str, batch: &Batch) -> Result<(), Error> {
    let (mut wire, port) = open(attempt)?;
    own.add(port);
    transact(&mut wire, attempt, batch, Instant::now() + DEADLINE)
}

/// Sends a transaction and makes sure that it was committed.
fn transact(wire: &mut impl Transport, attempt: &str, batch: &Batch, until: Instant) -> Result<(), Error> {
    wire.send(&batch.bytes).map_err(|source| failed(attempt, source))?;
    let mut buffer = vec![0; BUFFER];
    let mut until = until;
    let mut refusal = None;
    let mut lost = false;
    let mut complete = false;
    while !complete {
        let length = match wire.receive(&mut buffer, until) {
            Ok(length) => length,
            // There were more answers than fit. The first ones are there, and no more will come.
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                lost = true;
                until = Instant::now();
                continue;
            }
            Err(error) if error.kind() == io::ErrorKind::TimedOut && lost => break,
            Err(source) => return Err(failed(attempt, source)),
        };
        for message in messages(&buffer[..length]).filter(|message| message.kind == NLMSG_ERROR) {
            if let Err(reason) = outcome(&message) {
                refusal.get_or_insert((message.sequence, reason));
            }
            // Sequence number 0 is that of the transaction as a whole.
            complete |= message.sequence == batch.acknowledged || message.sequence == 0;
        }
    }
    match refusal {
        None if lost => Err(Error::Lost { attempt: attempt.to_owned() }),
        None => Ok(()),
        Some((sequence, reason)) => {
            let subject = batch.subjects.get(sequence as usize).map_or(TRANSACTION, String::as_str);
            Err(refused(attempt, subject, reason))
        }
    }
}

/// What an answer belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Listed {
    /// All of it, from this generation of the ruleset; none if there is nothing.
    Whole(Option<u16>),
    /// Somebody changed the ruleset meanwhile: something may be missing, or there twice.
    Interrupted,
}

/// Asks for a list, and passes the attributes of each answer on.
pub(super) fn list(
    wire: &mut impl Transport,
    attempt: &str,
    request: Request<'_>,
    until: Instant,
    mut each: impl FnMut(&[u8]) -> Result<(), netlink_packet_core::DecodeError>,
) -> Result<Listed, Error> {
    wire.send(&request.bytes()).map_err(|source| failed(attempt, source))?;
    let mut buffer = vec![0; BUFFER];
    let mut generation = None;
    let mut interrupted = false;
    loop {
        let length = match wire.receive(&mut buffer, until) {
            Ok(length) => length,
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                interrupted = true;
                continue;
            }
            Err(source) => return Err(failed(attempt, source)),
        };
        for message in messages(&buffer[..length]) {
            interrupted |= message.flags & NLM_F_DUMP_INTR != 0;
            match message.kind {
                NLMSG_DONE | NLMSG_ERROR => {
                    return match outcome(&message) {
                        Err(Refusal { errno: Errno::EINTR | Errno::EAGAIN | Errno::EBUSY, .. }) => {
                            Ok(Listed::Interrupted)
                        }
                        // There is nothing in this request that could be invalid: nobody takes it.
                        Err(Refusal { errno: errno @ Errno::EINVAL, .. }) if request == Request::Tables => {
                            Err(Error::Missing { attempt: attempt.to_owned(), source: errno.into() })
                        }
                        Err(reason) => Err(refused(attempt, "the request", reason)),
                        Ok(()) if interrupted => Ok(Listed::Interrupted),
                        Ok(()) => Ok(Listed::Whole(generation)),
                    };
                }
                NLMSG_OVERRUN => interrupted = true,
                NLMSG_NOOP => {}
                kind if kind >> 8 == u16::from(SUBSYSTEM) => {
                    let Some((&[_, _, high, low], attributes)) =
                        message.payload.split_first_chunk::<FAMILY>()
                    else {
                        let source = "a message without header".into();
                        return Err(Error::Answer { attempt: attempt.to_owned(), source });
                    };
                    let of = u16::from_be_bytes([high, low]);
                    interrupted |= *generation.get_or_insert(of) != of;
                    each(attributes)
                        .map_err(|source| Error::Answer { attempt: attempt.to_owned(), source })?;
                }
                _ => {}
            }
        }
    }
}

/// Lists until nobody has changed the ruleset meanwhile, or the deadline is over.
pub(super) fn uninterrupted<T>(
    attempt: &str,
    mut read: impl FnMut(&mut Wire, Instant) -> Result<Option<T>, Error>,
) -> Result<T, Error> {
    let until = Instant::now() + DEADLINE;
    loop {
        // A new socket, with nothing in it that belongs to the former attempt.
        let (mut wire, _) = open(attempt)?;
        if let Some(value) = read(&mut wire, until)? {
            return Ok(value);
        }
        if Instant::now() >= until {
            return Err(Error::Interrupted { attempt: attempt.to_owned(), seconds: DEADLINE.as_secs() });
        }
        // Whoever changes the ruleset may be done soon.
        thread::sleep(PAUSE);
    }
}

#[cfg(test)]
mod tests;

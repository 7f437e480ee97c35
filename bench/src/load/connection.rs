//! A client's end of a connection.

use std::{
    collections::VecDeque,
    io::{self, ErrorKind, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpStream},
    os::fd::AsRawFd as _,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    libc,
    sys::socket::{
        AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, setsockopt, socket, sockopt,
    },
};

use super::MESSAGE;

/// On which requests go out.
#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    /// When requests were due that have no answer.
    pending: VecDeque<Instant>,
    /// Bytes of them that are not sent.
    unsent: usize,
    /// Bytes of the next answer.
    received: usize,
    /// When there was an answer last.
    pub(super) answered: Instant,
    /// The longest time without one, so far.
    pub(super) longest: Duration,
}

impl Connection {
    /// Starts to connect from the namespace of the calling thread, or connects and waits for `patience`.
    pub(super) fn open(from: IpAddr, to: SocketAddr, patience: Option<Duration>) -> io::Result<Self> {
        let family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let stream = TcpStream::from(socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?);
        stream.set_nodelay(true)?;
        // The port is left to connect(2), which knows that it may be used again for another destination.
        late_port(&stream)?;
        bind(stream.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(from, 0)))?;
        if let Some(patience) = patience {
            stream.set_write_timeout(Some(patience))?;
        } else {
            stream.set_nonblocking(true)?;
        }
        match connect(stream.as_raw_fd(), &SockaddrStorage::from(to)) {
            Ok(()) => {}
            Err(Errno::EINPROGRESS) if patience.is_none() => {}
            Err(Errno::EINPROGRESS) => return Err(ErrorKind::TimedOut.into()),
            Err(error) => return Err(error.into()),
        }
        stream.set_nonblocking(true)?;
        let now = Instant::now();
        Ok(Self {
            stream,
            pending: VecDeque::new(),
            unsent: 0,
            received: 0,
            answered: now,
            longest: Duration::ZERO,
        })
    }

    pub(super) const fn socket(&self) -> &TcpStream {
        &self.stream
    }

    /// A connection that is given up leaves nothing behind: neither waiting data nor `TIME_WAIT`.
    pub(super) fn abort(self) {
        // It is closed either way.
        let _ = setsockopt(&self.stream, sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 0 });
    }

    /// The oldest request without an answer.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.pending.front().copied()
    }

    /// Sends a request that was due at some time, or does so as soon as it can be sent.
    pub(super) fn ask(&mut self, due: Instant) -> io::Result<()> {
        self.pending.push_back(due);
        self.unsent += MESSAGE;
        self.flush()
    }

    /// Sends what could not be sent before. A connection that is not open yet is no error.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        let bytes = [0x70; 64 * MESSAGE];
        while self.unsent > 0 {
            match self.stream.write(bytes.get(..self.unsent).unwrap_or(&bytes)) {
                Ok(count) => self.unsent -= count,
                Err(error) if waits(&error) => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Takes all answers there are: when their requests were due.
    pub(super) fn answers(&mut self) -> io::Result<Vec<Instant>> {
        let mut buffer = [0; 64 * MESSAGE];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(count) => self.received += count,
                Err(error) if waits(&error) => break,
                Err(error) => return Err(error),
            }
        }
        let complete = (self.received / MESSAGE).min(self.pending.len());
        self.received -= complete * MESSAGE;
        Ok(self.pending.drain(..complete).collect())
    }
}

fn waits(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected)
}

/// `IP_BIND_ADDRESS_NO_PORT`, which serves IPv6 sockets too.
fn late_port(stream: &TcpStream) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the value outlives the call and is as long as is said.
    let result = unsafe {
        libc::setsockopt(
            stream.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_BIND_ADDRESS_NO_PORT,
            (&raw const on).cast(),
            size_of_val(&on) as libc::socklen_t,
        )
    };
    Ok(Errno::result(result).map(drop)?)
}

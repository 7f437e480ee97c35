use std::{
    io::{self, BufReader, Read as _, Write as _},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    os::fd::AsRawFd as _,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::socket::{
        AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, setsockopt, socket, sockopt,
    },
};

use super::{
    super::{LabError, http, server::CHUNK},
    Answer, FlowError,
};

/// Longest text answer.
const TEXT: u64 = 4 << 10;

/// What to download.
#[derive(Clone, Copy, Debug)]
pub enum Body {
    /// So many bytes, at once.
    Bytes(u64),
    /// So many chunks of 16 KiB with a pause between them.
    Slow(u64, Duration),
}

impl Body {
    fn path(self) -> String {
        match self {
            Self::Bytes(n) => format!("/bytes/{n}"),
            Self::Slow(n, pause) => format!("/slow/{n}/{}", pause.as_millis()),
        }
    }
}

/// A TCP connection on which one can ask again and again.
#[derive(Debug)]
pub struct Connection {
    reader: BufReader<TcpStream>,
}

impl Connection {
    /// Connects from the namespace of the calling thread; `timeout` is for the connect and every read and write.
    ///
    /// # Errors
    ///
    /// Why it could not be opened.
    pub fn open(to: SocketAddr, timeout: Duration) -> Result<Self, FlowError> {
        Self::of(TcpStream::connect_timeout(&to, timeout)?, timeout)
    }

    /// As [`Connection::open`], from this port of any address.
    ///
    /// # Errors
    ///
    /// Why it could not be opened; the port may be taken.
    pub fn open_from(port: u16, to: SocketAddr, timeout: Duration) -> Result<Self, FlowError> {
        let (family, any) = match to {
            SocketAddr::V4(_) => (AddressFamily::Inet, SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))),
            SocketAddr::V6(_) => (AddressFamily::Inet6, SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))),
        };
        let socket =
            socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).map_err(io::Error::from)?;
        let stream = TcpStream::from(socket);
        setsockopt(&stream, sockopt::ReuseAddr, &true).map_err(io::Error::from)?;
        // It is for connect(2), too.
        stream.set_write_timeout(Some(timeout))?;
        bind(stream.as_raw_fd(), &SockaddrStorage::from(any)).map_err(io::Error::from)?;
        connect(stream.as_raw_fd(), &SockaddrStorage::from(to)).map_err(|errno| match errno {
            Errno::EINPROGRESS => FlowError::TimedOut,
            errno => io::Error::from(errno).into(),
        })?;
        Self::of(stream, timeout)
    }

    fn of(stream: TcpStream, timeout: Duration) -> Result<Self, FlowError> {
        stream.set_read_timeout(Some(timeout))?;
        stream.set_write_timeout(Some(timeout))?;
        stream.set_nodelay(true)?;
        Ok(Self { reader: BufReader::new(stream) })
    }

    /// The own address.
    ///
    /// # Errors
    ///
    /// When the socket has none.
    pub fn local(&self) -> Result<SocketAddr, FlowError> {
        Ok(self.reader.get_ref().local_addr()?)
    }

    /// The other address, as `getpeername` tells it.
    ///
    /// # Errors
    ///
    /// When the connection is no more.
    pub fn peer(&self) -> Result<SocketAddr, FlowError> {
        Ok(self.reader.get_ref().peer_addr()?)
    }

    /// Asks who is there.
    ///
    /// # Errors
    ///
    /// Why there was no answer; the connection is of no use then.
    pub fn get(&mut self) -> Result<Answer, FlowError> {
        self.request("GET / HTTP/1.1\r\nHost: lab\r\n\r\n")?;
        Answer::parse(&self.text()?)
    }

    /// Sends a byte and returns the one that comes back, from a server that does no more than that; then waits for it to
    /// close.
    ///
    /// # Errors
    ///
    /// Why none came, or something after it.
    pub fn echo(mut self, byte: u8) -> Result<u8, FlowError> {
        self.reader.get_mut().write_all(&[byte])?;
        let mut answer = Vec::new();
        self.reader.read_to_end(&mut answer)?;
        match answer.as_slice() {
            [byte] => Ok(*byte),
            other => Err(FlowError::BadAnswer(format!("{other:?}"))),
        }
    }

    /// Sends so many bytes and has the server compare them with what they should be.
    ///
    /// # Errors
    ///
    /// Why they did not all arrive in order.
    pub fn upload(&mut self, length: u64) -> Result<(), FlowError> {
        self.request(&format!("POST / HTTP/1.1\r\nHost: lab\r\nContent-Length: {length}\r\n\r\n"))?;
        let mut sent = 0;
        let mut chunk = [0; CHUNK];
        while sent < length {
            let part = part(&mut chunk, length - sent);
            http::fill(sent, part);
            self.reader.get_mut().write_all(part)?;
            sent += part.len() as u64;
        }
        let text = self.text()?;
        match text.trim_end().rsplit_once(' ') {
            Some((_, count)) if count.parse() == Ok(length) => Ok(()),
            _ => Err(FlowError::BadAnswer(text)),
        }
    }

    /// Starts a download on this connection, in a thread.
    ///
    /// # Errors
    ///
    /// When the request cannot be sent.
    pub fn download(mut self, body: Body) -> Result<Download, FlowError> {
        self.request(&format!("GET {} HTTP/1.1\r\nHost: lab\r\n\r\n", body.path()))?;
        let received = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&received);
        let thread = thread::Builder::new()
            .name("download".to_owned())
            .spawn(move || self.receive(&count))
            .map_err(LabError::io("start a download"))?;
        Ok(Download { received, thread })
    }

    fn request(&mut self, head: &str) -> Result<(), FlowError> {
        Ok(self.reader.get_mut().write_all(head.as_bytes())?)
    }

    fn text(&mut self) -> Result<String, FlowError> {
        let length = self.head()?;
        let mut text = String::new();
        (&mut self.reader).take(length.min(TEXT)).read_to_string(&mut text)?;
        if (text.len() as u64) < length { Err(FlowError::Closed) } else { Ok(text) }
    }

    fn receive(mut self, count: &AtomicU64) -> Result<u64, FlowError> {
        let length = self.head()?;
        let mut received = 0;
        let mut chunk = [0; CHUNK];
        while received < length {
            let part = part(&mut chunk, length - received);
            let n = self.reader.read(part)?;
            let (part, _) = part.split_at(n);
            if part.is_empty() {
                return Err(FlowError::Closed);
            }
            if let Some(at) = http::mismatch(received, part) {
                return Err(FlowError::BadAnswer(format!("pattern broken at byte {at}")));
            }
            received += part.len() as u64;
            count.store(received, Ordering::Relaxed);
        }
        Ok(received)
    }

    /// Reads a head and returns the length of the body.
    fn head(&mut self) -> Result<u64, FlowError> {
        let head = http::read_head(&mut self.reader)?.ok_or(FlowError::Closed)?;
        if head.start.split(' ').nth(1) == Some("200") {
            Ok(head.length)
        } else {
            Err(FlowError::BadAnswer(head.start))
        }
    }
}

/// The beginning of `chunk`, at most `rest` bytes.
fn part(chunk: &mut [u8; CHUNK], rest: u64) -> &mut [u8] {
    chunk.split_at_mut(usize::try_from(rest).unwrap_or(CHUNK).min(CHUNK)).0
}

/// A download in progress. Every byte is compared with what it should be.
#[derive(Debug)]
pub struct Download {
    received: Arc<AtomicU64>,
    thread: JoinHandle<Result<u64, FlowError>>,
}

impl Download {
    /// Bytes received so far.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Waits for the end and returns the number of bytes. It comes, because the connection has timeouts.
    ///
    /// # Errors
    ///
    /// Why it is not complete and intact.
    pub fn finish(self) -> Result<u64, FlowError> {
        self.thread.join().map_err(|_| FlowError::BadAnswer("the download's thread panicked".to_owned()))?
    }
}

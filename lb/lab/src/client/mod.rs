//! Traffic towards a [`super::Server`], and what came of it.

mod fragment;
mod ping;
mod segment;
mod tcp;
mod udp;

pub use fragment::fragments;
pub use segment::{Flags, segment};
pub use tcp::{Body, Connection, Download};
pub use udp::{Datagram, UdpFlow};

use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use super::{LabError, Netns, eventually};

/// How long to wait for an answer unless said otherwise.
pub const TIMEOUT: Duration = Duration::from_secs(2);

/// What `GET /` said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Name of the backend.
    pub backend: String,
    /// The client as the backend sees it.
    pub seen_source: SocketAddr,
}

impl Answer {
    fn parse(line: &str) -> Result<Self, FlowError> {
        let parse = || {
            let (backend, source) = line.trim_end().split_once(' ')?;
            Some(Self { backend: backend.to_owned(), seen_source: source.parse().ok()? })
        };
        parse().ok_or_else(|| FlowError::BadAnswer(format!("not `NAME ADDRESS`: {line:?}")))
    }
}

/// Why there was no proper answer.
#[derive(Debug, thiserror::Error)]
pub enum FlowError {
    /// TCP RST to a SYN, or ICMP port unreachable.
    #[error("connection refused")]
    Refused,
    /// Silence.
    #[error("timed out")]
    TimedOut,
    /// TCP RST on a connection.
    #[error("connection reset")]
    Reset,
    /// Another ICMP unreachable, or no route.
    #[error("unreachable")]
    Unreachable,
    /// The other side closed the connection before it was done.
    #[error("closed early")]
    Closed,
    /// Bytes came that are wrong.
    #[error("bad answer: {0}")]
    BadAnswer(String),
    /// Another error of a socket.
    #[error("socket error")]
    Socket(#[source] io::Error),
    /// The client itself could not work.
    #[error(transparent)]
    Lab(#[from] LabError),
}

impl From<io::Error> for FlowError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Self::Refused,
            // A socket's receive timeout reports EAGAIN.
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => Self::TimedOut,
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Self::Reset,
            io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => Self::Unreachable,
            io::ErrorKind::UnexpectedEof => Self::Closed,
            io::ErrorKind::InvalidData => Self::BadAnswer(error.to_string()),
            _ => Self::Socket(error),
        }
    }
}

/// A client in a namespace. Its sockets belong there; they may be used on any thread.
#[derive(Clone, Debug)]
pub struct Client {
    ns: Netns,
    timeout: Duration,
}

impl Client {
    /// With [`TIMEOUT`].
    #[must_use]
    pub fn new(ns: &Netns) -> Self {
        Self { ns: ns.clone(), timeout: TIMEOUT }
    }

    /// With another timeout for each connect, read and write.
    #[must_use]
    pub fn with_timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// Connects, asks once, closes.
    ///
    /// # Errors
    ///
    /// Why there was no answer.
    pub fn tcp_once(&self, to: SocketAddr) -> Result<Answer, FlowError> {
        self.tcp(to)?.get()
    }

    /// Opens a connection.
    ///
    /// # Errors
    ///
    /// Why it could not be opened.
    pub fn tcp(&self, to: SocketAddr) -> Result<Connection, FlowError> {
        self.ns.run(|| Connection::open(to, self.timeout))?
    }

    /// Opens a connection from a port of one's own choice.
    ///
    /// # Errors
    ///
    /// Why it could not be opened; the port may be taken.
    pub fn tcp_from(&self, port: u16, to: SocketAddr) -> Result<Connection, FlowError> {
        self.ns.run(|| Connection::open_from(port, to, self.timeout))?
    }

    /// Starts a download on a connection of its own.
    ///
    /// # Errors
    ///
    /// Why the connection could not be opened.
    pub fn download(&self, to: SocketAddr, body: Body) -> Result<Download, FlowError> {
        self.tcp(to)?.download(body)
    }

    /// Sends a datagram of so many bytes from a connected socket and waits for the answer.
    ///
    /// # Errors
    ///
    /// Why there was no answer; ICMP errors reach a connected socket.
    pub fn udp_once(&self, to: SocketAddr, length: usize) -> Result<Datagram, FlowError> {
        self.udp_connected(to)?.exchange(length)
    }

    /// A connected UDP socket.
    ///
    /// # Errors
    ///
    /// Why it could not be made.
    pub fn udp_connected(&self, to: SocketAddr) -> Result<UdpFlow, FlowError> {
        self.ns.run(|| UdpFlow::connected(to, self.timeout))?
    }

    /// A connected UDP socket with a port of its own choice, for asking again with the same addresses and ports.
    ///
    /// # Errors
    ///
    /// Why it could not be made; the port may be taken.
    pub fn udp_from(&self, port: u16, to: SocketAddr) -> Result<UdpFlow, FlowError> {
        // A socket just closed lives on for a moment in a child that is about to execute a command.
        let bound = || match self.ns.run(|| UdpFlow::bound(port, to, self.timeout)).ok()? {
            Err(FlowError::Socket(error)) if error.kind() == io::ErrorKind::AddrInUse => None,
            other => Some(other),
        };
        eventually("the port is free", self.timeout, bound)??.connect()
    }

    /// An unconnected UDP socket that will send to `to` and receive from anybody.
    ///
    /// # Errors
    ///
    /// Why it could not be made.
    pub fn udp_unconnected(&self, to: SocketAddr) -> Result<UdpFlow, FlowError> {
        self.ns.run(|| UdpFlow::unconnected(to, self.timeout))?
    }

    /// Sends one datagram in fragments with `fragment` bytes of payload each, a multiple of 8, from a raw socket and
    /// waits for the answer. `arrange` may put the fragments, whole IP packets, in any order.
    ///
    /// # Errors
    ///
    /// Why there was no answer.
    pub fn udp_in_fragments(
        &self,
        to: SocketAddr,
        length: usize,
        fragment: usize,
        arrange: impl FnOnce(&mut Vec<Vec<u8>>) + Send,
    ) -> Result<Datagram, FlowError> {
        self.ns.run(|| {
            let flow = UdpFlow::connected(to, self.timeout)?;
            let payload = udp::payload(length);
            let mut packets = fragments(flow.local()?, to, &payload, fragment);
            arrange(&mut packets);
            fragment::send(to, &packets)?;
            flow.receive(&payload)
        })?
    }

    /// Sends whole IP packets, from whatever source they say.
    ///
    /// # Errors
    ///
    /// The kernel refuses one.
    pub fn send(&self, to: SocketAddr, packets: &[Vec<u8>]) -> Result<(), FlowError> {
        Ok(self.ns.run(|| fragment::send(to, packets))??)
    }

    /// Sends an ICMP echo request and waits for the reply.
    ///
    /// # Errors
    ///
    /// Why there was none.
    pub fn ping(&self, to: IpAddr) -> Result<(), FlowError> {
        self.ns.sysctl("ipv4/ping_group_range", "0 0")?;
        self.ns.run(|| ping::ping(to, self.timeout))?
    }

    /// The address that packets to `to` would have as their source.
    ///
    /// # Errors
    ///
    /// When there is no route.
    pub fn source_towards(&self, to: SocketAddr) -> Result<IpAddr, FlowError> {
        Ok(self.udp_connected(to)?.local()?.ip())
    }
}

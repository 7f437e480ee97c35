use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    str,
    time::Duration,
};

use super::{super::http, Answer, FlowError};

/// The largest UDP datagram.
const DATAGRAM: usize = 65_535;

/// An answer to a datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// Backend, and the client as it sees it.
    pub answer: Answer,
    /// Where the answer came from, as `recvmsg` tells it.
    pub from: SocketAddr,
}

/// A UDP socket that talks to one address.
#[derive(Debug)]
pub struct UdpFlow {
    socket: UdpSocket,
    to: SocketAddr,
    connected: bool,
}

impl UdpFlow {
    /// A connected socket in the namespace of the calling thread.
    ///
    /// # Errors
    ///
    /// Why it could not be made.
    pub fn connected(to: SocketAddr, timeout: Duration) -> Result<Self, FlowError> {
        Self::unconnected(to, timeout)?.connect()
    }

    /// An unconnected socket in the namespace of the calling thread, of the family of `to`: a v4-mapped address
    /// makes an IPv6 socket.
    ///
    /// # Errors
    ///
    /// Why it could not be made.
    pub fn unconnected(to: SocketAddr, timeout: Duration) -> Result<Self, FlowError> {
        Self::bound(0, to, timeout)
    }

    /// As [`UdpFlow::unconnected`] with a port of one's own choice; 0 leaves it to the kernel.
    ///
    /// # Errors
    ///
    /// Why it could not be made; the port may be taken.
    pub fn bound(port: u16, to: SocketAddr, timeout: Duration) -> Result<Self, FlowError> {
        let any = match to {
            SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)),
            SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)),
        };
        let socket = UdpSocket::bind(any)?;
        socket.set_read_timeout(Some(timeout))?;
        Ok(Self { socket, to, connected: false })
    }

    /// Connects the socket.
    ///
    /// # Errors
    ///
    /// Why it could not; there may be no route.
    pub fn connect(mut self) -> Result<Self, FlowError> {
        self.socket.connect(self.to)?;
        self.connected = true;
        Ok(self)
    }

    /// The own address.
    ///
    /// # Errors
    ///
    /// When the socket has none.
    pub fn local(&self) -> Result<SocketAddr, FlowError> {
        Ok(self.socket.local_addr()?)
    }

    /// The other address, as `getpeername` tells it.
    ///
    /// # Errors
    ///
    /// When the socket is not connected.
    pub fn peer(&self) -> Result<SocketAddr, FlowError> {
        Ok(self.socket.peer_addr()?)
    }

    /// Sends a datagram of so many bytes and waits for the answer, which must contain them.
    ///
    /// # Errors
    ///
    /// Why there was no answer.
    pub fn exchange(&self, length: usize) -> Result<Datagram, FlowError> {
        let payload = payload(length);
        self.send(&payload)?;
        self.receive(&payload)
    }

    /// Sends a datagram and does not wait.
    ///
    /// # Errors
    ///
    /// Of the socket, which may be due to an earlier datagram.
    pub fn send(&self, payload: &[u8]) -> Result<(), FlowError> {
        if self.connected {
            self.socket.send(payload)?;
        } else {
            self.socket.send_to(payload, self.to)?;
        }
        Ok(())
    }

    /// Waits for the answer to a datagram with this payload.
    ///
    /// # Errors
    ///
    /// Why there was none.
    pub fn receive(&self, payload: &[u8]) -> Result<Datagram, FlowError> {
        let mut buffer = vec![0; DATAGRAM];
        let (length, from) = self.socket.recv_from(&mut buffer)?;
        buffer.truncate(length);
        let answer = parse(&buffer, payload).ok_or_else(|| {
            let begin = String::from_utf8_lossy(buffer.get(..80).unwrap_or(&buffer)).into_owned();
            FlowError::BadAnswer(format!("{length} bytes: {begin}"))
        })?;
        Ok(Datagram { answer, from })
    }
}

/// A payload of so many bytes.
pub(super) fn payload(length: usize) -> Vec<u8> {
    let mut payload = vec![0; length];
    http::fill(0, &mut payload);
    payload
}

/// `<name> <address> <length>`, a line feed, and the payload.
fn parse(reply: &[u8], payload: &[u8]) -> Option<Answer> {
    let end = reply.iter().position(|b| *b == b'\n')?;
    let (line, echo) = reply.split_at_checked(end)?;
    let (line, length) = str::from_utf8(line).ok()?.rsplit_once(' ')?;
    let intact = echo.strip_prefix(b"\n") == Some(payload) && length.parse() == Ok(payload.len());
    intact.then(|| Answer::parse(line).ok()).flatten()
}

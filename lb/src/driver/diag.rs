//! Connected UDP sockets of the calling thread's network namespace, over sock_diag(7), and how to destroy one, so that
//! its program learns that its peer is gone. Calls block.

mod message;

use std::{
    io,
    net::{Ipv4Addr, UdpSocket},
    os::fd::AsRawFd as _,
};

use netlink_sys::{Socket, SocketAddr as NetlinkAddr, protocols::NETLINK_SOCK_DIAG};

pub use message::Connected;
use message::Message;

/// The kernel fills at most 32 KiB at a time.
const BUFFER: usize = 1 << 16;
/// Discard; nothing is sent there.
const NOWHERE: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 9);

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The netlink socket failed, or one to try with.
    #[error("cannot {attempt}")]
    Socket {
        /// What was attempted.
        attempt: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The kernel answered with an error.
    #[error("cannot {attempt}: the kernel refuses")]
    Refused {
        /// What was attempted.
        attempt: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The kernel has no support for it.
    #[error("the kernel has no CONFIG_INET_UDP_DIAG, or no CONFIG_INET_DIAG_DESTROY")]
    Unsupported,
}

/// The connection.
pub struct Diag {
    socket: Socket,
    buffer: Vec<u8>,
    sequence: u32,
}

impl Diag {
    /// Opens it in the network namespace of the calling thread.
    ///
    /// # Errors
    ///
    /// [`Error::Socket`], or [`Error::Unsupported`].
    pub fn open() -> Result<Self, Error> {
        let failed = |source: io::Error| match source.raw_os_error() {
            Some(libc::EPROTONOSUPPORT) => Error::Unsupported,
            _ => Error::Socket { attempt: "open a sock_diag netlink socket", source },
        };
        let mut socket = Socket::new(NETLINK_SOCK_DIAG).map_err(failed)?;
        socket.bind_auto().map_err(failed)?;
        socket.connect(&NetlinkAddr::new(0, 0)).map_err(failed)?;
        Ok(Self { socket, buffer: Vec::with_capacity(BUFFER), sequence: 0 })
    }

    /// The connected UDP sockets, both families, that `keep` says yes to.
    ///
    /// # Errors
    ///
    /// Any.
    pub fn connected_udp(&mut self, keep: impl Fn(&Connected) -> bool) -> Result<Vec<Connected>, Error> {
        let attempt = "list the UDP sockets";
        let mut found = Vec::new();
        for family in [libc::AF_INET, libc::AF_INET6] {
            let request = message::list(family as u8, self.next());
            match self.exchange(attempt, &request, |socket| found.extend(Some(socket).filter(&keep)))? {
                0 => {}
                // No handler for the protocol.
                libc::ENOENT | libc::EOPNOTSUPP => return Err(Error::Unsupported),
                code => return Err(Error::Refused { attempt, source: io::Error::from_raw_os_error(code) }),
            }
        }
        Ok(found)
    }

    /// Destroys a socket: calls of its program that wait, and the next one otherwise, fail with `ECONNABORTED`, and it
    /// is not connected any more. False if it was gone, or connected elsewhere.
    ///
    /// # Errors
    ///
    /// Any.
    pub fn destroy(&mut self, socket: &Connected) -> Result<bool, Error> {
        let attempt = "destroy a UDP socket";
        let request = message::destroy(socket, self.next());
        match self.exchange(attempt, &request, drop)? {
            0 => Ok(true),
            libc::ENOENT => Ok(false),
            libc::EOPNOTSUPP => Err(Error::Unsupported),
            code => Err(Error::Refused { attempt, source: io::Error::from_raw_os_error(code) }),
        }
    }

    const fn next(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        self.sequence
    }

    /// Sends a request, hands out the sockets that come, and returns the error number at the end.
    fn exchange(
        &mut self,
        attempt: &'static str,
        request: &[u8],
        mut each: impl FnMut(Connected),
    ) -> Result<i32, Error> {
        let failed = |source| Error::Socket { attempt, source };
        self.socket.send(request, 0).map_err(failed)?;
        loop {
            self.buffer.clear();
            match self.socket.recv(&mut self.buffer, 0) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(source) => return Err(failed(source)),
            }
            for message in message::messages(&self.buffer, self.sequence) {
                match message {
                    Message::Socket(socket) => each(socket),
                    Message::End(code) => return Ok(code),
                }
            }
        }
    }
}

/// Tries with a socket of its own whether UDP sockets can be destroyed.
///
/// # Errors
///
/// They cannot; [`Error::Unsupported`] where the kernel was built without.
pub fn probe() -> Result<(), Error> {
    let failed = |source| Error::Socket { attempt: "connect a UDP socket on loopback", source };
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).map_err(failed)?;
    socket.connect(NOWHERE).map_err(failed)?;
    let own = cookie(&socket).map_err(failed)?;
    let mut diag = Diag::open()?;
    let attempt = "find a UDP socket of our own";
    let missing = || Error::Refused { attempt, source: io::ErrorKind::NotFound.into() };
    let found = diag.connected_udp(|socket| socket.cookie == own)?;
    if diag.destroy(found.first().ok_or_else(missing)?)? { Ok(()) } else { Err(missing()) }
}

/// What names a socket for as long as the machine runs.
///
/// # Errors
///
/// The kernel refuses.
pub fn cookie(socket: &UdpSocket) -> io::Result<u64> {
    let mut cookie = 0_u64;
    let mut length = size_of_val(&cookie) as libc::socklen_t;
    // SAFETY: both pointers are to objects that outlive the call, and the length is that of the first.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(cookie) }
}

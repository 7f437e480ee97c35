use std::{
    io::{self, BufReader, IoSlice, IoSliceMut, Read, Write},
    net::{Ipv6Addr, SocketAddr, SocketAddrV6, TcpListener, TcpStream, UdpSocket},
    os::fd::AsRawFd as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use nix::{
    libc,
    sys::{
        socket::{
            ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn6, recvmsg, sendmsg, setsockopt, sockopt,
        },
        time::{TimeVal, TimeValLike as _},
    },
};

use super::{LabError, Netns, Spawned, http};

/// How often blocked calls look whether the server is to stop, in milliseconds.
const LOOK: i64 = 50;
/// Body bytes written at once, and the size of a chunk of `/slow`.
pub(super) const CHUNK: usize = 16 << 10;
/// The largest UDP datagram.
const DATAGRAM: usize = 65_535;

/// A TCP and UDP server on one port, for both families. It stops on drop.
///
/// Over TCP it speaks HTTP with persistent connections:
///
/// - `GET /`: `<name> <client address and port as seen here>`,
/// - `GET /bytes/N`: N bytes of a known pattern,
/// - `GET /slow/N/MS`: N chunks of 16 KiB of the pattern, MS milliseconds apart,
/// - `POST` with any path: `<name> <bytes received>`, or 400 if they do not follow the pattern.
///
/// A UDP datagram is answered, from the address it was sent to, with the line `<name> <client address and port> <length>` and the datagram itself.
#[derive(Debug)]
pub struct Server {
    _threads: [Spawned; 2],
}

impl Server {
    /// Starts in a namespace. When this returns, the sockets are open.
    ///
    /// # Errors
    ///
    /// When the port cannot be bound or a thread not made.
    pub fn start(ns: &Netns, name: &str, port: u16) -> Result<Self, LabError> {
        let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
        let bind = || -> io::Result<_> {
            let (tcp, udp) = (TcpListener::bind(any)?, UdpSocket::bind(any)?);
            // accept(2) heeds the receive timeout too.
            setsockopt(&tcp, sockopt::ReceiveTimeout, &TimeVal::milliseconds(LOOK))?;
            setsockopt(&udp, sockopt::ReceiveTimeout, &TimeVal::milliseconds(LOOK))?;
            setsockopt(&udp, sockopt::Ipv6RecvPacketInfo, &true)?;
            Ok((tcp, udp))
        };
        let (tcp, udp) =
            ns.run(bind)?.map_err(LabError::io(format!("serve port {port} in {}", ns.name())))?;
        let (for_tcp, for_udp) = (name.to_owned(), name.to_owned());
        let tcp = ns.spawn(&format!("{name}-tcp"), move |stop| accept(&tcp, &for_tcp, stop))?;
        let udp = ns.spawn(&format!("{name}-udp"), move |stop| echo(&udp, &for_udp, stop))?;
        Ok(Self { _threads: [tcp, udp] })
    }
}

fn accept(listener: &TcpListener, name: &str, stop: &Arc<AtomicBool>) {
    thread::scope(|scope| {
        while !stop.load(Ordering::Relaxed) {
            let Ok((stream, peer)) = listener.accept() else { continue };
            let serve = move || {
                // What went wrong on a connection, the client sees.
                let _ = serve(stream, &canonical(peer), name, stop);
            };
            // A client whose thread cannot be made sees its connection closed.
            let _ = thread::Builder::new().name(format!("{name}-tcp")).spawn_scoped(scope, serve);
        }
    });
}

fn canonical(peer: SocketAddr) -> String {
    SocketAddr::new(peer.ip().to_canonical(), peer.port()).to_string()
}

fn serve(stream: TcpStream, peer: &str, name: &str, stop: &AtomicBool) -> io::Result<()> {
    let look = Some(Duration::from_millis(LOOK.unsigned_abs()));
    stream.set_read_timeout(look)?;
    stream.set_write_timeout(look)?;
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(Patient { stream: &stream, stop });
    let mut writer = Patient { stream: &stream, stop };
    while let Some(head) = http::read_head(&mut reader)? {
        let mut words = head.start.split(' ');
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        if method == "POST" {
            let (status, text) = match receive(&mut reader, head.length)? {
                None => ("200 OK", format!("{name} {}\n", head.length)),
                Some(at) => ("400 Bad Request", format!("{name}: pattern broken at {at}\n")),
            };
            respond(&mut writer, status, text.as_bytes())?;
        } else {
            answer(&mut writer, path, name, peer)?;
        }
        if head.close {
            return Ok(());
        }
    }
    Ok(())
}

fn answer(writer: &mut impl Write, path: &str, name: &str, peer: &str) -> io::Result<()> {
    let parts: Vec<_> = path.split('/').skip(1).collect();
    let number = |word: &str| word.parse::<u64>().ok();
    let body = match parts.as_slice() {
        [""] => return respond(writer, "200 OK", format!("{name} {peer}\n").as_bytes()),
        ["bytes", length] => number(length).map(|length| (length, 0)),
        ["slow", chunks, pause] => number(chunks).map(|n| n.saturating_mul(CHUNK as u64)).zip(number(pause)),
        _ => None,
    };
    match body {
        Some((length, pause)) => send(writer, length, Duration::from_millis(pause)),
        None => respond(writer, "404 Not Found", b"no such page\n"),
    }
}

fn respond(writer: &mut impl Write, status: &str, body: &[u8]) -> io::Result<()> {
    let mut message = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
    message.extend_from_slice(body);
    writer.write_all(&message)
}

/// Writes `length` bytes of the pattern with a pause between chunks.
fn send(writer: &mut impl Write, length: u64, pause: Duration) -> io::Result<()> {
    write!(writer, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n")?;
    let mut sent = 0;
    let mut chunk = [0; CHUNK];
    while sent < length {
        let rest = usize::try_from(length - sent).unwrap_or(usize::MAX);
        let (part, _) = chunk.split_at_mut(rest.min(CHUNK));
        http::fill(sent, part);
        writer.write_all(part)?;
        sent += part.len() as u64;
        if !pause.is_zero() && sent < length {
            thread::sleep(pause);
        }
    }
    Ok(())
}

/// Reads a body and compares it with the pattern; the first difference.
fn receive(reader: &mut impl Read, length: u64) -> io::Result<Option<u64>> {
    let mut received = 0;
    let mut broken = None;
    let mut chunk = [0; CHUNK];
    while received < length {
        let rest = usize::try_from(length - received).unwrap_or(usize::MAX);
        let (part, _) = chunk.split_at_mut(rest.min(CHUNK));
        reader.read_exact(part)?;
        broken = broken.or_else(|| http::mismatch(received, part));
        received += part.len() as u64;
    }
    Ok(broken)
}

fn echo(socket: &UdpSocket, name: &str, stop: &AtomicBool) {
    let mut buffer = vec![0; DATAGRAM];
    while !stop.load(Ordering::Relaxed) {
        let Ok(Request { length, peer, asked }) = receive_from(socket, &mut buffer) else { continue };
        let mut reply = format!("{name} {} {length}\n", canonical(peer.into())).into_bytes();
        reply.extend_from_slice(buffer.get(..length).unwrap_or_default());
        // As with any datagram, the client notices by its timeout.
        let _ = send_from(asked, socket, &reply, peer);
    }
}

/// A datagram received.
struct Request {
    length: usize,
    peer: SocketAddrV6,
    /// The address it was sent to, which may be one of many of this host.
    asked: Option<libc::in6_pktinfo>,
}

fn receive_from(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<Request> {
    let mut control = nix::cmsg_space!(libc::in6_pktinfo);
    let mut parts = [IoSliceMut::new(buffer)];
    let message =
        recvmsg::<SockaddrIn6>(socket.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::empty())?;
    let asked = message.cmsgs()?.find_map(|control| match control {
        ControlMessageOwned::Ipv6PacketInfo(to) => Some(to),
        _ => None,
    });
    let peer = message.address.ok_or(io::ErrorKind::InvalidData)?.into();
    Ok(Request { length: message.bytes, peer, asked })
}

/// Left to itself the kernel would send from the address of its choice.
fn send_from(
    asked: Option<libc::in6_pktinfo>,
    socket: &UdpSocket,
    reply: &[u8],
    peer: SocketAddrV6,
) -> io::Result<()> {
    // The way back is for the routes to decide, not the interface that the datagram came in on.
    let from = asked.map(|asked| libc::in6_pktinfo { ipi6_ifindex: 0, ..asked });
    let control = from.iter().map(ControlMessage::Ipv6PacketInfo).collect::<Vec<_>>();
    let to = SockaddrIn6::from(peer);
    sendmsg(socket.as_raw_fd(), &[IoSlice::new(reply)], &control, MsgFlags::empty(), Some(&to))?;
    Ok(())
}

/// A stream with short timeouts that reads and writes as if it had none, until the server stops.
struct Patient<'a> {
    stream: &'a TcpStream,
    stop: &'a AtomicBool,
}

impl Patient<'_> {
    fn retry(&self, mut f: impl FnMut(&mut &TcpStream) -> io::Result<usize>) -> io::Result<usize> {
        let mut stream = self.stream;
        while !self.stop.load(Ordering::Relaxed) {
            match f(&mut stream) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                other => return other,
            }
        }
        Err(io::ErrorKind::ConnectionAborted.into())
    }
}

impl Read for Patient<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.retry(|stream| stream.read(buffer))
    }
}

impl Write for Patient<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.retry(|stream| stream.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        let mut stream = self.stream;
        stream.flush()
    }
}

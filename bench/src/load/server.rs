//! The server: sends back what it is sent by TCP, and takes datagrams.

use std::{
    collections::HashMap,
    io::{self, ErrorKind, Read as _, Write as _},
    net::{Ipv6Addr, TcpListener, TcpStream, UdpSocket},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use anyhow::Context as _;
use lab::{Netns, Spawned};
use nix::sys::socket::{Backlog, listen};

use super::poller::Poller;

/// How often it looks whether it is to stop.
const LOOK: Duration = Duration::from_millis(50);
/// Connections that wait to be accepted.
const BACKLOG: i32 = 4096;

/// Runs on a thread of its own until it is dropped.
#[derive(Debug)]
pub(crate) struct Server {
    _thread: Spawned,
}

impl Server {
    /// For both families on these ports, all addresses of a namespace.
    pub(crate) fn start(ns: &Netns, ports: &[u16]) -> anyhow::Result<Self> {
        let sockets = ns.run(|| open(ports))?;
        let (listeners, datagrams) =
            sockets.with_context(|| format!("cannot listen on {ports:?} in {}", ns.name()))?;
        let thread = ns.spawn("echo", move |stop| {
            // Whoever asks notices if this ends early.
            let _ = serve(&listeners, &datagrams, stop);
        })?;
        Ok(Self { _thread: thread })
    }
}

fn open(ports: &[u16]) -> io::Result<(Vec<TcpListener>, Vec<UdpSocket>)> {
    let (mut listeners, mut datagrams) = (Vec::new(), Vec::new());
    for port in ports {
        let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, *port))?;
        // Once more, with a longer queue.
        listen(&listener, Backlog::new(BACKLOG)?)?;
        listener.set_nonblocking(true)?;
        listeners.push(listener);
        let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, *port))?;
        socket.set_nonblocking(true)?;
        datagrams.push(socket);
    }
    Ok((listeners, datagrams))
}

fn serve(listeners: &[TcpListener], datagrams: &[UdpSocket], stop: &AtomicBool) -> io::Result<()> {
    let mut poller = Poller::new()?;
    for (token, listener) in (0..).zip(listeners) {
        poller.add(listener, token)?;
    }
    let first_datagram = listeners.len() as u64;
    for (token, socket) in (first_datagram..).zip(datagrams) {
        poller.add(socket, token)?;
    }
    let mut next = first_datagram + datagrams.len() as u64;
    let mut connections: HashMap<u64, Echo> = HashMap::new();
    while !stop.load(Ordering::Relaxed) {
        for token in poller.wait(LOOK)? {
            if let Some(listener) = listeners.get(token as usize) {
                while let Ok((stream, _)) = listener.accept() {
                    stream.set_nonblocking(true)?;
                    stream.set_nodelay(true)?;
                    poller.add(&stream, next)?;
                    connections.insert(next, Echo { stream, unsent: Vec::new() });
                    next += 1;
                }
            } else if let Some(socket) = datagrams.get((token - first_datagram) as usize) {
                let mut buffer = [0; 2048];
                while socket.recv(&mut buffer).is_ok() {}
            } else if connections.get_mut(&token).is_some_and(|connection| connection.turn().is_err()) {
                connections.remove(&token);
            }
        }
    }
    Ok(())
}

struct Echo {
    stream: TcpStream,
    unsent: Vec<u8>,
}

impl Echo {
    /// Sends back all there is; an error is the end.
    fn turn(&mut self) -> io::Result<()> {
        let mut buffer = [0; 4096];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(count) => {
                    self.unsent.extend(buffer.iter().take(count));
                    self.flush()?;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return self.flush(),
                Err(error) => return Err(error),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        while !self.unsent.is_empty() {
            match self.stream.write(&self.unsent) {
                Ok(count) => drop(self.unsent.drain(..count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

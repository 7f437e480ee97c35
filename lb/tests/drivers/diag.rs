//! Connected UDP sockets in other network namespaces, listed and destroyed.

use std::{
    io::ErrorKind,
    net::{SocketAddr, UdpSocket},
    thread,
};

use lab::Netns;
use portico::driver::{
    diag::{self, Connected, Diag},
    netns,
};

const PEERS: [&str; 3] = ["127.0.0.1:9", "[::1]:9", "[::ffff:127.0.0.2]:9"];

fn connected(to: SocketAddr) -> UdpSocket {
    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).unwrap();
    socket.connect(to).unwrap();
    socket
}

/// Looks through all namespaces for sockets with these own ports and peers, and destroys them.
fn destroy(local: &[(SocketAddr, u64)]) -> usize {
    thread::spawn({
        let local = local.to_vec();
        move || {
            let wanted = |socket: &Connected| {
                let canonical = |to: &SocketAddr| SocketAddr::new(to.ip().to_canonical(), to.port());
                local.iter().any(|(to, cookie)| canonical(to) == socket.peer && *cookie == socket.cookie)
            };
            let mut destroyed = 0;
            for namespace in netns::all() {
                namespace.enter().unwrap();
                let mut diag = Diag::open().unwrap();
                for socket in diag.connected_udp(wanted).unwrap() {
                    assert!(diag.destroy(&socket).unwrap());
                    assert!(!diag.destroy(&socket).unwrap(), "it is not connected any more");
                    destroyed += 1;
                }
            }
            destroyed
        }
    })
    .join()
    .unwrap()
}

#[test]
fn sockets_are_destroyed_in_whatever_namespace_they_are() {
    assert!(nix::unistd::geteuid().is_root(), "this test makes network namespaces and must run as root");
    let ns = Netns::new("diag").unwrap();
    let peers = PEERS.map(|peer| peer.parse::<SocketAddr>().unwrap());
    let (gone, kept) = ns.run(|| (peers.map(connected), peers.map(connected))).unwrap();
    let cookies: Vec<_> = peers.iter().copied().zip(gone.iter().map(|s| diag::cookie(s).unwrap())).collect();
    assert_eq!(destroy(&cookies), gone.len());
    for (socket, kept) in gone.iter().zip(&kept) {
        assert_eq!(socket.recv(&mut [0; 8]).unwrap_err().kind(), ErrorKind::ConnectionAborted);
        assert_eq!(socket.peer_addr().unwrap_err().kind(), ErrorKind::NotConnected);
        // Nobody listens: a socket that is alive is told so.
        kept.send(b"x").unwrap();
        assert_eq!(kept.recv(&mut [0; 8]).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    }
}

#[test]
fn the_kernel_is_asked_whether_it_can() {
    assert!(nix::unistd::geteuid().is_root(), "this test makes network namespaces and must run as root");
    let ns = Netns::new("probe").unwrap();
    ns.run(diag::probe).unwrap().unwrap();
}

//! `table inet portico` with real packets.

use std::{
    io::{ErrorKind, Read, Write},
    net::{IpAddr, SocketAddr, TcpStream, UdpSocket},
    os::fd::AsRawFd,
    time::Duration,
};

use etherparse::PacketBuilder;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};
use portico::driver::{
    conntrack::{self, TcpState},
    nft::{Family, counter},
};

use crate::{
    fragments::send_raw,
    netns::{DEADLINE, at_last, eventually, receive},
    topology::{DROP, LABEL, MASQUERADE, PLAIN, REJECT, Topology, UNKNOWN, backend, client, gateway, vip},
};

/// Sends one message each way.
fn talk(client: &mut TcpStream, server: &mut TcpStream) {
    for stream in [&client, &server] {
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
    }
    let mut buffer = [0; 4];
    client.write_all(b"ping").unwrap();
    server.read_exact(&mut buffer).unwrap();
    server.write_all(b"pong").unwrap();
    client.read_exact(&mut buffer).unwrap();
    assert_eq!(&buffer, b"pong");
}

#[test]
fn tcp_is_translated() {
    let topology = Topology::new();
    for family in Family::ALL {
        for (port, seen) in [(PLAIN, client(family)), (MASQUERADE, gateway(family))] {
            let listener = topology.tcp_server(family);
            let mut stream = topology.connect(family, port, DEADLINE).unwrap();
            let (mut server, peer) = listener.accept().unwrap();
            assert_eq!(peer.ip(), seen);
            for _ in 0..3 {
                talk(&mut stream, &mut server);
            }
            let local = stream.local_addr().unwrap();
            let flows = topology.gateway.run(|| conntrack::flows().unwrap());
            let flow = flows.iter().find(|flow| flow.original.source == local).unwrap();
            assert_eq!(flow.original.destination, stream.peer_addr().unwrap());
            assert_eq!((flow.reply.source, flow.reply.destination), (backend(family), peer));
            assert_eq!(flow.state, Some(TcpState::Established));
            assert!(flow.dst_nat && flow.assured && flow.seen_reply);
            assert_eq!(flow.src_nat, port == MASQUERADE);
        }
    }
    assert_eq!(topology.counter(counter::MASQUERADED), 2);
    topology.assert_clean();
}

#[test]
fn udp_is_translated() {
    let topology = Topology::new();
    let mut buffer = [0; 16];
    for family in Family::ALL {
        for (port, seen) in [(PLAIN, client(family)), (MASQUERADE, gateway(family))] {
            let server = topology.udp_server(family);
            let socket = topology.udp_client(family, port);
            let mut peers = Vec::new();
            // As long as nothing comes back conntrack calls every datagram new; NAT chains see the first one only.
            for _ in 0..3 {
                socket.send(b"ping").unwrap();
                peers.push(receive(|| server.recv_from(&mut buffer)).unwrap().1);
            }
            assert_eq!(peers, [peers[0]; 3]);
            assert_eq!(peers[0].ip(), seen);
            for _ in 0..3 {
                server.send_to(b"pong", peers[0]).unwrap();
                assert_eq!(receive(|| socket.recv(&mut buffer)).unwrap(), 4);
                socket.send(b"ping").unwrap();
                assert_eq!(receive(|| server.recv_from(&mut buffer)).unwrap().1, peers[0]);
            }
        }
    }
    assert_eq!(topology.counter(counter::MASQUERADED), 2);
    topology.assert_clean();
}

#[test]
fn new_flows_are_refused() {
    let topology = Topology::new();
    for family in Family::ALL {
        let error = topology.connect(family, REJECT, DEADLINE).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        let socket = topology.udp_client(family, REJECT);
        socket.send(b"ping").unwrap();
        assert_eq!(receive(|| socket.recv(&mut [0; 16])).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    }
    // On one machine the error may arrive while the client still holds its socket, which then tries again.
    assert!(topology.counter(counter::REFUSED) >= 4);
    assert_eq!(topology.gateway.run(|| conntrack::flows().unwrap()), []);
    topology.assert_clean();
}

#[test]
fn new_flows_are_dropped_and_counted() {
    let topology = Topology::new();
    for (port, name) in [(DROP, counter::WITHHELD), (UNKNOWN, counter::UNKNOWN_LABEL)] {
        for family in Family::ALL {
            let before = topology.counter(name);
            let socket = topology.udp_client(family, port);
            socket.send(b"ping").unwrap();
            eventually("the datagram is counted", || topology.counter(name) == before + 1);
            let error = topology.connect(family, port, Duration::from_millis(100)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::TimedOut);
            assert_eq!(topology.counter(name), before + 2);
        }
    }
    assert_eq!(topology.gateway.run(|| conntrack::flows().unwrap()), []);
    topology.assert_clean();
}

/// A segment that belongs to no flow and cannot begin one would otherwise go to the VIP untranslated.
#[test]
fn invalid_packets_are_dropped_and_counted() {
    let topology = Topology::new();
    for (i, family) in Family::ALL.into_iter().enumerate() {
        let builder = match (client(family), vip(family)) {
            (IpAddr::V4(from), IpAddr::V4(to)) => PacketBuilder::ipv4(from.octets(), to.octets(), 64),
            (IpAddr::V6(from), IpAddr::V6(to)) => PacketBuilder::ipv6(from.octets(), to.octets(), 64),
            _ => unreachable!("both of one family"),
        };
        let mut packet = Vec::new();
        builder.tcp(40_000, PLAIN, 1, 1024).syn().ack(1).write(&mut packet, &[]).unwrap();
        topology.client.run(|| send_raw(family, &packet));
        let expected = i as u64 + 1;
        eventually("the segment is counted", || topology.counter(counter::INVALID) == expected);
    }
    topology.assert_clean();
}

/// Connections from one source port, one after the other: conntrack still has the last one in TIME_WAIT.
#[test]
fn source_ports_are_reused() {
    let topology = Topology::new();
    for family in Family::ALL {
        let listener = topology.tcp_server(family);
        for _ in 0..50 {
            let mut stream = connect_from(&topology, family, 40_000);
            let (mut server, _) = listener.accept().unwrap();
            talk(&mut stream, &mut server);
            // The side that closes first is the one that waits.
            drop(server);
            assert_eq!(stream.read(&mut [0; 4]).unwrap(), 0);
        }
    }
    let flows = topology.gateway.run(|| conntrack::flows().unwrap());
    assert!(flows.iter().all(|flow| flow.dst_nat));
    assert_eq!(flows.len(), 2);
    topology.assert_clean();
}

/// Packets that somebody exempts from tracking are not translated either.
#[test]
fn untracked_packets_are_dropped_and_counted() {
    let topology = Topology::new();
    topology.gateway.sh(&format!(
        "nft -f - <<END
         table inet raw {{
           chain pre {{ type filter hook prerouting priority raw; udp dport {PLAIN} notrack; }}
         }}
END"
    ));
    for (i, family) in Family::ALL.into_iter().enumerate() {
        topology.udp_client(family, PLAIN).send(b"ping").unwrap();
        let expected = i as u64 + 1;
        eventually("the datagram is counted", || topology.counter(counter::INVALID) == expected);
    }
    topology.assert_clean();
}

fn connect_from(topology: &Topology, family: Family, port: u16) -> TcpStream {
    let local = SocketAddr::new(client(family), port);
    let remote = SocketAddr::new(vip(family), PLAIN);
    // Until the last acknowledgement is in, the port is still the previous connection's.
    topology.client.run(|| at_last("the port is free", || Ok(connect_once(local, remote)?)))
}

fn connect_once(local: SocketAddr, remote: SocketAddr) -> nix::Result<TcpStream> {
    let kind = if local.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let fd = socket(kind, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    bind(fd.as_raw_fd(), &SockaddrStorage::from(local))?;
    connect(fd.as_raw_fd(), &SockaddrStorage::from(remote))?;
    Ok(TcpStream::from(fd))
}

/// Whatever `ensure` does to a damaged table, flows that are there notice nothing, and new ones are translated.
#[test]
fn repairs_do_not_disturb_flows() {
    let topology = Topology::new();
    for family in Family::ALL {
        for damage in [
            "nft flush chain inet portico settle",
            "nft flush chain inet portico translate",
            "nft add chain inet portico stranger",
            "nft 'delete chain inet portico settle; add chain inet portico settle { type filter hook forward priority 5; }'",
        ] {
            let listener = topology.tcp_server(family);
            let mut stream = topology.connect(family, PLAIN, DEADLINE).unwrap();
            let (mut server, _) = listener.accept().unwrap();
            topology.gateway.sh(damage);
            talk(&mut stream, &mut server);
            topology.gateway.run(|| topology.nft.ensure().unwrap());
            talk(&mut stream, &mut server);
            let mut stream = topology.connect(family, PLAIN, DEADLINE).unwrap();
            let (mut server, _) = listener.accept().unwrap();
            talk(&mut stream, &mut server);
        }
    }
}

/// A label counts for new flows only, whatever it says.
#[test]
fn a_changed_element_leaves_flows_alone() {
    let topology = Topology::new();
    for family in Family::ALL {
        let listener = topology.tcp_server(family);
        let server_udp = topology.udp_server(family);
        let mut stream = topology.connect(family, PLAIN, DEADLINE).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        let socket: UdpSocket = topology.udp_client(family, PLAIN);
        let mut buffer = [0; 16];
        socket.send(b"ping").unwrap();
        receive(|| server_udp.recv_from(&mut buffer)).unwrap();

        topology.gateway.run(|| topology.nft.delete(&[(LABEL, family)]).unwrap());
        talk(&mut stream, &mut server);
        socket.send(b"ping").unwrap();
        receive(|| server_udp.recv_from(&mut buffer)).unwrap();
    }
    topology.assert_clean();
}

/// A socket's priority goes along over loopback, and a VLAN device makes one of a tag's: those are no labels.
#[test]
fn ordinary_priorities_are_no_labels() {
    let topology = Topology::new();
    for address in ["127.0.0.1:0", "[::1]:0"] {
        topology.gateway.run(|| {
            for priority in 1..16 {
                let listener = std::net::TcpListener::bind(address).unwrap();
                let to = listener.local_addr().unwrap();
                let kind = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
                let fd = socket(kind, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
                setsockopt(&fd, sockopt::Priority, &priority).unwrap();
                setsockopt(&fd, sockopt::SendTimeout, &TimeVal::seconds(1)).unwrap();
                connect(fd.as_raw_fd(), &SockaddrStorage::from(to)).unwrap();
            }
        });
    }
    assert_eq!(topology.counter(counter::UNKNOWN_LABEL), 0);
    topology.assert_clean();
}

//! Flows as the kernel has them, compared with what `conntrack` says.

use portico::driver::{
    conntrack::{Conntrack, Flow, TcpState},
    nft::Family,
};

use crate::{
    netns::{DEADLINE, Netns, eventually, receive},
    topology::{MASQUERADE, PLAIN, Topology, backend, client, gateway, vip},
};

#[test]
fn flows_are_listed_counted_and_deleted() {
    let topology = Topology::new();
    topology.gateway.sysctl("netfilter/nf_conntrack_acct", "1");
    for family in Family::ALL {
        let listener = topology.tcp_server(family);
        let server = topology.udp_server(family);
        let stream = topology.connect(family, PLAIN, DEADLINE).unwrap();
        let accepted = listener.accept().unwrap();
        let socket = topology.udp_client(family, MASQUERADE);
        socket.send(b"ping").unwrap();
        let (_, peer) = receive(|| server.recv_from(&mut [0; 16])).unwrap();

        let (mut conntrack, flows) = topology.gateway.run(|| {
            let mut conntrack = Conntrack::open().unwrap();
            let flows = conntrack.flows(|flow| flow.original.source.ip() == client(family)).unwrap();
            (conntrack, flows)
        });
        assert_eq!(flows.len(), 2);
        let udp = conntrack.udp_flows(|flow| flow.original.source.ip() == client(family)).unwrap();
        assert_eq!(udp.len(), 1, "{udp:?}");
        assert_eq!(udp[0].protocol, 17);
        let tcp = flows.iter().find(|flow| flow.protocol == 6).unwrap();
        assert_eq!(tcp.original.source, stream.local_addr().unwrap());
        assert_eq!(tcp.original.destination, (vip(family), PLAIN).into());
        assert_eq!((tcp.reply.source, tcp.reply.destination), (backend(family), tcp.original.source));
        assert_eq!(tcp.state, Some(TcpState::Established));
        assert!(tcp.dst_nat && !tcp.src_nat && tcp.seen_reply && tcp.assured);
        assert!(tcp.timeout_s > 86_400 * 4, "the kernel's default is five days");
        let traffic = tcp.traffic.unwrap();
        // SYN and ACK, SYN-ACK, and what had to be sent again.
        assert!(traffic.original.packets >= 2 && traffic.reply.packets >= 1);
        let udp = flows.iter().find(|flow| flow.protocol == 17).unwrap();
        assert_eq!(udp.reply.destination, peer);
        assert_eq!(peer.ip(), gateway(family));
        assert_eq!(udp.state, None);
        assert!(udp.dst_nat && udp.src_nat && !udp.seen_reply && !udp.assured);
        assert!((1..=30).contains(&udp.timeout_s));
        let header = if family == Family::V4 { 28 } else { 48 };
        assert_eq!(udp.traffic.unwrap().original.bytes, header + 4);

        // Neighbour discovery over IPv6 is tracked while it lasts.
        assert!(conntrack.count().unwrap().entries >= 2);
        assert!(conntrack.delete(udp).unwrap());
        assert!(!conntrack.delete(udp).unwrap());
        // What only looks like the flow is left alone.
        let other = Flow { id: tcp.id.map(|id| !id), ..tcp.clone() };
        assert!(!conntrack.delete(&other).unwrap());
        assert!(conntrack.delete(tcp).unwrap());
        assert_eq!(conntrack.flows(|flow| flow.original.source.ip() == client(family)).unwrap(), []);
        drop((stream, accepted));
    }
}

#[test]
fn marks_and_zones_are_part_of_a_flow() {
    let netns = Netns::new();
    for addresses in ["-s 192.0.2.1 -d 192.0.2.2", "-s 2001:db8::1 -d 2001:db8::2"] {
        netns.sh(&format!(
            "conntrack -I {addresses} -p tcp --sport 1000 --dport 80 --state CLOSE_WAIT --timeout 60 \
               --mark 77 --zone 5 2>/dev/null
             conntrack -I {addresses} -p udp --sport 1000 --dport 80 --timeout 60 2>/dev/null"
        ));
        let mut conntrack = netns.run(|| Conntrack::open().unwrap());
        let mut flows = conntrack.flows(|_| true).unwrap();
        flows.sort_by_key(|flow| flow.protocol);
        assert_eq!(flows.len(), 2);
        let tcp = &flows[0];
        assert_eq!((tcp.mark, tcp.zone, tcp.state), (77, 5, Some(TcpState::CloseWait)));
        assert!(!tcp.seen_reply && !tcp.dst_nat);
        assert_eq!(TcpState::CloseWait.to_string(), "CLOSE_WAIT");
        assert_eq!((flows[1].mark, flows[1].zone, flows[1].traffic), (0, 0, None));
        for flow in &flows {
            assert!(conntrack.delete(flow).unwrap());
        }
        eventually("the table is empty", || conntrack.count().unwrap().entries == 0);
        assert!(conntrack.count().unwrap().max > 0);
    }
}

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

/// Prints how long it takes to look through as many flows as a busy gateway has, half of them UDP.
#[test]
#[ignore = "prints figures"]
fn flows_at_scale() {
    const FLOWS: u32 = 200_000;
    let netns = Netns::new();
    let mut lines = String::new();
    for n in 0..FLOWS {
        let (high, low) = (n / 50_000, 1_000 + n % 50_000);
        let source = format!("198.18.{high}.1");
        lines += &match n % 2 {
            0 => format!("-I -s {source} -d 192.0.2.1 -p udp --sport {low} --dport 53 --timeout 600\n"),
            _ => format!(
                "-I -s {source} -d 192.0.2.1 -p tcp --sport {low} --dport 80 --timeout 600 --state ESTABLISHED\n"
            ),
        };
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), lines).unwrap();
    netns.sh(&format!("conntrack --load-file {} >/dev/null 2>&1", file.path().display()));
    let mut conntrack = netns.run(|| Conntrack::open().unwrap());
    println!("{} entries", conntrack.count().unwrap().entries);
    let timed = |what: &str, f: &mut dyn FnMut() -> usize| {
        let began = std::time::Instant::now();
        let count = f();
        println!("{what}: {count} in {:?}", began.elapsed());
    };
    timed("all flows", &mut || conntrack.flows(|_| false).map(|_| 0).unwrap());
    timed("UDP flows, none stale", &mut || conntrack.udp_flows(|_| false).unwrap().len());
    timed("UDP flows, all stale", &mut || conntrack.udp_flows(|_| true).unwrap().len());
    let stale = conntrack.udp_flows(|flow| flow.original.source.port() < 11_000).unwrap();
    timed("deleted", &mut || stale.iter().filter(|flow| conntrack.delete(flow).unwrap()).count());
}

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr, SocketAddr},
};

use super::{Target, translate};
use crate::{
    abi::{Counter, FrontendKey, TCP, UDP},
    testing::{Family, port, tables},
};

const COOKIE: u64 = 4711;

fn peer(addr: IpAddr, port: u16, protocol: u8) -> FrontendKey {
    FrontendKey::new(addr.into(), port.to_be_bytes(), protocol)
}

/// The second backend, which only [`crate::abi::Frontend::inside`] leads to.
fn inside(family: &Family, port: u16) -> Result<Target, Counter> {
    let backend = SocketAddr::new(family.backends[1], 8_080).into();
    Ok(Target { backend, service: u32::from(port) })
}

#[test]
fn each_peer_is_sent_where_it_belongs() {
    let tables = tables();
    for family in &Family::ALL {
        let any = IpAddr::from(family.any());
        let Family { vip, node, private, elsewhere, client, .. } = *family;
        for protocol in [TCP, UDP] {
            let cases = [
                (vip, port::PLAIN, inside(family, port::PLAIN)),
                (vip, port::MASQUERADED, inside(family, port::MASQUERADED)),
                (vip, port::REFUSED, Err(Counter::Refuse)),
                (vip, port::WITHHELD, Err(Counter::Withhold)),
                (vip, port::NO_TABLE, Err(Counter::NoBackend)),
                (vip, port::NO_SLOTS, Err(Counter::NoBackend)),
                (vip, port::EMPTY_SLOTS, Err(Counter::NoBackend)),
                (vip, port::TORN, Err(Counter::NoBackend)),
                (vip, port::NO_BACKEND, Err(Counter::NoBackend)),
                (vip, port::UNSERVED, Err(Counter::NoFrontend)),
                (vip, port::NODE, Err(Counter::NoFrontend)),
                (node, port::NODE, inside(family, port::NODE)),
                (node, port::NODE_REFUSED, Err(Counter::Refuse)),
                (node, port::NODE_WITHHELD, Err(Counter::Withhold)),
                (node, port::UNSERVED, Err(Counter::NoFrontend)),
                // A frontend of the node's own address comes before a NodePort.
                (node, port::PLAIN, inside(family, port::PLAIN)),
                (family.loopback(), port::NODE, inside(family, port::NODE)),
                (family.loopback(), port::NODE_REFUSED, Err(Counter::Refuse)),
                (family.loopback(), port::PLAIN, Err(Counter::NoFrontend)),
                // connect(2) takes the unspecified address for loopback.
                (any, port::NODE, inside(family, port::NODE)),
                (any, port::UNSERVED, Err(Counter::NoFrontend)),
                (private, port::NODE, Err(Counter::NoFrontend)),
                (elsewhere, port::NODE, Err(Counter::NoFrontend)),
                (client, port::PLAIN, Err(Counter::NoFrontend)),
            ];
            for (addr, port, expected) in cases {
                let peer = peer(addr, port, protocol);
                assert_eq!(translate(&peer, COOKIE, &tables), expected, "{peer:?}");
            }
        }
    }
}

#[test]
fn node_ports_are_served_on_all_of_127() {
    for addr in ["127.0.0.1", "127.1.2.3", "127.255.255.255"] {
        let peer = peer(addr.parse().unwrap(), port::NODE, TCP);
        assert_eq!(translate(&peer, COOKIE, &tables()), inside(&Family::V4, port::NODE), "{peer:?}");
    }
    for addr in ["126.255.255.255", "128.0.0.1", "::2", "::127.0.0.1"] {
        let peer = peer(addr.parse().unwrap(), port::NODE, TCP);
        assert_eq!(translate(&peer, COOKIE, &tables()), Err(Counter::NoFrontend), "{peer:?}");
    }
}

#[test]
fn a_v4_mapped_peer_is_an_ipv4_peer() {
    let IpAddr::V4(vip) = Family::V4.vip else { panic!("not IPv4") };
    for (addr, port) in [
        (vip.to_ipv6_mapped(), port::PLAIN),
        ("::ffff:127.0.0.1".parse().unwrap(), port::NODE),
        (Ipv6Addr::from([0, 0, 0, 0, 0, 0xffff, 0, 0]), port::NODE),
    ] {
        let peer = peer(addr.into(), port, TCP);
        assert_eq!(translate(&peer, COOKIE, &tables()), inside(&Family::V4, port), "{peer:?}");
    }
}

#[test]
fn sockets_spread_and_each_stays_with_its_backend() {
    const SOCKETS: u64 = 30_000;
    let tables = tables();
    for family in &Family::ALL {
        for protocol in [TCP, UDP] {
            let peer = peer(family.vip, port::SPREAD, protocol);
            let mut backends: BTreeMap<SocketAddr, u64> = BTreeMap::new();
            // The kernel gives out cookies in sequence.
            for cookie in 1..=SOCKETS {
                let target = translate(&peer, cookie, &tables);
                assert_eq!(target, translate(&peer, cookie, &tables));
                *backends.entry(target.unwrap().backend.into()).or_default() += 1;
            }
            assert_eq!(backends.len(), family.backends.len());
            let third = SOCKETS / 3;
            for (backend, sockets) in backends {
                assert!(sockets.abs_diff(third) < third / 20, "{backend}: {sockets} of {SOCKETS}");
            }
        }
    }
}

#[test]
fn one_socket_is_not_bound_to_one_backend_for_all_its_peers() {
    let tables = tables();
    let mut backends: Vec<SocketAddr> = (1..100)
        .flat_map(|cookie| {
            Family::ALL.map(|family| translate(&peer(family.vip, port::SPREAD, UDP), cookie, &tables))
        })
        .map(|target| target.unwrap().backend.into())
        .collect();
    backends.sort();
    backends.dedup();
    assert_eq!(backends.len(), 6);
}

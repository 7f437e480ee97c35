use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr, SocketAddr},
};

use super::{Origin, Target, translate};
use crate::{
    abi::{Counter, FrontendKey, TCP, UDP},
    testing::{Family, port, tables},
};

/// A process on this host; its network namespace is the first of all.
const fn host(cookie: u64) -> Origin {
    Origin { cookie, namespace: 1, host: true }
}

const HOST: Origin = host(4711);
const POD: Origin = Origin { cookie: 4711, namespace: 2, host: false };

fn peer(addr: IpAddr, port: u16, protocol: u8) -> FrontendKey {
    FrontendKey::new(addr.into(), port.to_be_bytes(), protocol)
}

/// The second backend, which only [`crate::abi::Frontend::host`] leads to.
fn inside(family: &Family, port: u16) -> Result<Target, Counter> {
    to(family, 1, port)
}

fn to(family: &Family, backend: usize, port: u16) -> Result<Target, Counter> {
    let backend = SocketAddr::new(family.backends[backend], 8_080).into();
    Ok(Target { backend, service: u32::from(port), restricted: false })
}

#[test]
fn each_peer_is_sent_where_it_belongs() {
    let tables = tables();
    for family in &Family::ALL {
        let any = IpAddr::from(family.any());
        let Family { vip, node, private, cluster_ip, unallocated, elsewhere, client, .. } = *family;
        for protocol in [TCP, UDP] {
            let cases = [
                (vip, port::PLAIN, inside(family, port::PLAIN)),
                (vip, port::MASQUERADED, to(family, 0, port::MASQUERADED)),
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
                (cluster_ip, port::PLAIN, inside(family, port::PLAIN)),
                (cluster_ip, port::UNSERVED, Err(Counter::UnservedPort)),
                (cluster_ip, port::NODE, Err(Counter::UnservedPort)),
                (unallocated, port::PLAIN, Err(Counter::Unallocated)),
                (private, port::NODE, Err(Counter::NoFrontend)),
                (elsewhere, port::NODE, Err(Counter::NoFrontend)),
                (client, port::PLAIN, Err(Counter::NoFrontend)),
            ];
            for (addr, port, expected) in cases {
                let peer = peer(addr, port, protocol);
                assert_eq!(translate(&peer, &HOST, &tables), expected, "{peer:?}");
            }
        }
    }
}

#[test]
fn pods_have_a_choice_of_their_own() {
    let tables = tables();
    for family in &Family::ALL {
        for (addr, port) in [(family.vip, port::PLAIN), (family.loopback(), port::NODE)] {
            assert_eq!(translate(&peer(addr, port, TCP), &POD, &tables), to(family, 2, port));
        }
    }
}

#[test]
fn a_restricted_frontend_is_translated_and_said_to_be_so() {
    for family in &Family::ALL {
        let target = translate(&peer(family.vip, port::RESTRICTED, UDP), &HOST, &tables());
        assert_eq!(
            target,
            to(family, 0, port::RESTRICTED).map(|target| Target { restricted: true, ..target })
        );
    }
}

#[test]
fn sockets_of_a_namespace_stay_together_if_the_service_says_so() {
    let tables = tables();
    for family in &Family::ALL {
        let sticky =
            |origin| translate(&peer(family.vip, port::STICKY, TCP), &origin, &tables).unwrap().backend;
        let of = |namespace| sticky(Origin { cookie: 1, namespace, host: false });
        let first: Vec<_> = (1..50).map(of).collect();
        let again =
            (1..50).map(|namespace| sticky(Origin { cookie: namespace + 99, namespace, host: false }));
        assert!(again.eq(first.iter().copied()));
        let others = (100..150).map(|cookie| sticky(Origin { cookie, namespace: cookie, host: false }));
        assert!(others.collect::<std::collections::HashSet<_>>().len() > 1);
    }
}

/// Ports of one family's service port have other backends than the other's.
#[test]
fn each_family_has_an_affinity_of_its_own() {
    let tables = tables();
    let ask = |family: &Family, cookie| {
        let peer = peer(family.vip, port::STICKY, UDP);
        translate(&peer, &Origin { cookie, namespace: 7, host: false }, &tables).unwrap().backend
    };
    let first = Family::ALL.map(|family| ask(&family, 1));
    for cookie in 2..50 {
        assert_eq!(Family::ALL.map(|family| ask(&family, cookie)), first);
    }
}

#[test]
fn node_ports_are_served_on_all_of_127() {
    for addr in ["127.0.0.1", "127.1.2.3", "127.255.255.255"] {
        let peer = peer(addr.parse().unwrap(), port::NODE, TCP);
        assert_eq!(translate(&peer, &HOST, &tables()), inside(&Family::V4, port::NODE), "{peer:?}");
    }
    for addr in ["126.255.255.255", "128.0.0.1", "::2", "::127.0.0.1"] {
        let peer = peer(addr.parse().unwrap(), port::NODE, TCP);
        assert_eq!(translate(&peer, &HOST, &tables()), Err(Counter::NoFrontend), "{peer:?}");
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
        assert_eq!(translate(&peer, &HOST, &tables()), inside(&Family::V4, port), "{peer:?}");
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
                let target = translate(&peer, &host(cookie), &tables);
                assert_eq!(target, translate(&peer, &host(cookie), &tables));
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
            Family::ALL.map(|family| translate(&peer(family.vip, port::SPREAD, UDP), &host(cookie), &tables))
        })
        .map(|target| target.unwrap().backend.into())
        .collect();
    backends.sort();
    backends.dedup();
    assert_eq!(backends.len(), 6);
}

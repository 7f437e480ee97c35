//! Interfaces, addresses and default routes.

use portico::{
    driver::link::Links,
    model::link::{Interface, Layer, Scope, Snapshot},
};

use crate::netns::Netns;

fn find<'a>(snapshot: &'a Snapshot, name: &str) -> &'a Interface {
    snapshot.interfaces.iter().find(|interface| interface.name == name).unwrap()
}

#[test]
fn a_snapshot_has_links_addresses_and_default_routes() {
    let netns = Netns::new();
    let peer = Netns::new();
    netns.sh(&format!(
        "ip link add near type veth peer name far
         ip link add out type veth peer name out netns {}
         ip link add above link near type macvlan
         ip link add bridge type bridge
         ip link set far master bridge
         ip tuntap add tunnel mode tun
         ip link set near mtu 1400
         ip addr add 192.0.2.1/24 dev near
         ip addr add 192.0.2.9 peer 192.0.2.10 dev near
         ip addr add 2001:db8::1/64 dev near nodad
         ip link set near up
         ip link set far up
         ip link set out up
         ip addr add 198.51.100.1/24 dev out
         ip route add default via 192.0.2.2
         ip route add default via 192.0.2.3 dev near table 100
         ip route add default metric 50 nexthop via 192.0.2.2 nexthop via 198.51.100.2
         ip route add unreachable default metric 900
         ip route add default via 2001:db8::2",
        peer.path()
    ));
    let snapshot = netns.run_async(async || Links::open().unwrap().snapshot().await.unwrap());

    let loopback = find(&snapshot, "lo");
    assert_eq!((loopback.layer, loopback.kind.as_deref(), loopback.up), (Layer::Loopback, None, true));
    assert_eq!(loopback.addresses[0].ip, std::net::Ipv4Addr::LOCALHOST);
    assert_eq!(loopback.addresses[0].scope, Scope::Host);

    let near = find(&snapshot, "near");
    assert_eq!((near.kind.as_deref(), near.layer, near.mtu), (Some("veth"), Layer::Ethernet, 1400));
    assert!(near.up);
    assert_eq!(near.lower, None, "a peer is not below");
    let addresses: Vec<(String, u8, Scope)> =
        near.addresses.iter().map(|a| (a.ip.to_string(), a.prefix_len, a.scope)).collect();
    assert_eq!(addresses[0], ("192.0.2.1".to_owned(), 24, Scope::Global));
    assert_eq!(addresses[1], ("192.0.2.9".to_owned(), 32, Scope::Global));
    assert_eq!(addresses[2], ("2001:db8::1".to_owned(), 64, Scope::Global));
    assert_eq!((addresses[3].1, addresses[3].2), (64, Scope::Link));

    let above = find(&snapshot, "above");
    assert_eq!((above.kind.as_deref(), above.lower, above.up), (Some("macvlan"), Some(near.index), false));
    let bridge = find(&snapshot, "bridge");
    assert_eq!((bridge.kind.as_deref(), bridge.lower), (Some("bridge"), None));
    assert_eq!(find(&snapshot, "far").controller, Some(bridge.index));
    assert_eq!(find(&snapshot, "tunnel").layer, Layer::None);
    let out = find(&snapshot, "out");
    assert_eq!(out.lower, None, "an index of another namespace");

    assert_eq!(snapshot.default_v4, [near.index, out.index].into());
    assert_eq!(snapshot.default_v6, [near.index].into());
}

#[test]
fn changes_are_seen() {
    let netns = Netns::new();
    netns.run_async(async || {
        let mut watch = Links::watch().unwrap();
        let links = Links::open().unwrap();
        let mut before = links.snapshot().await.unwrap();
        for change in [
            "ip link add near type veth peer name far",
            "ip link set near up",
            "ip addr add 192.0.2.1/24 dev near",
            "ip addr add 2001:db8::1/64 dev near nodad",
            "ip route add default dev near",
            "ip -6 route add default dev near",
            "ip -6 route del default dev near",
            "ip addr del 192.0.2.1/24 dev near",
            "ip link del near",
        ] {
            netns.sh(change);
            let after = loop {
                watch.changed().await.unwrap();
                let after = links.snapshot().await.unwrap();
                if after != before {
                    break after;
                }
            };
            before = after;
        }
    });
}

#[test]
fn a_connection_stays_in_the_namespace_it_was_opened_in() {
    let netns = Netns::new();
    netns.sh("ip link add unmistakable type veth peer name other");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let links = netns.run(|| {
        let _context = runtime.enter();
        Links::open().unwrap()
    });
    let snapshot = runtime.block_on(links.snapshot()).unwrap();
    find(&snapshot, "unmistakable");
}

use std::{
    collections::HashSet,
    mem::{offset_of, size_of},
    net::{IpAddr, SocketAddr},
};

use super::*;
use crate::testing::Family;

macro_rules! layout {
    ($($type:ident { $($field:ident),* })+) => {
        [$(
            [
                format!("{} {}", stringify!($type), size_of::<$type>()),
                $(format!("  {} {}", offset_of!($type, $field), stringify!($field)),)*
            ]
            .join("\n"),
        )+]
        .join("\n")
    };
}

const LAYOUT: &str = "\
Addr 16
FrontendKey 20
  0 addr
  16 port
  18 protocol
  19 reserved
Frontend 48
  0 service
  4 flags
  8 affinity
  12 outside
  20 pod
  28 host
  36 guard
Guard 12
  0 cookies
  4 flows
  8 source_flows
Rate 40
  0 alarm
  8 began
  16 asked
  24 opening
  28 opened
  32 routes
  36 asking
SourceRate 16
  0 began
  8 opened
  12 reserved
Choice 8
  0 table
  4 flags
Backend 20
  0 addr
  16 port
  18 reserved
Chunk 64
SocketKey 32
  0 cookie
  8 addr
  24 port
  26 protocol
  27 reserved
SocketPeer 24
  0 addr
  16 port
  18 flags
  20 service
Prefix 20
  0 length
  4 addr
SourceRange 24
  0 length
  4 source
Source 20
  0 service
  4 addr
Affinity 16
  0 seen
  8 backend
  12 reserved
Name 200
Hint 12
  0 magic
  4 label
  8 mark
TrafficKey 32
  0 backend
  16 service
  20 input
  24 output
  28 port
  30 protocol
  31 reply
Traffic 16
  0 packets
  8 bytes
InputKey 8
  0 device
  4 tag
Input 16
  0 interface
  4 flags
  8 mac
Output 12
  0 device
  4 tag
  6 flags
  8 mtu
LineKey 24
  0 addrs
  8 ends
  16 link
Line 64
  0 key
  24 src
  28 dst
  32 ports
  36 device
  40 service
  44 checked
  48 packets
  52 bytes
  56 hop
  58 flags
  60 network_delta
  62 transport_delta
FlowAddresses 64
  0 key_src
  16 key_dst
  32 src
  48 dst";

/// Maps outlive the daemon that made them.
#[test]
fn a_layout_changes_only_with_the_schema() {
    let layout = layout! {
        Addr {}
        FrontendKey { addr, port, protocol, reserved }
        Frontend { service, flags, affinity, outside, pod, host, guard }
        Guard { cookies, flows, source_flows }
        Rate { alarm, began, asked, opening, opened, routes, asking }
        SourceRate { began, opened, reserved }
        Choice { table, flags }
        Backend { addr, port, reserved }
        Chunk {}
        SocketKey { cookie, addr, port, protocol, reserved }
        SocketPeer { addr, port, flags, service }
        Prefix { length, addr }
        SourceRange { length, source }
        Source { service, addr }
        Affinity { seen, backend, reserved }
        Name {}
        Hint { magic, label, mark }
        TrafficKey { backend, service, input, output, port, protocol, reply }
        Traffic { packets, bytes }
        InputKey { device, tag }
        Input { interface, flags, mac }
        Output { device, tag, flags, mtu }
        LineKey { addrs, ends, link }
        Line {
            key, src, dst, ports, device, service, checked, packets, bytes, hop, flags, network_delta, transport_delta
        }
        FlowAddresses { key_src, key_dst, src, dst }
    };
    assert_eq!(
        (SCHEMA, layout.as_str()),
        (if NEXT { 7 } else { 6 }, LAYOUT),
        "raise SCHEMA, and STATE for its maps, and update this"
    );
}

#[test]
fn counters_have_unique_names_and_indexes() {
    let names: HashSet<&str> = Counter::ALL.iter().map(|counter| counter.name()).collect();
    assert_eq!(names.len(), Counter::ALL.len());
    let indexes: Vec<u32> =
        Hook::ALL.iter().flat_map(|hook| Counter::ALL.iter().map(|counter| counter.index(*hook))).collect();
    assert_eq!(indexes, (0..COUNTERS).collect::<Vec<_>>());
    for counter in Counter::ALL {
        let name = counter.name();
        assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{name} is no metric name");
        let help = counter.help().trim();
        assert!(help.starts_with(|c: char| c.is_uppercase()) && help.ends_with('.'), "{name}: {help}");
    }
}

/// As nftables 1.0 lists the elements of a map of type `classid`.
#[test]
fn a_label_is_shown_as_nft_shows_it() {
    for (label, text) in [
        (Label(1), "0:1"),
        (Label(10), "0:a"),
        (Label(0x1_0000), "1:0"),
        (Label(0xa_00bc), "a:bc"),
        (Label(0xfffe_ffff), "fffe:ffff"),
        (Label::PROBE, if NEXT { "e070:3" } else { "e060:3" }),
    ] {
        assert_eq!(label.to_string(), text);
        assert_eq!(format!("{label:?}"), text);
    }
}

#[test]
fn a_hint_is_taken_from_programs_of_this_schema_alone() {
    let hint = Hint::new(Label(Label::FIRST), MASQUERADE_MARK);
    assert!(hint.is_current());
    for schema in (0..=0xff).filter(|schema| *schema != SCHEMA) {
        assert!(!Hint { magic: Hint::magic(schema), ..hint }.is_current(), "schema {schema}");
    }
    for bit in 0..u32::BITS {
        assert!(!Hint { magic: Hint::MAGIC ^ 1 << bit, ..hint }.is_current(), "bit {bit}");
    }
}

#[test]
fn a_label_names_its_schema_and_nothing_else_has_it() {
    for id in [Label::FIRST, 0x1_0000, MAX_BACKENDS - 1, Label::RESERVED - 1] {
        let label = Label::backend(id);
        assert_eq!((label.id(), label.0 & Label::PECULIAR.0), (Some(id), 0));
        for mark in [0, MASQUERADE_MARK] {
            let handshake = label.handshake(mark);
            assert!(
                handshake.is_handshake() && handshake.0 & Label::PECULIAR.0 != 0 && handshake.id().is_none()
            );
            assert_eq!(handshake.0 & Label::SCHEMA.0, Label::OURS.0);
        }
    }
    for verdict in [Label::REJECT, Label::DROP, Label::PROBE] {
        assert_eq!(verdict.0 & Label::SCHEMA.0, Label::OURS.0);
        assert_eq!(verdict.0 & Label::PECULIAR.0, Label::PECULIAR.0);
        assert!(!verdict.is_handshake() && verdict.id().is_none());
    }
    // Ordinary priorities, labels of the first release, which had no schema in them, and of the schema after this one.
    let next = Label(Label::backend(16).0 + (1 << 20));
    for foreign in [Label(0), Label(15), Label(16), Label(Label::RESERVED - 1), next] {
        assert!(foreign.id().is_none() && foreign.0 & Label::SCHEMA.0 != Label::OURS.0, "{foreign}");
    }
}

#[test]
fn addresses_convert_there_and_back() {
    let all = Family::ALL.map(|family| [family.client, family.vip, family.node, family.loopback()]);
    let special = ["0.0.0.0", "255.255.255.255", "::", "::2", "::1.2.3.4", "ff02::1"];
    let special = special.map(|text| text.parse().unwrap());
    for ip in all.into_iter().flatten().chain(special) {
        let addr = Addr::from(ip);
        assert_eq!(IpAddr::from(addr), ip);
        assert_eq!(addr.is_v4(), ip.is_ipv4(), "{ip}");
        assert_eq!(addr.is_loopback(), ip.is_loopback(), "{ip}");
        assert_eq!(addr.words() == addr.any().words(), ip.is_unspecified(), "{ip}");
        assert_eq!(format!("{addr:?}"), ip.to_string());
        let socket_addr = SocketAddr::new(ip, 8_443);
        assert_eq!(SocketAddr::from(Backend::from(socket_addr)), socket_addr);
        assert_eq!(FrontendKey::new(addr, 8_443_u16.to_be_bytes(), TCP).socket_addr(), socket_addr);
    }
    let mapped: IpAddr = "::ffff:192.0.2.1".parse().unwrap();
    assert_eq!(Addr::from(mapped), Addr::v4([192, 0, 2, 1]), "v4-mapped is IPv4");
}

#[test]
fn a_name_is_kept_whole_or_not_at_all() {
    let name = "default/web:https/tcp";
    assert_eq!(Name::new(name).unwrap().as_str(), name);
    let label = "x".repeat(63);
    let longest = format!("{label}/{label}:{label}/sctp");
    assert_eq!(Name::new(&longest).unwrap().as_str(), longest);
    assert_eq!(Name::new(&"x".repeat(200)).map(|name| name.as_str().len()), Some(200));
    assert_eq!(Name::new(&"x".repeat(201)), None);
}

#[test]
fn a_slot_holds_any_id_and_tells_most_addresses_apart() {
    let addrs = |first: u128| (0..10_000).map(move |n| Addr((first + n).to_be_bytes()));
    let v4 = u128::from_be_bytes(Addr::v4([10, 0, 0, 0]).0);
    for first in [v4, 0x2001_0db8 << 96, 0xfd00 << 112 | 7 << 64] {
        for id in [1, 16, MAX_BACKENDS - 1] {
            assert!(
                addrs(first)
                    .all(|addr| Slot::new(id, &addr).id() == id && Slot::new(id, &addr).may_be(&addr))
            );
        }
        let one = Slot::new(1, &Addr((first + 20_000).to_be_bytes()));
        // One in 8,192.
        assert!(addrs(first).filter(|addr| one.may_be(addr)).count() < 20);
    }
}

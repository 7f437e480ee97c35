//! The table and its elements, without packets.

use std::net::SocketAddr;

use portico::driver::nft::{Ensured, Error, Family, Nft};

use crate::netns::Netns;

const TWO: [(u32, &str); 4] = [
    (0x1_0001, "10.2.0.2:8080"),
    (0x1_0001, "[fd02::2]:8080"),
    // nft leaves halves that are zero out when it prints them.
    (0x1_0000, "10.2.0.3:1"),
    (0x17, "[fd02::3]:65535"),
];

fn elements() -> Vec<(u32, SocketAddr)> {
    TWO.iter().map(|(label, addr)| (*label, addr.parse().unwrap())).collect()
}

fn loaded(nft: &Nft) -> Vec<(u32, SocketAddr)> {
    let mut elements = nft.load().unwrap();
    elements.sort();
    elements
}

fn sorted(mut elements: Vec<(u32, SocketAddr)>) -> Vec<(u32, SocketAddr)> {
    elements.sort();
    elements
}

#[test]
fn ensure_creates_keeps_and_removes() {
    let netns = Netns::new();
    netns.run(|| {
        let nft = Nft::new();
        assert!(!nft.present().unwrap());
        assert_eq!(nft.counters().unwrap(), []);
        assert!(matches!(nft.load(), Err(Error::Refused { .. })));
        assert_eq!(nft.ensure().unwrap(), Ensured::Created);
        assert_eq!(nft.ensure().unwrap(), Ensured::Kept);
        // Another process, which has written nothing, recognises it as well.
        assert_eq!(Nft::new().ensure().unwrap(), Ensured::Kept);
        assert_eq!(nft.load().unwrap(), []);
        let names: Vec<String> = nft.counters().unwrap().into_iter().map(|counter| counter.name).collect();
        assert_eq!(names, portico::driver::nft::counter::ALL);
        nft.remove().unwrap();
        nft.remove().unwrap();
        assert!(!nft.present().unwrap());
    });
}

#[test]
fn damage_is_noticed_and_mended() {
    let netns = Netns::new();
    let nft = Nft::new();
    netns.run(|| {
        nft.ensure().unwrap();
        nft.add(&elements()).unwrap();
    });
    for (damage, ensured) in [
        ("flush chain inet portico translate", Ensured::Repaired),
        ("flush chain inet portico peculiar; delete counter inet portico probe4", Ensured::Repaired),
        ("add rule inet portico settle accept", Ensured::Repaired),
        ("insert rule inet portico masquerading return", Ensured::Repaired),
        ("flush chain inet portico verdict; delete chain inet portico verdict", Ensured::Repaired),
        ("add chain inet portico verdict { policy drop; }", Ensured::Repaired),
        ("add table inet portico { flags dormant; }", Ensured::Repaired),
        ("add chain inet portico stranger", Ensured::Replaced),
        (
            "flush chain inet portico settle; delete chain inet portico settle
             add chain inet portico settle { type filter hook prerouting priority 7; }",
            Ensured::Replaced,
        ),
    ] {
        netns.sh(&format!("nft -f - <<END\n{damage}\nEND"));
        netns.run(|| {
            assert!(!nft.present().unwrap(), "{damage}");
            assert_eq!(nft.ensure().unwrap(), ensured, "{damage}");
            assert!(nft.present().unwrap());
            assert_eq!(loaded(&nft), sorted(elements()), "{damage}");
            assert_eq!(nft.ensure().unwrap(), Ensured::Kept);
        });
    }
}

#[test]
fn a_table_of_another_layout_is_replaced() {
    let netns = Netns::new();
    netns.sh("nft -f - <<END
table inet portico {
  map backends4 { type mark : ipv4_addr; elements = { 1 : 10.0.0.1 } }
  chain forgotten { type nat hook prerouting priority dstnat; }
}
END");
    netns.run(|| {
        let nft = Nft::new();
        assert_eq!(nft.ensure().unwrap(), Ensured::Replaced);
        assert_eq!(nft.load().unwrap(), []);
        assert_eq!(nft.ensure().unwrap(), Ensured::Kept);
    });
}

#[test]
fn a_flushed_ruleset_is_made_anew() {
    let netns = Netns::new();
    netns.sh("nft add table inet other");
    let nft = Nft::new();
    netns.run(|| nft.ensure().unwrap());
    netns.sh("nft flush ruleset");
    netns.run(|| {
        assert!(!nft.present().unwrap());
        assert_eq!(nft.ensure().unwrap(), Ensured::Created);
    });
}

#[test]
fn the_probes_elements_come_back() {
    let netns = Netns::new();
    let nft = Nft::new();
    netns.run(|| nft.ensure().unwrap());
    netns.sh(
        "nft flush map inet portico backends6; nft add element inet portico backends6 '{ ffff:3 : ::1 . 1 }'",
    );
    netns.run(|| {
        assert_eq!(nft.ensure().unwrap(), Ensured::Kept);
        assert_eq!(nft.load().unwrap(), []);
    });
    let listing = netns.sh("nft list map inet portico backends6");
    assert!(listing.contains("ffff:3 : 2001:db8::1 . 9"), "{listing}");
}

#[test]
fn changes_tolerate_what_is_there() {
    let netns = Netns::new();
    netns.run(|| {
        let nft = Nft::new();
        nft.ensure().unwrap();
        nft.add(&[]).unwrap();
        nft.add(&elements()).unwrap();
        nft.add(&elements()).unwrap();
        assert_eq!(loaded(&nft), sorted(elements()));

        let moved: Vec<(u32, SocketAddr)> = elements()
            .into_iter()
            .map(|(label, addr)| (label, SocketAddr::new(addr.ip(), 9999)))
            .chain([(0x18, "10.2.0.9:80".parse().unwrap())])
            .collect();
        nft.add(&moved).unwrap();
        assert_eq!(loaded(&nft), sorted(moved.clone()));

        nft.delete(&[(0x18, Family::V4), (0x18, Family::V6), (0x19, Family::V4)]).unwrap();
        nft.delete(&[(0x18, Family::V4)]).unwrap();
        assert_eq!(loaded(&nft).len(), moved.len() - 1);

        // Out and in at once, half of it not there.
        let gone: Vec<(u32, Family)> =
            moved.iter().map(|(label, addr)| (*label, Family::of(addr.ip()))).collect();
        nft.change(&gone, &elements()).unwrap();
        assert_eq!(loaded(&nft), sorted(elements()));
    });
}

#[test]
fn errors_say_what_was_attempted() {
    let netns = Netns::new();
    netns.run(|| {
        let error = Nft::with_binary("nft-that-is-not").ensure().unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot list table inet portico: no executable \"nft-that-is-not\" found; \
             it comes with the package nftables"
        );
        let error = Nft::new().add(&elements()).unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with("cannot list the backends in table inet portico: nft says: "), "{text}");
        assert!(text.contains("No such file or directory"), "{text}");
    });
    netns.sh("nft add table inet portico; nft add map inet portico backends4 '{ type mark : ipv4_addr; elements = { 1 : 10.0.0.1 } }'");
    let error = netns.run(|| Nft::new().load().unwrap_err());
    assert!(matches!(error, Error::Output { .. }), "{error}");
}

#[test]
fn commits_of_others_are_seen() {
    let netns = Netns::new();
    netns.run_async(async || {
        let nft = Nft::new();
        let mut watch = nft.watch().unwrap();
        nft.ensure().unwrap();
        nft.add(&elements()).unwrap();
        nft.add(&elements()).unwrap();
        nft.delete(&[(0x17, Family::V6)]).unwrap();
        // Same namespace, same thread: what comes after is queued after.
        let mut other =
            std::process::Command::new("nft").args(["add", "table", "inet", "other"]).spawn().unwrap();
        assert!(other.wait().unwrap().success());
        let commit = watch.changed().await.unwrap();
        assert_eq!(commit.process.as_deref(), Some("nft"));
        assert_eq!(commit.pid, Some(other.id()));
        nft.remove().unwrap();
        let mut other = std::process::Command::new("nft").args(["flush", "ruleset"]).spawn().unwrap();
        assert!(other.wait().unwrap().success());
        assert_eq!(watch.changed().await.unwrap().pid, Some(other.id()));
    });
}

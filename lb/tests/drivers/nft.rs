//! The table and its elements, without packets.

mod foreign;
mod listing;

use std::{net::SocketAddr, path::Path, process::Command};

use portico::driver::nft::{Ensured, Error, Family, Nft};

use crate::netns::Netns;

/// An nft of version 1.1.3 or later; `.ci/toolchain test` puts it there.
const NEWER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../.tools/nft-newer/nft");

/// Every nft that there is: what `PATH` has, and the newer one.
fn versions() -> [&'static str; 2] {
    assert!(Path::new(NEWER).exists(), "there is no {NEWER}: run .ci/toolchain test");
    ["nft", NEWER]
}

/// Whether this nft is the one of Debian 12.
fn is_debian_12s(nft: &str) -> bool {
    let output = Command::new(nft).arg("--version").output().unwrap();
    String::from_utf8(output.stdout).unwrap().contains("v1.0.6 ")
}

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
        "nft flush map inet portico backends6; nft add element inet portico backends6 '{ e060:3 : ::1 . 1 }'",
    );
    netns.run(|| {
        assert_eq!(nft.ensure().unwrap(), Ensured::Kept);
        assert_eq!(nft.load().unwrap(), []);
    });
    let listing = netns.sh("nft list map inet portico backends6");
    assert!(listing.contains("e060:3 : 2001:db8::1 . 9"), "{listing}");
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
fn errors_say_what_was_attempted_and_what_of_it_was_refused() {
    fn chain(error: &Error) -> String {
        format!("{error}: {}", std::error::Error::source(error).unwrap())
    }
    let netns = Netns::new();
    netns.run(|| {
        let absent = "No such file or directory (os error 2)";
        let error = Nft::new().load().unwrap_err();
        assert_eq!(
            chain(&error),
            format!("cannot list the backends in table inet portico: the kernel refuses the request: {absent}")
        );
        let error = Nft::new().add(&elements()).unwrap_err();
        assert_eq!(
            chain(&error),
            format!(
                "cannot change the backends in table inet portico: the kernel refuses elements of map backends4 from \
                 61:1 on: {absent}"
            )
        );
    });
    netns.sh("nft add table inet portico; nft add map inet portico backends4 '{ type mark : ipv4_addr; elements = { 1 : 10.0.0.1 } }'");
    let error = netns.run(|| Nft::new().load().unwrap_err());
    assert!(matches!(error, Error::Answer { .. }), "{error}");
}

/// Refused is all of it.
#[test]
fn of_a_refused_transaction_nothing_is_done() {
    let netns = Netns::new();
    let nft = Nft::new();
    netns.run(|| nft.ensure().unwrap());
    netns.sh("nft -f - <<END
delete table inet portico
table inet portico {
  map backends4 { typeof meta priority : ip daddr . th dport; }
  map backends6 { type classid : ipv6_addr; }
}
END");
    netns.run(|| {
        let error = nft.add(&elements()).unwrap_err();
        let text = error.to_string();
        assert!(text.ends_with("refuses elements of map backends6 from 61:1 on"), "{text}");
    });
    let listing = netns.sh("nft list table inet portico");
    assert!(!listing.contains("elements"), "{listing}");
}

#[test]
fn a_process_without_privileges_is_told_what_it_lacks() {
    let netns = Netns::new();
    let error = netns.run(|| {
        let nobody = 65_534;
        // SAFETY: no memory is involved. Unlike the function of this name in libc it changes the calling thread alone, which
        // ends after the test.
        let result = unsafe { libc::syscall(libc::SYS_setresuid, nobody, nobody, nobody) };
        assert_eq!(result, 0);
        Nft::new().remove().unwrap_err()
    });
    let told = "cannot delete table inet portico: not permitted; CAP_NET_ADMIN is needed, and that no other process owns \
                the table";
    assert_eq!(error.to_string(), told);
}

#[test]
fn many_elements_are_one_transaction() {
    let netns = Netns::new();
    netns.run_async(async || {
        let nft = Nft::new();
        let other = Nft::new();
        nft.ensure().unwrap();
        let many: Vec<(u32, SocketAddr)> = (0..200_000_u32)
            .map(|i| {
                let [_, a, b, c] = i.to_be_bytes();
                let addr = match i % 2 {
                    0 => format!("10.{a}.{b}.{c}:8080"),
                    _ => format!("[fd02::{:x}:{:x}]:8080", i >> 16, i & 0xffff),
                };
                (16 + i, addr.parse().unwrap())
            })
            .collect();
        let mut watch = other.watch().unwrap();
        nft.add(&many).unwrap();
        // The kernel is still enlarging the maps.
        assert!(loaded(&nft) == many);
        let keys: Vec<(u32, Family)> =
            many.iter().map(|(label, addr)| (*label, Family::of(addr.ip()))).collect();
        // Half of them are not there, which the kernel refuses each of the messages for.
        let absent = keys.iter().map(|(label, family)| (label + 1_000_000, *family));
        let both: Vec<_> = keys.iter().copied().zip(absent).flat_map(|(a, b)| [a, b]).collect();
        nft.delete(&both).unwrap();
        assert_eq!(nft.load().unwrap(), []);
        nft.remove().unwrap();
        // Committed were: all added, all deleted, the table removed. The kernel counts threads as processes.
        for _ in 0..3 {
            assert_eq!(watch.changed().await.unwrap().pid, Some(nix::unistd::gettid().as_raw() as u32));
        }
        std::future::poll_fn(|context| {
            let more = std::pin::pin!(watch.changed()).poll(context);
            assert!(more.is_pending(), "another commit: {more:?}");
            std::task::Poll::Ready(())
        })
        .await;
    });
}

/// Another name, and a comment that `nft list` shows.
#[test]
fn a_table_may_have_another_name_and_a_comment() {
    let netns = Netns::new();
    let nft = Nft::new();
    let second = Nft::with_table("portico-2").with_comment("of another version");
    netns.run(|| {
        assert_eq!(nft.ensure().unwrap(), Ensured::Created);
        assert_eq!(second.ensure().unwrap(), Ensured::Created);
        assert_eq!(nft.comment().unwrap().as_deref(), Some("schema 6"));
        assert_eq!(second.comment().unwrap().as_deref(), Some("of another version"));
        second.add(&elements()).unwrap();
        assert_eq!(nft.load().unwrap(), []);
        assert_eq!([nft.ensure().unwrap(), second.ensure().unwrap()], [Ensured::Kept; 2]);
        // A comment says nothing about what a table does.
        assert!(Nft::with_table("portico-2").present().unwrap());
    });
    for nft in versions() {
        let listing = netns.sh(&format!("{nft} list table inet portico-2"));
        assert!(listing.contains("comment \"of another version\""), "{listing}");
    }
    netns.run(|| {
        second.remove().unwrap();
        assert_eq!(second.comment().unwrap(), None);
        assert!(nft.present().unwrap());
    });
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
        let mut other = Command::new("nft").args(["add", "table", "inet", "other"]).spawn().unwrap();
        assert!(other.wait().unwrap().success());
        let commit = watch.changed().await.unwrap();
        assert_eq!(commit.process.as_deref(), Some("nft"));
        assert_eq!(commit.pid, Some(other.id()));
        nft.remove().unwrap();
        let mut other = Command::new("nft").args(["flush", "ruleset"]).spawn().unwrap();
        assert!(other.wait().unwrap().success());
        assert_eq!(watch.changed().await.unwrap().pid, Some(other.id()));
    });
}

/// Another version's table is left alone until its programs are replaced; then this version's has its name.
#[test]
fn a_table_takes_the_place_of_another_schemas_at_once() {
    // The first release had no comment, and no schema in its labels.
    for (schema, comment, label) in [(5, None, "0:11"), (7, Some("schema 7"), "70:11")] {
        let netns = Netns::new();
        let mut other = Nft::with_table("portico");
        if let Some(comment) = comment {
            other = other.with_comment(comment);
        }
        netns.run(|| other.ensure().unwrap());
        netns.sh(&format!("nft add element inet portico backends4 '{{ {label} : 10.2.0.2 . 8080 }}'"));
        let before = netns.sh("nft list table inet portico");
        let mut nft = netns.run(|| Nft::beside(Some(schema)).unwrap());
        assert_eq!(nft.name(), "portico_next");
        netns.run(|| {
            assert_eq!(nft.ensure().unwrap(), Ensured::Created);
            nft.add(&elements()).unwrap();
            assert_eq!(nft.load_other(schema).unwrap(), [(0x11, "10.2.0.2:8080".parse().unwrap())]);
            assert_eq!(nft.load_other(schema + 1).unwrap(), []);
            assert_eq!(loaded(&nft), sorted(elements()));
            assert_eq!(Nft::beside(None).unwrap().name(), "portico_next", "what a restart finds");
        });
        assert_eq!(netns.sh("nft list table inet portico"), before);

        netns.run(|| {
            nft.settle().unwrap();
            assert_eq!(nft.name(), "portico");
            assert_eq!(nft.ensure().unwrap(), Ensured::Kept);
            assert_eq!(loaded(&nft), sorted(elements()));
            nft.settle().unwrap();
            assert_eq!(Nft::beside(None).unwrap().name(), "portico");
        });
        assert_eq!(netns.sh("nft list tables").trim(), "table inet portico");
        let listing = netns.sh("nft list table inet portico");
        assert!(listing.contains("comment \"schema 6\"") && !listing.contains(label), "{listing}");
        netns.run(|| Nft::remove_all().unwrap());
        assert_eq!(netns.sh("nft list tables"), "");
    }
}

/// Nobody labels packets for it, so it is in nobody's way.
#[test]
fn a_table_of_another_schema_that_does_not_serve_is_replaced() {
    let netns = Netns::new();
    netns.run(|| {
        assert_eq!(Nft::with_table("portico").with_comment("schema 7").ensure().unwrap(), Ensured::Created);
        let nft = Nft::beside(None).unwrap();
        assert_eq!(nft.name(), "portico");
        assert_eq!(nft.ensure().unwrap(), Ensured::Replaced);
        assert_eq!(nft.comment().unwrap().as_deref(), Some("schema 6"));
        assert_eq!(nft.ensure().unwrap(), Ensured::Kept);
    });
}

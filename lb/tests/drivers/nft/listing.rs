//! What people see of the table with nft, whatever its version.

use std::net::SocketAddr;

use portico::driver::nft::{Ensured, Nft};

use super::{NEWER, elements, is_debian_12s, loaded, sorted, versions};
use crate::netns::Netns;

/// The rules in nft's input language, as they were written before Portico wrote them itself, and whether with synproxy.
const REFERENCE: [(&str, bool); 2] =
    [(include_str!("reference.nft"), true), (include_str!("reference-without-synproxy.nft"), false)];

fn table(synproxy: bool) -> Nft {
    if synproxy { Nft::new() } else { Nft::new().without_synproxy() }
}

/// The declarations of the maps of backends have changed on purpose: what nft 1.1.3 makes of the former ends nft 1.0.6.
const DECLARATIONS: [(&str, &str); 2] = [
    ("\ttype classid : ipv4_addr . inet_service\n", "\ttypeof meta priority : ip daddr . th dport\n"),
    ("\ttype classid : ipv6_addr . inet_service\n", "\ttypeof meta priority : ip6 daddr . th dport\n"),
];

fn write(netns: &Netns, nft: &str, text: &str) {
    netns.sh(&format!("{nft} -f - <<'END'\n{text}\nEND"));
}

/// The listing, its blocks sorted: their order is that of their creation.
fn list(netns: &Netns, nft: &str) -> Vec<String> {
    let listing = netns.sh(&format!("{nft} list table inet portico"));
    let body =
        listing.strip_prefix("table inet portico {\n").and_then(|rest| rest.strip_suffix("}\n")).unwrap();
    let mut blocks: Vec<String> = body.split("\n\n").map(|block| block.trim_end().to_owned()).collect();
    blocks.sort();
    blocks
}

#[test]
fn every_nft_prints_what_it_prints_of_the_reference() {
    for (reference, synproxy) in REFERENCE {
        let (written, ours) = (Netns::new(), Netns::new());
        write(&written, "nft", reference);
        let table = table(synproxy);
        assert_eq!(ours.run(|| table.ensure().unwrap()), Ensured::Created);
        for nft in versions() {
            let mut expected = list(&written, nft);
            for (before, now) in DECLARATIONS {
                let found = expected.iter_mut().find(|block| block.contains(before)).expect(before);
                *found = found.replace(before, now);
            }
            assert_eq!(list(&ours, nft), expected, "as {nft} prints it");
        }
    }
}

/// The kernel has the same rules as of the reference: no other step, no other order.
#[test]
fn a_table_that_nft_wrote_is_recognised_or_mended_without_touching_elements() {
    for (reference, synproxy) in REFERENCE {
        for nft in versions() {
            let netns = Netns::new();
            write(&netns, nft, reference);
            let handle = |netns: &Netns| {
                netns.sh(&format!("{NEWER} -a -t list ruleset | grep 'table inet portico {{'"))
            };
            let before = handle(&netns);
            netns.run(|| {
                let table = table(synproxy);
                table.add(&elements()).unwrap();
                let ensured = table.ensure().unwrap();
                match is_debian_12s(nft) {
                    true => assert_eq!(ensured, Ensured::Kept, "{nft}"),
                    // Newer ones use other registers.
                    false => {
                        assert!(matches!(ensured, Ensured::Kept | Ensured::Repaired), "{nft}: {ensured:?}");
                    }
                }
                assert_eq!(loaded(&table), sorted(elements()));
                assert_eq!(table.ensure().unwrap(), Ensured::Kept);
            });
            assert_eq!(handle(&netns), before, "it is another table");
        }
    }
}

#[test]
fn elements_are_printed_as_labels_and_backends() {
    let netns = Netns::new();
    let nft = Nft::new();
    netns.run(|| {
        nft.ensure().unwrap();
        nft.add(&elements()).unwrap();
    });
    for nft in versions() {
        let listing = netns.sh(&format!("{nft} list table inet portico"));
        for element in [
            "61:1 : 10.2.0.2 . 8080",
            "61:1 : fd02::2 . 8080",
            "61:0 : 10.2.0.3 . 1",
            "60:17 : fd02::3 . 65535",
        ] {
            let short = element.replace("61:0 ", "61: ");
            assert!(listing.contains(element) || listing.contains(&short), "{element}: {listing}");
        }
        let got = netns.sh(&format!("{nft} get element inet portico backends4 '{{ 61:1 }}'"));
        assert!(got.contains("10.2.0.2 . 8080"), "{got}");
    }
}

/// What nft writes, we read, and the other way round.
#[test]
fn elements_are_the_same_to_nft_and_to_us() {
    let netns = Netns::new();
    let table = Nft::new();
    netns.run(|| table.ensure().unwrap());
    for (nft, port) in versions().into_iter().zip([8080, 8081]) {
        netns.sh(&format!(
            "{nft} add element inet portico backends4 '{{ 62:{port} : 10.2.0.9 . {port} }}'
             {nft} add element inet portico backends6 '{{ 62:{port} : fd02::9 . {port} }}'"
        ));
        let id = 2 << 16 | u32::from_str_radix(&port.to_string(), 16).unwrap();
        let expected = ["10.2.0.9", "fd02::9"].map(|ip| (id, SocketAddr::new(ip.parse().unwrap(), port)));
        netns.run(|| {
            let loaded = table.load().unwrap();
            assert!(expected.iter().all(|element| loaded.contains(element)), "{nft}: {loaded:?}");
        });
    }
}

//! Other people's tables beside ours.

use std::{
    net::SocketAddr,
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use portico::driver::nft::{Ensured, Family, Nft};

use super::{NEWER, elements, is_debian_12s, loaded, sorted, versions};
use crate::netns::Netns;

/// Sets by names of types. nft 1.1.3 and later describe them in a way that nft 1.0.6 ends by a segmentation fault over,
/// whatever it is asked for.
const FOREIGN: &str = "table inet foreign {
  set addresses { type ipv4_addr; elements = { 192.0.2.1 } }
  set interfaces { type ifname; elements = { \"eth0\" } }
  map verdicts { type ipv4_addr . inet_service : verdict; }
  chain input { type filter hook input priority 0; ip saddr @addresses iifname @interfaces accept; }
}";

#[test]
fn the_table_is_kept_beside_tables_of_any_nft() {
    for nft in versions() {
        let netns = Netns::new();
        netns.sh(&format!("{nft} -f - <<'END'\n{FOREIGN}\nEND"));
        if nft == NEWER && is_debian_12s("nft") {
            let listed = netns.run(|| Command::new("nft").args(["list", "tables"]).status().unwrap());
            assert!(!listed.success(), "nft 1.0.6 survives it, so this test shows nothing");
        }
        let table = Nft::new();
        netns.run(|| {
            assert_eq!(table.ensure().unwrap(), Ensured::Created);
            assert_eq!(table.ensure().unwrap(), Ensured::Kept);
            table.add(&elements()).unwrap();
            assert_eq!(loaded(&table), sorted(elements()));
            table.delete(&[(0x17, Family::V6), (0x99, Family::V4)]).unwrap();
            assert_eq!(table.load().unwrap().len(), elements().len() - 1);
        });
        netns.sh(&format!("{NEWER} flush chain inet portico settle"));
        netns.run(|| {
            assert!(!table.present().unwrap());
            assert_eq!(table.ensure().unwrap(), Ensured::Repaired);
            assert_eq!(Nft::new().ensure().unwrap(), Ensured::Kept);
            assert_eq!(table.counters().unwrap().len(), portico::driver::nft::counter::ALL.len());
            table.remove().unwrap();
        });
        assert_eq!(netns.sh(&format!("{NEWER} list tables")), "table inet foreign\n");
    }
}

/// Ours end no nft, whoever has made the namespace's other tables.
#[test]
fn every_nft_works_beside_the_table() {
    let netns = Netns::new();
    netns.run(|| Nft::new().ensure().unwrap());
    for nft in versions() {
        netns.sh(&format!(
            "{nft} list ruleset >/dev/null; {nft} add table ip other; {nft} delete table ip other"
        ));
    }
}

/// Lists are read again while others change the ruleset.
#[test]
fn a_list_that_others_interrupt_is_read_again() {
    let netns = Netns::new();
    let table = Nft::new();
    let many: Vec<(u32, SocketAddr)> =
        (0..20_000_u32).map(|i| (16 + i, format!("[fd02::{i:x}]:80").parse().unwrap())).collect();
    netns.run(|| {
        table.ensure().unwrap();
        table.add(&many).unwrap();
    });
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            netns.run(|| {
                let other = Nft::with_table("other");
                while !done.load(Ordering::Relaxed) {
                    other.ensure().unwrap();
                    other.remove().unwrap();
                    // Its commits should fall into lists, but not into each of them.
                    for _ in 0..3 {
                        assert_eq!(loaded(&table).len(), many.len());
                    }
                }
            });
        });
        netns.run(|| {
            for _ in 0..20 {
                assert_eq!(loaded(&table), many);
                assert!(table.present().unwrap());
            }
        });
        done.store(true, Ordering::Relaxed);
    });
}

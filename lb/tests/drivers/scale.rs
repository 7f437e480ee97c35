//! The size a node is planned for. Slow, so run by name: `cargo test --test drivers -- --ignored --nocapture scale`.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    process::Command,
    time::{Duration, Instant},
};

use portico::driver::{
    conntrack::Conntrack,
    nft::{Ensured, Family, Nft},
};

use crate::netns::Netns;

/// 250,000 backends, half of them IPv6.
const EACH: u32 = 125_000;

fn timed<T>(what: &str, f: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let value = f();
    let took = start.elapsed();
    println!("{what}: {took:.1?}");
    (value, took)
}

fn backend(family: Family, i: u32) -> (u32, SocketAddr) {
    let ip = match family {
        Family::V4 => Ipv4Addr::from_bits(10 << 24 | i).into(),
        Family::V6 => Ipv6Addr::from_bits(0xfd02 << 112 | u128::from(i)).into(),
    };
    (i, SocketAddr::new(ip, 8080))
}

fn max_rss_kib(who: libc::c_int) -> i64 {
    // SAFETY: all zeroes is a valid `rusage`, and the kernel writes one to where the pointer leads.
    unsafe {
        let mut usage = std::mem::zeroed::<libc::rusage>();
        assert_eq!(libc::getrusage(who, &raw mut usage), 0);
        usage.ru_maxrss
    }
}

#[test]
#[ignore = "takes most of a minute and prints figures"]
fn a_quarter_of_a_million_backends() {
    let netns = Netns::new();
    netns.run(|| {
        let nft = Nft::new();
        timed("ensure, cold", || nft.ensure().unwrap());
        let v4: Vec<_> = (1..=EACH).map(|i| backend(Family::V4, i)).collect();
        let v6: Vec<_> = (1..=EACH).map(|i| backend(Family::V6, i)).collect();
        timed("add 100,000", || nft.add(&v4[..100_000]).unwrap());
        timed("add the rest", || nft.add(&[&v4[100_000..], &v6[..]].concat()).unwrap());
        let mut slow = Duration::ZERO;
        for i in 0..20 {
            let one = [backend(Family::V4, EACH + 1 + i)];
            let (_, add) = timed("add 1", || nft.add(&one).unwrap());
            let (_, delete) = timed("delete 1", || nft.delete(&[(one[0].0, Family::V4)]).unwrap());
            slow = slow.max(add).max(delete);
        }
        assert!(slow < Duration::from_secs(1), "one change costs {slow:?}");
        let (_, present) = timed("present", || assert!(nft.present().unwrap()));
        assert!(present < Duration::from_millis(500));
        timed("counters", || nft.counters().unwrap());
        timed("ensure, nothing to do", || assert_eq!(nft.ensure().unwrap(), Ensured::Kept));
        let (elements, _) = timed("load all", || nft.load().unwrap());
        assert_eq!(elements.len(), 2 * EACH as usize);
        assert!(
            Command::new("nft")
                .args(["flush", "chain", "inet", "portico", "settle"])
                .status()
                .unwrap()
                .success()
        );
        timed("repair", || assert_eq!(nft.ensure().unwrap(), Ensured::Repaired));
        assert!(
            Command::new("nft")
                .args(["add", "chain", "inet", "portico", "stranger"])
                .status()
                .unwrap()
                .success()
        );
        timed("replace", || assert_eq!(nft.ensure().unwrap(), Ensured::Replaced));
        let all: Vec<_> = elements.iter().map(|(label, addr)| (*label, Family::of(addr))).collect();
        let twice = [&all[..], &[(EACH + 1, Family::V4)]].concat();
        timed("delete all, and one that is gone", || nft.delete(&twice).unwrap());
        assert_eq!(nft.load().unwrap(), []);
    });
    for (what, who) in [("nft", libc::RUSAGE_CHILDREN), ("this process", libc::RUSAGE_SELF)] {
        println!("largest resident size of {what}: {} MB", max_rss_kib(who) >> 10);
    }
}

#[test]
#[ignore = "takes some seconds and prints figures"]
fn a_hundred_thousand_flows() {
    const FLOWS: u32 = 120_000;
    let netns = Netns::new();
    netns.run(|| {
        let nft = Nft::new();
        nft.ensure().unwrap();
        // One datagram each to a discarding socket of this namespace.
        let server = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let to = server.local_addr().unwrap();
        for i in 0..FLOWS {
            let from = Ipv4Addr::from_bits(0x7f01_0000 + (i >> 12));
            let socket = std::net::UdpSocket::bind((from, 20_000 + (i & 0xfff) as u16)).unwrap();
            socket.send_to(&[], to).unwrap();
        }
        let mut conntrack = Conntrack::open().unwrap();
        let (count, _) = timed("count", || conntrack.count().unwrap());
        println!("{count:?}");
        let (flows, took) = timed("list", || conntrack.flows(|_| true).unwrap());
        println!("{} flows", flows.len());
        assert!(flows.len() > FLOWS as usize / 2, "the table holds {count:?}");
        assert!(took < Duration::from_secs(10));
        let (_, took) = timed("delete 1,000", || {
            flows.iter().take(1_000).for_each(|flow| assert!(conntrack.delete(flow).unwrap()));
        });
        assert!(took < Duration::from_secs(5));
    });
}

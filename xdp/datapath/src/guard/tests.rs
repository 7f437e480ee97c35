use std::net::SocketAddr;

use super::*;
use crate::{
    abi::UDP,
    testing::{Family, Layers, port},
};

/// In milliseconds, and not the first.
fn clock(now: u64) -> Time {
    Time((1 + now) * 1_000_000)
}

/// Milliseconds.
const SECOND: u64 = 1_000;

fn guard(cookies: u32, flows: u32) -> Guard {
    Guard { cookies, flows, source_flows: 0 }
}

/// Runs a test on a value as a map holds it.
fn seen<T>(test: impl FnOnce(Seen) -> T) -> (T, Rate) {
    let mut rate = Rate::default();
    // SAFETY: it outlives the test.
    let value = test(unsafe { Seen::new(&raw mut rate) });
    (value, rate)
}

#[test]
fn too_many_syns_in_a_second_ask_for_cookies_and_for_a_while_after() {
    let guard = guard(100, 0);
    seen(|seen| {
        let start = 1_000;
        for n in 0..99 {
            seen.opening(&guard, clock(start + n));
        }
        assert!(!seen.asks_for_cookies(&guard, clock(start + 99)), "99 in a second");
        seen.opening(&guard, clock(start + 99));
        assert!(seen.asks_for_cookies(&guard, clock(start + 99)), "100");
        let second = SECOND;
        assert!(seen.asks_for_cookies(&guard, clock(start + 99 + HOLD * second - 1)));
        assert!(!seen.asks_for_cookies(&guard, clock(start + 99 + HOLD * second)));
        assert!(!seen.takes_cookies(&guard, clock(start + 99)), "none could be asked");
        seen.asked(5, clock(start + 100));
        assert!(seen.takes_cookies(&guard, clock(start + 100 + GRACE * second - 1)));
        assert!(!seen.takes_cookies(&guard, clock(start + 100 + GRACE * second)));
        assert!(!seen.takes_cookies(&Guard::default(), clock(start + 100)), "not any more");
    });
}

#[test]
fn as_many_over_more_than_a_second_do_not() {
    let guard = guard(100, 0);
    let (_, rate) = seen(|seen| {
        for n in 0..1_000 {
            seen.opening(&guard, clock(1_000 + 11 * n));
        }
    });
    assert_eq!(rate.alarm, 0);
}

#[test]
fn one_is_always_and_zero_is_never() {
    seen(|seen| {
        seen.opening(&guard(1, 0), clock(1));
        assert!(seen.asks_for_cookies(&guard(1, 0), clock(1)));
        assert!(!seen.asks_for_cookies(&guard(0, 0), clock(1)));
    });
    seen(|seen| {
        (0..1_000_000).for_each(|_| seen.opening(&guard(0, 0), clock(1)));
        assert!(!seen.asks_for_cookies(&guard(1, 0), clock(1)), "nothing was counted against it");
    });
}

#[test]
fn a_service_takes_so_many_connections_in_a_second() {
    let guard = guard(0, 10);
    seen(|seen| {
        assert_eq!((0..20).filter(|_| seen.opened(&guard, clock(5_000))).count(), 10);
        assert!(!seen.opened(&guard, clock(5_000 + SECOND - 1)), "the same second");
        assert!(seen.opened(&guard, clock(5_000 + SECOND)), "the next one");
        assert!(seen.opened(&guard, clock(5_000 + SECOND - 1)), "another CPU's clock");
    });
}

#[test]
fn routes_are_asked_for_once_a_second_and_destination() {
    let guard = guard(1, 0);
    let [v4, v6] = [Family::V4, Family::V6].map(|family| packet(&family, TCP, SYN));
    seen(|seen| {
        let asked = std::cell::Cell::new(0);
        let ask = |packet: &Packet, answer: bool| {
            seen.is_routed(packet, || {
                asked.set(asked.get() + 1);
                answer
            })
        };
        seen.opening(&guard, clock(1));
        assert!(ask(&v4, true) && ask(&v4, false) && ask(&v4, false));
        assert!(!ask(&v6, false) && !ask(&v6, true), "the other family");
        assert_eq!(asked.get(), 2);
        seen.opening(&guard, clock(1 + SECOND));
        assert!(!ask(&v4, false) && !ask(&v4, true));
        assert_eq!(asked.get(), 3);
    });
}

/// Whoever forges sources would take everybody's place.
#[test]
fn as_many_as_a_limit_lets_in_ask_for_cookies() {
    let guard = guard(10_000, 50);
    seen(|seen| {
        (0..50).for_each(|_| seen.opening(&guard, clock(1)));
        assert!(!seen.asks_for_cookies(&guard, clock(1)));
        seen.opening(&guard, clock(1));
        assert!(seen.asks_for_cookies(&guard, clock(1)));
        assert!(seen.may_repeat(clock(3 * SECOND)) && !seen.may_repeat(clock(6 * SECOND)));
    });
}

#[test]
fn each_source_has_a_limit_of_its_own() {
    let guard = Guard { source_flows: 3, ..Guard::default() };
    let mut rate = SourceRate { began: clock(7).0, opened: 1, reserved: 0 };
    // SAFETY: a value, as of a map.
    let mut open = |now| unsafe { opened_by_source(&raw mut rate, &guard, clock(now)) };
    assert_eq!((0..5).filter(|_| open(8)).count(), 2);
    assert!(open(7 + SECOND));
    let [a, b] =
        ["2001:db8:1:2:3:4:5:6", "2001:db8:1:2::1"].map(|ip| ip.parse::<std::net::IpAddr>().unwrap());
    assert_eq!(source(1, &a.into()), source(1, &b.into()), "hosts of one network");
    let [a, b] = ["192.0.2.1", "192.0.2.2"].map(|ip| ip.parse::<std::net::IpAddr>().unwrap());
    assert_ne!(source(1, &a.into()), source(1, &b.into()));
}

fn packet(family: &Family, protocol: u8, flags: u8) -> Packet {
    let from = SocketAddr::new(family.client, port::CLIENT);
    let to = SocketAddr::new(family.vip, port::PLAIN);
    let packet = crate::packet::ethernet(&Layers::new(protocol, from, to).frame()[..]).unwrap();
    Packet { flags, ..packet }
}

#[test]
fn what_no_host_sends_is_nonsense() {
    for family in &Family::ALL {
        for flags in [SYN, SYN | ACK, ACK, FIN | ACK, RST, RST | ACK] {
            assert!(!is_nonsense(&packet(family, TCP, flags)), "{flags:x}");
        }
        for flags in [0, FIN, SYN | FIN, SYN | RST, FIN | RST, SYN | FIN | ACK, SYN | RST | ACK] {
            assert!(is_nonsense(&packet(family, TCP, flags)), "{flags:x}");
        }
        let good = packet(family, UDP, 0);
        assert!(!is_nonsense(&good));
        assert!(is_nonsense(&Packet { src: good.dst, ..good }), "from itself");
        let reserved = "240.0.0.1".parse::<std::net::IpAddr>().unwrap().into();
        assert!(!is_nonsense(&Packet { src: reserved, ..good }), "some use class E");
        for source in ["0.0.0.0", "224.0.0.1", "255.255.255.255", "::", "ff02::1"] {
            let src = source.parse::<std::net::IpAddr>().unwrap().into();
            assert!(is_nonsense(&Packet { src, ..good }), "{source}");
        }
    }
}

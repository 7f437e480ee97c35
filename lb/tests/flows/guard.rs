//! Packets that may not open a connection, and clients that have to prove their address first.

mod cookies;
mod limits;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use lab::{
    addr::Family,
    client::{Flags, segment},
};

use crate::scene::{Scene, vip};

/// A source that is somebody else's.
fn source(family: Family, n: u32) -> SocketAddr {
    let ip = match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::from(0x6440_0000 + n / 4)),
        Family::V6 => {
            IpAddr::V6(Ipv6Addr::from((0x2001_0db8_00fe_u128 << 80) + (u128::from(n / 4) << 64) + 1))
        }
    };
    SocketAddr::new(ip, 1_024 + (n % 60_000) as u16)
}

/// So many segments, each from another source.
fn segments(to: SocketAddr, flags: Flags, count: u32) -> Vec<Vec<u8>> {
    let family = if to.is_ipv4() { Family::V4 } else { Family::V6 };
    (0..count).filter_map(|n| segment(source(family, n), to, flags)).collect()
}

/// Floods an address from the client's namespace.
fn flood(scene: &Scene, to: SocketAddr, flags: Flags, count: u32) {
    scene.client().send(to, &segments(to, flags, count)).unwrap();
}

/// How often XDP counted a reason.
fn counter(scene: &Scene, name: &str) -> u64 {
    let rows = scene.daemon.json(&["get", "counters"]).unwrap();
    let is = |row: &&serde_json::Value| row["hook"] == "xdp" && row["reason"] == name;
    rows.as_array().unwrap().iter().find(is).and_then(|row| row["count"].as_u64()).unwrap()
}

/// Entries of conntrack from foreign sources.
fn foreign_entries(scene: &Scene) -> usize {
    ["ipv4", "ipv6"]
        .into_iter()
        .flat_map(|family| {
            let listed = scene.gateway("conntrack", &["-L", "-f", family]);
            listed.lines().map(str::to_owned).collect::<Vec<_>>()
        })
        .filter(|line| line.contains("src=100.64.") || line.contains("src=2001:db8:fe:"))
        .count()
}

/// Which reasons grew.
fn grown(scene: &Scene, names: &[&str], act: impl FnOnce()) -> Vec<u64> {
    let before: Vec<u64> = names.iter().map(|name| counter(scene, name)).collect();
    act();
    names.iter().zip(before).map(|(name, before)| counter(scene, name) - before).collect()
}

/// The load-balancer address at a port that is not served.
fn other_port(family: Family) -> SocketAddr {
    SocketAddr::new(vip(family).ip(), 4_443)
}

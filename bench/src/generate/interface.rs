//! What is known of an interface.

use std::{fs, str::FromStr};

use anyhow::{Context as _, ensure};
use nix::ifaddrs::getifaddrs;

/// A hardware address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mac(pub(super) [u8; 6]);

impl FromStr for Mac {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let octets: Option<Vec<u8>> = text
            .split(':')
            .map(|octet| u8::from_str_radix(octet, 16).ok().filter(|_| octet.len() == 2))
            .collect();
        let octets = octets.and_then(|octets| octets.try_into().ok());
        octets.map(Self).ok_or_else(|| "six pairs of hexadecimal digits with colons between them".to_owned())
    }
}

/// The hardware address of an interface of this network namespace.
pub(super) fn hardware_address(interface: &str) -> anyhow::Result<Mac> {
    let all = getifaddrs().context("cannot list interfaces")?;
    let own = all.filter(|entry| entry.interface_name == interface);
    let mut macs = own.filter_map(|entry| entry.address?.as_link_addr()?.addr());
    let mac = macs.next().with_context(|| format!("{interface} has no hardware address"))?;
    ensure!(mac != [0; 6], "{interface} has no hardware address");
    Ok(Mac(mac))
}

/// Whether a default route of either family leads to an interface.
pub(super) fn carries_default_route(interface: &str) -> anyhow::Result<bool> {
    let v4 = "/proc/thread-self/net/route";
    let v4 = fs::read_to_string(v4).with_context(|| format!("cannot read {v4}"))?;
    // There is none without IPv6.
    let v6 = fs::read_to_string("/proc/thread-self/net/ipv6_route").unwrap_or_default();
    Ok(default_v4(&v4, interface) || default_v6(&v6, interface))
}

/// `Iface Destination Gateway Flags RefCnt Use Metric Mask ...`
fn default_v4(text: &str, interface: &str) -> bool {
    text.lines().skip(1).any(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        matches!(fields.as_slice(), [name, "00000000", _, _, _, _, _, "00000000", ..] if *name == interface)
    })
}

/// `destination length source length gateway metric references use flags interface`
fn default_v6(text: &str, interface: &str) -> bool {
    text.lines().any(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        matches!(fields.as_slice(), [_, "00", .., name] if *name == interface)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_routes_are_found() {
        let v4 = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
                  eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
                  eth1\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n";
        assert!(default_v4(v4, "eth0"));
        assert!(!default_v4(v4, "eth1"));
        let zero = "0".repeat(32);
        let v6 = format!(
            "{zero} 00 {zero} 00 {zero} 00000400 1 0 00000003     eth0\n\
             fe80{} 40 {zero} 00 {zero} 00000100 1 0 00000001     eth1\n",
            "0".repeat(28)
        );
        assert!(default_v6(&v6, "eth0"));
        assert!(!default_v6(&v6, "eth1"));
    }

    #[test]
    fn hardware_addresses_are_six_octets() {
        assert_eq!("02:00:00:00:01:fe".parse(), Ok(Mac([2, 0, 0, 0, 1, 0xfe])));
        for bad in ["02:00:00:00:01", "02:00:00:00:01:fe:00", "2:0:0:0:1:f", "02-00-00-00-01-fe"] {
            assert!(bad.parse::<Mac>().is_err(), "{bad}");
        }
    }
}

//! IP addresses and networks as the Kubernetes API has them.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;

/// The address, by the rules of Kubernetes' `ParseIPSloppy`: IPv4 bytes may have leading zeros and are decimal all the
/// same (clusters hold such addresses from before Go refused them), and a v4-mapped IPv6 address is an IPv4 address.
pub(crate) fn parse(text: &str) -> Option<IpAddr> {
    let address = match text.rsplit_once(':') {
        None => IpAddr::V4(sloppy_v4(text)?),
        Some((head, tail)) if tail.contains('.') => {
            IpAddr::V6(format!("{head}:{}", sloppy_v4(tail)?).parse().ok()?)
        }
        Some(_) => IpAddr::V6(text.parse().ok()?),
    };
    Some(address.to_canonical())
}

fn sloppy_v4(text: &str) -> Option<Ipv4Addr> {
    let mut bytes = [0; 4];
    let mut parts = text.split('.');
    for byte in &mut bytes {
        let part = parts.next()?;
        if part.is_empty() || !part.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let digits = part.trim_start_matches('0');
        *byte = if digits.is_empty() { 0 } else { digits.parse().ok()? };
    }
    parts.next().is_none().then(|| Ipv4Addr::from(bytes))
}

/// The network, by the rules of Kubernetes' `ParseCIDRSloppy`: addresses as in [`parse`], and bits beyond the prefix
/// do not count.
pub(crate) fn network(text: &str) -> Option<IpNet> {
    let (address, length) = text.split_once('/')?;
    // What `parse` would take beyond that is a sign.
    if !length.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let length: u8 = length.parse().ok()?;
    let network = match (parse(address)?, length.checked_sub(MAPPED_LENGTH)) {
        (IpAddr::V4(a), Some(length)) if address.contains(':') => IpNet::new(a.into(), length),
        (IpAddr::V4(a), None) if address.contains(':') => IpNet::new(a.to_ipv6_mapped().into(), length),
        (other, _) => IpNet::new(other, length),
    };
    Some(network.ok()?.trunc())
}

/// Bits of a v4-mapped address ahead of the IPv4 address.
const MAPPED_LENGTH: u8 = 96;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_as_kubernetes_does() {
        for (text, expected) in [
            ("192.0.2.1", Some("192.0.2.1")),
            ("192.000.002.001", Some("192.0.2.1")),
            ("010.0.0.010", Some("10.0.0.10")),
            ("2001:db8::1", Some("2001:db8::1")),
            ("2001:DB8:0:0:0:0:0:1", Some("2001:db8::1")),
            ("::ffff:192.0.2.1", Some("192.0.2.1")),
            ("::ffff:192.0.2.01", Some("192.0.2.1")),
            ("::ffff:c000:201", Some("192.0.2.1")),
            ("2001:db8::192.0.2.1", Some("2001:db8::c000:201")),
            ("", None),
            (":", None),
            (".", None),
            ("300.1.1.1", None),
            ("192.0.2", None),
            ("192.0.2.1.", None),
            ("192.0.2.1.5", None),
            ("192.0.2.+1", None),
            ("192.0.2.0x1", None),
            (" 192.0.2.1", None),
            ("192.0.2.1/32", None),
            ("192.0.2.1:80", None),
            ("fe80::1%eth0", None),
            ("2001:db8::g", None),
            ("example.org", None),
            ("١٩٢.0.2.1", None),
        ] {
            assert_eq!(parse(text), expected.map(|e| e.parse().expect("address")), "{text:?}");
        }
    }

    #[test]
    fn parses_networks_as_kubernetes_does() {
        for (text, expected) in [
            ("192.0.2.0/24", Some("192.0.2.0/24")),
            ("192.0.2.7/24", Some("192.0.2.0/24")),
            ("192.000.002.007/024", Some("192.0.2.0/24")),
            ("192.0.2.7/32", Some("192.0.2.7/32")),
            ("1.2.3.4/0", Some("0.0.0.0/0")),
            ("2001:db8::7/64", Some("2001:db8::/64")),
            ("2001:DB8::7/128", Some("2001:db8::7/128")),
            ("::/0", Some("::/0")),
            ("::ffff:192.0.2.7/120", Some("192.0.2.0/24")),
            ("::ffff:192.0.2.7/96", Some("0.0.0.0/0")),
            ("::ffff:192.0.2.7/80", Some("::/80")),
            ("", None),
            ("/", None),
            ("192.0.2.0", None),
            ("192.0.2.0/", None),
            ("192.0.2.0/33", None),
            ("192.0.2.0/+8", None),
            ("192.0.2.0/8/8", None),
            ("192.0.2/24", None),
            ("2001:db8::/129", None),
            ("2001:db8::/300", None),
            (" 192.0.2.0/24", None),
            ("example.org/24", None),
        ] {
            assert_eq!(network(text), expected.map(|e| e.parse().expect("network")), "{text:?}");
        }
    }
}

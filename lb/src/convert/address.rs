//! IP addresses as the Kubernetes API has them.

use std::net::{IpAddr, Ipv4Addr};

/// The address, by the rules of Kubernetes' `ParseIPSloppy`: IPv4 bytes may have leading zeros and are decimal all the
/// same (clusters hold such addresses from before Go refused them), and a v4-mapped IPv6 address is an IPv4 address.
pub(super) fn parse(text: &str) -> Option<IpAddr> {
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

/// The address, if packets to it can be sent through a gateway; otherwise a line that names `path` and says why not.
pub(super) fn usable(path: &str, text: &str) -> Result<IpAddr, String> {
    let address = parse(text).ok_or_else(|| format!("{path}: {text:?} is not an IP address"))?;
    match scope(address) {
        None => Ok(address),
        Some(scope) => Err(format!("{path}: {address} is {scope} address")),
    }
}

/// What makes an address unfit to be a frontend or an endpoint. Such addresses mean something else on every host or
/// link, so that translating to or from them would catch traffic that is nobody's Service.
fn scope(address: IpAddr) -> Option<&'static str> {
    let link_local = match address {
        IpAddr::V4(a) => a.is_link_local(),
        IpAddr::V6(a) => a.is_unicast_link_local(),
    };
    if address.is_unspecified() {
        Some("the unspecified")
    } else if address.is_loopback() {
        Some("a loopback")
    } else if address.is_multicast() {
        Some("a multicast")
    } else if address == IpAddr::V4(Ipv4Addr::BROADCAST) {
        Some("the broadcast")
    } else if link_local {
        Some("a link-local")
    } else {
        None
    }
}

/// `IPv4` or `IPv6`.
pub(super) fn family(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "IPv4" } else { "IPv6" }
}

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
    fn says_why_an_address_is_unfit() {
        for (text, expected) in [
            ("198.51.100.7", "198.51.100.7"),
            ("2001:db8::7", "2001:db8::7"),
            ("fd00::7", "fd00::7"),
            ("300.1.1.1", r#"x: "300.1.1.1" is not an IP address"#),
            ("0.0.0.0", "x: 0.0.0.0 is the unspecified address"),
            ("::", "x: :: is the unspecified address"),
            ("127.9.0.1", "x: 127.9.0.1 is a loopback address"),
            ("::1", "x: ::1 is a loopback address"),
            ("::ffff:127.0.0.1", "x: 127.0.0.1 is a loopback address"),
            ("224.0.0.1", "x: 224.0.0.1 is a multicast address"),
            ("ff02::1", "x: ff02::1 is a multicast address"),
            ("255.255.255.255", "x: 255.255.255.255 is the broadcast address"),
            ("169.254.169.254", "x: 169.254.169.254 is a link-local address"),
            ("fe80::1", "x: fe80::1 is a link-local address"),
        ] {
            assert_eq!(usable("x", text).map_or_else(|e| e, |a| a.to_string()), expected, "{text:?}");
        }
    }
}

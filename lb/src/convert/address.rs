//! IP addresses as the Kubernetes API has them.

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

/// Why an address is not used: a line that names where it is written.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unfit {
    /// No API server lets it through at that place.
    Refused(String),
    /// It may be there, and is left out all the same.
    Unserved(String),
}

impl Unfit {
    pub(super) fn into_line(self) -> String {
        match self {
            Self::Refused(line) | Self::Unserved(line) => line,
        }
    }
}

/// The address, if it can be that of an endpoint or an `externalIPs` entry. As in the API server's
/// `ValidateNonSpecialIP` those are refused that mean something else on every host or link. It lets other multicast
/// addresses and the broadcast address through, but there is nobody to connect to.
pub(super) fn usable(path: &str, text: &str) -> Result<IpAddr, Unfit> {
    let address =
        parse(text).ok_or_else(|| Unfit::Refused(format!("{path}: {text:?} is not an IP address")))?;
    match scope(address) {
        None => Ok(address),
        Some(scope @ (Scope::Multicast | Scope::Broadcast)) => {
            Err(Unfit::Unserved(format!("{path}: {address} is {}", scope.name())))
        }
        Some(scope) => Err(Unfit::Refused(format!("{path}: {address} is {}", scope.name()))),
    }
}

/// The address, if it can be one that a load balancer announces. The API server lets any through. kube-proxy would
/// serve any, too, but where packets to it do not come from the network, or not to one host, that would catch traffic
/// that is nobody's Service.
pub(super) fn announced(path: &str, text: &str) -> Result<IpAddr, Unfit> {
    let address =
        parse(text).ok_or_else(|| Unfit::Refused(format!("{path}: {text:?} is not an IP address")))?;
    match scope(address) {
        None | Some(Scope::LinkLocal) => Ok(address),
        Some(scope) => Err(Unfit::Unserved(format!("{path}: {address} is {}", scope.name()))),
    }
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

/// What makes an address unlike others.
#[derive(Clone, Copy)]
enum Scope {
    Unspecified,
    Loopback,
    LinkLocal,
    LinkLocalMulticast,
    Multicast,
    Broadcast,
}

impl Scope {
    fn name(self) -> &'static str {
        match self {
            Self::Unspecified => "the unspecified address",
            Self::Loopback => "a loopback address",
            Self::LinkLocal => "a link-local address",
            Self::LinkLocalMulticast => "a link-local multicast address",
            Self::Multicast => "a multicast address",
            Self::Broadcast => "the broadcast address",
        }
    }
}

fn scope(address: IpAddr) -> Option<Scope> {
    let (link_local, link_local_multicast) = match address {
        IpAddr::V4(a) => (a.is_link_local(), a.octets().starts_with(&[224, 0, 0])),
        IpAddr::V6(a) => (a.is_unicast_link_local(), a.segments()[0] & 0xff0f == 0xff02),
    };
    if address.is_unspecified() {
        Some(Scope::Unspecified)
    } else if address.is_loopback() {
        Some(Scope::Loopback)
    } else if link_local {
        Some(Scope::LinkLocal)
    } else if link_local_multicast {
        Some(Scope::LinkLocalMulticast)
    } else if address.is_multicast() {
        Some(Scope::Multicast)
    } else if address == IpAddr::V4(Ipv4Addr::BROADCAST) {
        Some(Scope::Broadcast)
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

    #[test]
    fn says_why_an_address_is_unfit() {
        let (refused, unserved) = (true, false);
        for (text, as_endpoint, as_announced) in [
            ("198.51.100.7", None, None),
            ("2001:db8::7", None, None),
            ("fd00::7", None, None),
            ("::ffff:198.51.100.7", None, None),
            ("300.1.1.1", Some(refused), Some(refused)),
            ("0.0.0.0", Some(refused), Some(unserved)),
            ("::", Some(refused), Some(unserved)),
            ("127.9.0.1", Some(refused), Some(unserved)),
            ("::1", Some(refused), Some(unserved)),
            ("::ffff:127.0.0.1", Some(refused), Some(unserved)),
            ("169.254.169.254", Some(refused), None),
            ("fe80::1", Some(refused), None),
            ("224.0.0.1", Some(refused), Some(unserved)),
            ("ff02::1", Some(refused), Some(unserved)),
            ("224.0.1.1", Some(unserved), Some(unserved)),
            ("ff05::1", Some(unserved), Some(unserved)),
            ("255.255.255.255", Some(unserved), Some(unserved)),
        ] {
            let kind = |outcome| match outcome {
                Ok(_) => None,
                Err(Unfit::Refused(_)) => Some(refused),
                Err(Unfit::Unserved(_)) => Some(unserved),
            };
            assert_eq!(kind(usable("x", text)), as_endpoint, "{text}");
            assert_eq!(kind(announced("x", text)), as_announced, "{text}");
        }
        let line = |text| usable("x", text).map_or_else(Unfit::into_line, |a| a.to_string());
        assert_eq!(line("300.1.1.1"), r#"x: "300.1.1.1" is not an IP address"#);
        assert_eq!(line("::ffff:127.0.0.1"), "x: 127.0.0.1 is a loopback address");
        assert_eq!(line("ff02::1"), "x: ff02::1 is a link-local multicast address");
    }
}

//! IP addresses as the Kubernetes API has them.

use std::net::{IpAddr, Ipv4Addr};

use crate::{model::address::parse, text::quote};

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
        parse(text).ok_or_else(|| Unfit::Refused(format!("{path}: {} is not an IP address", quote(text))))?;
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
        parse(text).ok_or_else(|| Unfit::Refused(format!("{path}: {} is not an IP address", quote(text))))?;
    match scope(address) {
        None | Some(Scope::LinkLocal) => Ok(address),
        Some(scope) => Err(Unfit::Unserved(format!("{path}: {address} is {}", scope.name()))),
    }
}

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

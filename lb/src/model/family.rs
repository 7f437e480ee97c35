//! IPv4 and IPv6.

use std::net::IpAddr;

use datapath::abi::Addr;
use ipnet::IpNet;

/// Address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The family of an address.
    #[must_use]
    pub const fn of(ip: IpAddr) -> Self {
        if ip.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// Whether a network is of this family.
    pub(crate) const fn has(self, network: &IpNet) -> bool {
        matches!((self, network), (Self::V4, IpNet::V4(_)) | (Self::V6, IpNet::V6(_)))
    }

    /// The unspecified address.
    pub(crate) const fn any(self) -> Addr {
        match self {
            Self::V4 => Addr::ANY_V4,
            Self::V6 => Addr::ANY_V6,
        }
    }
}

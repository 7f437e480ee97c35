use core::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// An IPv4 or IPv6 address in network byte order; IPv4 as v4-mapped (`::ffff:a.b.c.d`, RFC 4291 section 2.5.5.2).
///
/// One address type means one set of maps and one packet path for both families. A v4-mapped address never appears
/// on the wire, so the two families cannot be confused.
#[repr(C)]
#[derive(
    Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, IntoBytes, FromBytes, Immutable, KnownLayout,
)]
pub struct Addr(pub [u8; 16]);

const V4_PREFIX: [u8; 12] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];

impl Addr {
    /// `0.0.0.0`, which stands for "any address of the node" in a [`super::FrontendKey`].
    pub const ANY_V4: Self = Self::v4([0; 4]);
    /// `::`, likewise.
    pub const ANY_V6: Self = Self([0; 16]);

    /// From the four bytes of an IPv4 header.
    #[inline(always)]
    #[must_use]
    pub const fn v4(b: [u8; 4]) -> Self {
        Self([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, b[0], b[1], b[2], b[3]])
    }

    /// From the sixteen bytes of an IPv6 header.
    #[inline(always)]
    #[must_use]
    pub const fn v6(b: [u8; 16]) -> Self {
        Self(b)
    }

    /// Whether this is an IPv4 address.
    #[inline(always)]
    #[must_use]
    pub fn is_v4(&self) -> bool {
        self.words()[0] == 0 && self.0[8..12] == V4_PREFIX[8..12]
    }

    /// The four bytes of the IPv4 address, meaningless for IPv6.
    #[inline(always)]
    #[must_use]
    pub const fn v4_bytes(&self) -> [u8; 4] {
        [self.0[12], self.0[13], self.0[14], self.0[15]]
    }

    /// The unspecified address of the same family.
    #[inline(always)]
    #[must_use]
    pub fn any(&self) -> Self {
        if self.is_v4() { Self::ANY_V4 } else { Self::ANY_V6 }
    }

    /// Stands for the processes of a network namespace, by its cookie, where clients of a family are told apart and their
    /// addresses are not known yet. Multicast (RFC 4291 section 2.7), so no client has it.
    #[inline(always)]
    #[must_use]
    pub const fn namespace(cookie: u64, ipv6: bool) -> Self {
        let [a, b, c, d, e, f, g, h] = cookie.to_ne_bytes();
        Self([0xff, 0, 0, 0, 0, 0, 0, ipv6 as u8, a, b, c, d, e, f, g, h])
    }

    /// Whether this is `127.0.0.0/8` or `::1`.
    #[inline(always)]
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        (self.is_v4() && self.0[12] == 127) || (self.words()[0] == 0 && self.words()[1] == 1u64.to_be())
    }

    /// From [`Addr::words`].
    #[inline(always)]
    #[must_use]
    pub const fn from_words([high, low]: [u64; 2]) -> Self {
        let [a, b, c, d, e, f, g, h] = high.to_ne_bytes();
        let [i, j, k, l, m, n, o, p] = low.to_ne_bytes();
        Self([a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p])
    }

    /// The address as two native words, for hashing and comparing.
    #[inline(always)]
    #[must_use]
    pub const fn words(&self) -> [u64; 2] {
        let b = &self.0;
        [
            u64::from_ne_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]),
            u64::from_ne_bytes([b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]]),
        ]
    }
}

impl From<IpAddr> for Addr {
    fn from(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(ip) => Self::v4(ip.octets()),
            IpAddr::V6(ip) => Self::v6(ip.octets()),
        }
    }
}

impl From<Addr> for IpAddr {
    fn from(addr: Addr) -> Self {
        if addr.is_v4() {
            Self::V4(Ipv4Addr::from(addr.v4_bytes()))
        } else {
            Self::V6(Ipv6Addr::from(addr.0))
        }
    }
}

impl fmt::Debug for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        IpAddr::from(*self).fmt(f)
    }
}

super::pod!(Addr);

use core::fmt;

/// The packet mark bit that asks for masquerading, as kube-proxy's `masqueradeBit` 14.
pub const MASQUERADE_MARK: u32 = 0x4000;

/// What tc writes into `skb->priority` for `table inet portico` to act upon: a backend id, or one of the values
/// of major number `ffff`. Zero means none.
#[repr(transparent)]
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Label(pub u32);

impl Label {
    /// No label.
    pub const NONE: Self = Self(0);
    /// Refuse with an ICMP error.
    pub const REJECT: Self = Self(0xffff_0001);
    /// Drop.
    pub const DROP: Self = Self(0xffff_0002);
    /// The daemon's own probe that translation is active.
    pub const PROBE: Self = Self(0xffff_0003);
    /// The least backend id. Less is a priority in its everyday sense (`TC_PRIO_MAX` is 15): over loopback a packet
    /// brings its socket's along, and a VLAN device derives one from the tag.
    pub const FIRST: u32 = 16;
    /// Backend ids are less than this.
    pub const RESERVED: u32 = 0x2000_0000;
    /// Added to a backend id: the packet completes a handshake by cookie, and the kernel's synproxy shall open the
    /// connection.
    pub const HANDSHAKE: u32 = 0x4000_0000;
    /// Added to that: masquerade it. The mark of this packet does not reach the one that opens the connection.
    pub const HANDSHAKE_MASQUERADE: u32 = 0x2000_0000;
}

impl Label {
    /// Whether synproxy shall deal with the packet.
    #[inline(always)]
    #[must_use]
    pub const fn is_handshake(self) -> bool {
        self.0 & !(Self::HANDSHAKE - 1) == Self::HANDSHAKE
    }

    /// The label of a packet that completes a handshake by cookie.
    #[inline(always)]
    #[must_use]
    pub const fn handshake(self, mark: u32) -> Self {
        let masquerade = if mark & MASQUERADE_MARK != 0 { Self::HANDSHAKE_MASQUERADE } else { 0 };
        Self(self.0 | Self::HANDSHAKE | masquerade)
    }
}

impl fmt::Display for Label {
    /// As nft prints a `classid`: major and minor number in hexadecimal.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}:{:x}", self.0 >> 16, self.0 & 0xffff)
    }
}

impl fmt::Debug for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

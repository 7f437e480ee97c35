use core::fmt;

/// The packet mark bit that asks for masquerading, as kube-proxy's `masqueradeBit` 14.
pub const MASQUERADE_MARK: u32 = 0x4000;

/// What tc writes into `skb->priority` for `table inet portico` to act upon: a backend, or a verdict. Zero means none.
///
/// | bits | |
/// |---|---|
/// | 0 to 19 | backend id, or number of the verdict |
/// | 20 to 27 | schema ([`super::SCHEMA`] modulo 256): the rules of one schema act on its own labels only |
/// | 29 | with bit 30: masquerade |
/// | 30 | the packet completes a handshake by SYN cookie |
/// | 29, 30 and 31 | verdict |
///
/// During an upgrade, programs of two schemas label packets and the rules of both are loaded. The schema in the label keeps
/// a packet from being translated by a table that another program's numbers belong to.
#[repr(transparent)]
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Label(pub u32);

impl Label {
    /// No label.
    pub const NONE: Self = Self(0);
    /// Refuse with an ICMP error.
    pub const REJECT: Self = Self::verdict(if super::NEXT { 2 } else { 1 });
    /// Drop.
    pub const DROP: Self = Self::verdict(if super::NEXT { 1 } else { 2 });
    /// The daemon's own probe that translation is active.
    pub const PROBE: Self = Self::verdict(3);
    /// The bits that say of which schema a label is. Ordinary priorities (0 to `TC_PRIO_MAX`, which is 15) have none of
    /// them: over loopback a packet has the priority of its socket, and a VLAN device derives one from the tag.
    pub const SCHEMA: Self = Self(0x0ff0_0000);
    /// Those bits of this schema's labels.
    pub const OURS: Self = Self((super::SCHEMA & 0xff) << 20);
    /// The bits of which a backend's label has none: what has some is a verdict, or completes a handshake.
    pub const PECULIAR: Self = Self(0xe000_0000);
    /// The least backend id. None is as small as an ordinary priority, so that nobody takes one for the other.
    pub const FIRST: u32 = 16;
    /// Backend ids are less than this.
    pub const RESERVED: u32 = 0x10_0000;
    /// Added to a backend's label: the packet completes a handshake by cookie, and the kernel's synproxy shall open the
    /// connection.
    pub const HANDSHAKE: u32 = 0x4000_0000;
    /// Added to that: masquerade it. The mark of this packet does not reach the one that opens the connection.
    pub const HANDSHAKE_MASQUERADE: u32 = 0x2000_0000;
}

impl Label {
    const fn verdict(number: u32) -> Self {
        Self(Self::PECULIAR.0 | Self::OURS.0 | number)
    }

    /// Send to the backend with this id, which is less than [`Label::RESERVED`].
    #[inline(always)]
    #[must_use]
    pub const fn backend(id: u32) -> Self {
        Self(id | Self::OURS.0)
    }

    /// The backend's id; none if the label is of another schema, or is no backend's.
    #[inline(always)]
    #[must_use]
    pub const fn id(self) -> Option<u32> {
        let id = self.0 & (Self::RESERVED - 1);
        if self.0 == Self::backend(id).0 && id >= Self::FIRST { Some(id) } else { None }
    }

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

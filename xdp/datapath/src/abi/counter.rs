/// Which program counted.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hook {
    /// XDP, packets.
    Xdp = 0,
    /// tc ingress, packets.
    Tc = 1,
    /// cgroup hooks, calls.
    Socket = 2,
}

impl Hook {
    /// All, in the order of their numbers.
    pub const ALL: [Self; 3] = [Self::Xdp, Self::Tc, Self::Socket];

    /// Name in listings and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Xdp => "xdp",
            Self::Tc => "tc",
            Self::Socket => "socket",
        }
    }
}

macro_rules! counters {
    ($($(#[doc = $help:literal])+ $variant:ident = $name:literal,)+) => {
        /// Why a program did what it did. Each verdict is counted under exactly one; `NoMetadata`, `Reveal`, `NoRoom`
        /// and what keeps XDP from forwarding (`Control` to `Oversize`) are no verdicts and are counted besides.
        #[repr(u32)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Counter {
            $($(#[doc = $help])+ $variant,)+
        }

        impl Counter {
            /// All, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// Name in listings and metrics.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// One sentence for `--help`, listings and metrics.
            #[must_use]
            pub const fn help(self) -> &'static str {
                match self { $(Self::$variant => concat!($($help),+),)+ }
            }
        }
    };
}

counters! {
    /// A backend was chosen.
    Forward = "forward",
    /// No usable endpoint anywhere: refused.
    Refuse = "refuse",
    /// A traffic policy withholds the endpoints there are: dropped.
    Withhold = "withhold",
    /// The source is in none of the Service's loadBalancerSourceRanges: dropped.
    SourceRange = "source_range",
    /// A cluster IP has no such port: refused.
    UnservedPort = "unserved_port",
    /// A load-balancer address has no such port, and such ports are to be closed: dropped by the guard, unless the host itself
    /// has the address.
    UnservedVip = "unserved_vip",
    /// A cluster IP that no Service has: dropped.
    Unallocated = "unallocated",
    /// The decision was taken over from XDP.
    Hint = "hint",
    /// Neither a frontend nor ours otherwise: passed.
    NoFrontend = "no_frontend",
    /// Not IPv4 or IPv6: passed.
    NotIp = "not_ip",
    /// Neither TCP nor UDP, ICMP errors included: passed to the kernel.
    OtherProtocol = "other_protocol",
    /// A fragment without ports: passed, the kernel reassembles.
    Fragment = "fragment",
    /// Headers cut short or contradictory, or, towards a Service, flags or a source that no host sends: dropped, in XDP or by
    /// the kernel.
    Malformed = "malformed",
    /// More VLAN tags or IPv6 extension headers than are walked: passed.
    TooDeep = "too_deep",
    /// Tagged for a VLAN device, where it will be seen again: passed.
    Vlan = "vlan",
    /// A table or backend was missing: dropped. Rare, as when a Service is deleted while its packet is being looked at.
    NoBackend = "no_backend",
    /// Metadata could not be written, so tc decides again: the driver carries none.
    NoMetadata = "no_metadata",
    /// Forwarded by XDP, as conntrack says of the established flow.
    Established = "established",
    /// SYN, FIN or RST: the kernel shall see it.
    Control = "control",
    /// Not plain enough for XDP to forward: fragment, IP options or extension headers, TTL 1, more than one buffer.
    Irregular = "irregular",
    /// The sender left the checksum to its network card, which a virtual link does not have.
    Partial = "partial",
    /// An answer of a flow that conntrack has just forgotten: dropped, as it would reach the client untranslated and break
    /// what the client's next packet can restore.
    Orphan = "orphan",
    /// Conntrack has no such flow.
    Untracked = "untracked",
    /// The conntrack entry translates nothing, or not for a Service.
    Untranslated = "untranslated",
    /// The conntrack entry is not established and assured, or something besides XDP has to see its packets.
    Unready = "unready",
    /// Not meant for this host, no route or neighbour yet, or by an interface that XDP does not forward to.
    Unroutable = "unroutable",
    /// Larger than the route takes: the kernel says so to the sender.
    Oversize = "oversize",
    /// A SYN was answered with a cookie, because the service gets too many.
    Challenge = "challenge",
    /// One of so many SYNs to an address and port that there is no time to answer all: dropped.
    Overload = "overload",
    /// A SYN that the kernel's synproxy shall answer with a cookie, as nothing can be sent from XDP there.
    Proxy = "proxy",
    /// A SYN was let in without a cookie although there are too many: the host has no route to its destination, which the
    /// kernel's synproxy needs.
    Unrouted = "unrouted",
    /// A cookie came back: the kernel's synproxy opens the connection.
    Handshake = "handshake",
    /// Of no connection and without a valid cookie, at a service that gets too many SYNs: dropped.
    Stray = "stray",
    /// More new connections than the service takes: dropped.
    Limit = "limit",
    /// More new connections of one source than the service takes: dropped.
    SourceLimit = "source_limit",
    /// A socket's real peer was shown as the address it asked for.
    Reveal = "reveal",
    /// The kernel refused an entry for a socket's peer; the real address is shown instead.
    NoRoom = "no_room",
}

impl Counter {
    /// Whether a hook's programs can count this.
    #[must_use]
    pub const fn is_of(self, hook: Hook) -> bool {
        match self {
            Self::Forward
            | Self::Refuse
            | Self::Withhold
            | Self::SourceRange
            | Self::UnservedPort
            | Self::UnservedVip
            | Self::Unallocated
            | Self::NoFrontend
            | Self::NoBackend => true,
            Self::Hint | Self::Vlan => matches!(hook, Hook::Tc),
            Self::NoMetadata
            | Self::Established
            | Self::Control
            | Self::Irregular
            | Self::Partial
            | Self::Orphan
            | Self::Untracked
            | Self::Untranslated
            | Self::Unready
            | Self::Unroutable
            | Self::Oversize
            | Self::Challenge
            | Self::Overload
            | Self::Proxy
            | Self::Unrouted
            | Self::Handshake
            | Self::Stray
            | Self::Limit
            | Self::SourceLimit => matches!(hook, Hook::Xdp),
            Self::Reveal | Self::NoRoom => matches!(hook, Hook::Socket),
            Self::NotIp | Self::OtherProtocol | Self::Fragment | Self::Malformed | Self::TooDeep => {
                !matches!(hook, Hook::Socket)
            }
        }
    }

    /// Index into the counter map.
    #[inline(always)]
    #[must_use]
    pub const fn index(self, hook: Hook) -> u32 {
        hook as u32 * Self::ALL.len() as u32 + self as u32
    }
}

/// Entries of the counter map.
pub const COUNTERS: u32 = (Hook::ALL.len() * Counter::ALL.len()) as u32;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// How many new connections a service port takes. All zero: as many as come.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, IntoBytes, FromBytes, Immutable, KnownLayout)]
pub struct Guard {
    /// TCP: from how many SYNs a second on clients have to prove their address by a cookie; one: always; zero: never.
    pub cookies: u32,
    /// The most new connections a second; zero: any number.
    pub flows: u32,
    /// The most of one source: an IPv4 address, or the first 64 bits of an IPv6 address; zero: any number.
    pub source_flows: u32,
}

impl Guard {
    /// Whether it asks for anything.
    #[inline(always)]
    #[must_use]
    pub const fn is_on(&self) -> bool {
        self.cookies | self.flows | self.source_flows != 0
    }
}

/// What a service port has seen. Times are nanoseconds of `CLOCK_MONOTONIC_COARSE`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, IntoBytes, FromBytes, Immutable, KnownLayout)]
pub struct Rate {
    /// When there were last as many SYNs as [`Guard::cookies`] in a second; zero: never.
    pub alarm: u64,
    /// When the second began that is being counted.
    pub began: u64,
    /// When a client was last asked for a cookie; zero: never.
    pub asked: u64,
    /// SYNs in this second.
    pub opening: u32,
    /// Connections let in, in this second.
    pub opened: u32,
    /// Whether the host was found to have routes, in this second: two bits for each of sixteen destinations, by hash; zero,
    /// [`ROUTED`] or [`UNROUTED`].
    pub routes: u32,
    /// When clients were first asked for cookies, in units of 2^30 ns.
    pub asking: u32,
}

/// [`Rate::routes`]: it has one.
pub const ROUTED: u32 = 1;
/// [`Rate::routes`]: it has none.
pub const UNROUTED: u32 = 2;

/// What a source has opened; key [`super::Source`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, IntoBytes, FromBytes, Immutable, KnownLayout)]
pub struct SourceRate {
    /// As [`Rate::began`].
    pub began: u64,
    /// Connections let in, in this second.
    pub opened: u32,
    /// Zero.
    pub reserved: u32,
}

const _: () = assert!(size_of::<Guard>() == 12);
const _: () = assert!(size_of::<Rate>() == 40);
const _: () = assert!(size_of::<SourceRate>() == 16);

super::pod!(Guard, Rate, SourceRate);

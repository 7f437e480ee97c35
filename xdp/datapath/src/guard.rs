//! How many connections a service port takes, and when clients have to prove their address first.
//!
//! A second begins with the first packet after the one before is over, so that nothing has to run when nothing arrives.
//! Several CPUs count in one place, and without atomic operations, which Rust has none of for eBPF: of packets that they
//! count at the same moment one may be missing. So numbers are a little low under load, and limits a little high.
//!
//! * [`cookie`]: the answer to a SYN that proves an address.

pub mod cookie;

use crate::{
    abi::{Addr, Guard, ROUTED, Rate, Source, SourceRate, TCP, UNROUTED},
    packet::{
        Packet,
        flag::{ACK, FIN, RST, SYN},
    },
};

/// What may not open a connection is dropped in XDP.
pub const ON: u32 = 1;
/// Clients may be asked for cookies: the kernel has a synproxy.
pub const COOKIES: u32 = 2;

/// For how many seconds after the last one with too many SYNs clients have to prove their address.
pub const HOLD: u64 = 30;
/// For how many seconds more what was asked of clients before is taken.
pub const GRACE: u64 = 10;

/// The kernel's time.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// Jiffies.
    pub now: u64,
    /// How many of them make a second.
    pub second: u32,
}

impl Clock {
    const fn is_over(&self, began: u32) -> bool {
        (self.now as u32).wrapping_sub(began) >= self.second
    }

    /// Whether no more than so many seconds have passed.
    const fn within(&self, since: u64, seconds: u64) -> bool {
        since != 0 && self.now.wrapping_sub(since) < seconds * self.second as u64
    }
}

/// What was seen of a service port; one of [`crate::abi::map::RATES`].
#[derive(Clone, Copy, Debug)]
pub struct Seen(*mut Rate);

impl Seen {
    /// # Safety
    ///
    /// The pointer is to a value of the map, and valid as long as this is used.
    #[inline(always)]
    #[must_use]
    pub const unsafe fn new(rate: *mut Rate) -> Self {
        Self(rate)
    }

    /// Takes down a SYN, or the first packet of a flow that is none.
    #[inline(always)]
    pub fn opening(&self, guard: &Guard, clock: &Clock) {
        // SAFETY: of the map, by construction.
        let rate = unsafe { &mut *self.0 };
        let opening = if clock.is_over(rate.began) {
            rate.began = clock.now as u32;
            rate.opening = 1;
            rate.opened = 0;
            rate.route = 0;
            1
        } else {
            rate.opening = rate.opening.wrapping_add(1);
            rate.opening
        };
        if guard.cookies != 0 && opening >= guard.cookies {
            rate.alarm = clock.now;
        }
    }

    /// Whether the host has a route to the frontend; asked for once in a second.
    #[inline(always)]
    pub fn is_routed(&self, look: impl FnOnce() -> bool) -> bool {
        // SAFETY: as above.
        let rate = unsafe { &mut *self.0 };
        if rate.route == 0 {
            rate.route = if look() { ROUTED } else { UNROUTED };
        }
        rate.route == ROUTED
    }

    /// Whether clients have to prove their address.
    #[inline(always)]
    #[must_use]
    pub fn asks_for_cookies(&self, guard: &Guard, clock: &Clock) -> bool {
        // SAFETY: as above.
        guard.cookies != 0 && clock.within(unsafe { (*self.0).alarm }, HOLD)
    }

    /// Whether clients may be about to.
    #[inline(always)]
    #[must_use]
    pub fn takes_cookies(&self, guard: &Guard, clock: &Clock) -> bool {
        // SAFETY: as above.
        guard.cookies != 0 && clock.within(unsafe { (*self.0).alarm }, HOLD + GRACE)
    }

    /// Takes down a connection that is to be let in; whether there is room for it.
    #[inline(always)]
    #[must_use]
    pub fn opened(&self, guard: &Guard) -> bool {
        // SAFETY: as above.
        let rate = unsafe { &mut *self.0 };
        rate.opened = rate.opened.wrapping_add(1);
        guard.flows == 0 || rate.opened <= guard.flows
    }
}

/// The same of one source; whether there is room for its connection. `known` is what the map has of it.
///
/// # Safety
///
/// The pointer is to a value of [`crate::abi::map::SOURCE_RATES`].
#[inline(always)]
#[must_use]
pub unsafe fn opened_by_source(known: *mut SourceRate, guard: &Guard, clock: &Clock) -> bool {
    // SAFETY: as the caller promises.
    let rate = unsafe { &mut *known };
    if clock.is_over(rate.began) {
        rate.began = clock.now as u32;
        rate.opened = 1;
        return true;
    }
    rate.opened = rate.opened.wrapping_add(1);
    rate.opened <= guard.source_flows
}

/// Whose connections are counted together: an IPv4 address, or the IPv6 network that a host has for itself (RFC 6177).
#[inline(always)]
#[must_use]
pub fn source(service: u32, addr: &Addr) -> Source {
    let addr = if addr.is_v4() { *addr } else { Addr::from_words([addr.words()[0], 0]) };
    Source { service, addr }
}

/// Whether no host sends such a packet: TCP flags that contradict one another (as conntrack's `tcp_valid_flags`), or a
/// source that cannot be one (RFC 1122 section 3.2.1.3, RFC 4291 section 2.7).
#[inline(always)]
#[must_use]
pub fn is_nonsense(packet: &Packet) -> bool {
    const FIN_ACK: u8 = FIN | ACK;
    const SYN_ACK: u8 = SYN | ACK;
    const RST_ACK: u8 = RST | ACK;
    let flags =
        packet.protocol != TCP || matches!(packet.flags, SYN | SYN_ACK | RST | RST_ACK | FIN_ACK | ACK);
    !flags || packet.src == packet.dst || !is_unicast(&packet.src)
}

#[inline(always)]
fn is_unicast(addr: &Addr) -> bool {
    if addr.is_v4() {
        let [first, ..] = addr.v4_bytes();
        first != 0 && first < 224
    } else {
        addr.0[0] != 0xff && addr.words() != [0, 0]
    }
}

/// Whether a packet of no connection may be the one that brings a cookie back.
#[inline(always)]
#[must_use]
pub const fn may_prove(packet: &Packet) -> bool {
    packet.protocol == TCP && packet.flags == ACK
}

#[cfg(test)]
mod tests;

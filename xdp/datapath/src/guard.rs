//! How many connections a service port takes, and when clients have to prove their address first.
//!
//! A second begins with the first packet after the one before is over, so that nothing has to run when nothing arrives.
//! Several CPUs count in one place, and without atomic operations, which Rust has none of for eBPF: of packets that they
//! count at the same moment one may be missing. So numbers are a little low under load, and limits a little high.
//!
//! * [`cookie`]: the answer to a SYN that proves an address.
//! * [`overload`]: when there are too many to answer.

pub mod cookie;
pub mod overload;

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
/// For how many seconds after the last client was asked for a cookie they are taken, and strays are dropped.
pub const GRACE: u64 = 10;

/// For how long SYNs may be repetitions: clients repeat one after one second and after three (RFC 6298). In
/// [`Time::coarse`].
const REPEATED: u32 = 4;

/// A second in nanoseconds.
const SECOND: u64 = 1_000_000_000;

/// `CLOCK_MONOTONIC_COARSE` in nanoseconds: as exact as this takes, and cheap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Time(pub u64);

impl Time {
    // Another CPU's time may be a tick ahead.
    const fn is_over(self, began: u64) -> bool {
        self.0.saturating_sub(began) >= SECOND
    }

    /// In seconds, roughly.
    const fn coarse(self) -> u32 {
        (self.0 >> 30) as u32
    }

    /// Whether no more than so many seconds have passed since then, if it was at all.
    const fn within(self, since: u64, seconds: u64) -> bool {
        since != 0 && self.0.saturating_sub(since) < seconds * SECOND
    }
}

impl Rate {
    /// Whether clients have to prove their address.
    #[must_use]
    pub const fn asks_for_cookies(&self, guard: &Guard, now: Time) -> bool {
        guard.cookies != 0 && now.within(self.alarm, HOLD)
    }

    /// SYNs and connections let in, in the second that is being counted; zero if that is over.
    #[must_use]
    pub const fn latest(&self, now: Time) -> [u32; 2] {
        if now.is_over(self.began) { [0; 2] } else { [self.opening, self.opened] }
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

    /// Begins a second if the last one is over.
    #[inline(always)]
    fn roll(&self, now: Time) {
        // SAFETY: of the map, by construction.
        let rate = unsafe { &mut *self.0 };
        if now.is_over(rate.began) {
            rate.began = now.0;
            rate.opening = 0;
            rate.opened = 0;
            rate.routes = 0;
        }
    }

    /// Takes down a SYN, or the first packet of a flow that is none. As many as a limit lets in are too many without cookies,
    /// too: who forges sources would take everybody's place.
    #[inline(always)]
    pub fn opening(&self, guard: &Guard, now: Time) {
        self.roll(now);
        // SAFETY: as above.
        let rate = unsafe { &mut *self.0 };
        rate.opening = rate.opening.wrapping_add(1);
        let limited = guard.flows != 0 && rate.opening > guard.flows;
        if guard.cookies != 0 && (rate.opening >= guard.cookies || limited) {
            if !now.within(rate.alarm, HOLD) {
                rate.asking = now.coarse();
            }
            rate.alarm = now.0;
        }
    }

    /// Takes down that a client was asked for a cookie, and how many SYNs before were dropped at first sight.
    #[inline(always)]
    pub fn asked(&self, spilled: u32, now: Time) {
        // SAFETY: as above.
        let rate = unsafe { &mut *self.0 };
        rate.asked = now.0;
        rate.opening = rate.opening.wrapping_add(spilled);
    }

    /// Whether the host has a route to a packet's destination; asked for once in a second, for one destination of eight
    /// in each family.
    #[inline(always)]
    pub fn is_routed(&self, packet: &Packet, look: impl FnOnce() -> bool) -> bool {
        // SAFETY: as above.
        let rate = unsafe { &mut *self.0 };
        let [high, low] = packet.dst.words();
        let folded = high ^ low;
        let folded = folded ^ (folded >> 32);
        let folded = folded ^ (folded >> 16);
        let family = if packet.dst.is_v4() { 0 } else { 8 };
        let place = (((folded ^ (folded >> 8) ^ (folded >> 4)) & 7) as u32 + family) * 2;
        let mut route = (rate.routes >> place) & 3;
        if route == 0 {
            route = if look() { ROUTED } else { UNROUTED };
            rate.routes |= route << place;
        }
        route == ROUTED
    }

    /// Whether SYNs may be repetitions of such as were let in before there were too many.
    #[inline(always)]
    #[must_use]
    pub fn may_repeat(&self, now: Time) -> bool {
        // SAFETY: as above.
        now.coarse().wrapping_sub(unsafe { (*self.0).asking }) < REPEATED
    }

    /// Whether clients have to prove their address.
    #[inline(always)]
    #[must_use]
    pub fn asks_for_cookies(&self, guard: &Guard, now: Time) -> bool {
        // SAFETY: as above.
        unsafe { &*self.0 }.asks_for_cookies(guard, now)
    }

    /// Whether clients may be about to: not where none could be asked, as for want of a route.
    #[inline(always)]
    #[must_use]
    pub fn takes_cookies(&self, guard: &Guard, now: Time) -> bool {
        // SAFETY: as above.
        guard.cookies != 0 && now.within(unsafe { (*self.0).asked }, GRACE)
    }

    /// Takes down a connection that is to be let in; whether there is room for it.
    #[inline(always)]
    #[must_use]
    pub fn opened(&self, guard: &Guard, now: Time) -> bool {
        self.roll(now);
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
pub unsafe fn opened_by_source(known: *mut SourceRate, guard: &Guard, now: Time) -> bool {
    // SAFETY: as the caller promises.
    let rate = unsafe { &mut *known };
    if now.is_over(rate.began) {
        rate.began = now.0;
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
/// source that cannot be one (RFC 1122 section 3.2.1.3, RFC 4291 section 2.7). Class E is left alone, as the kernel does.
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
        first != 0 && (first < 224 || (first >= 240 && addr.v4_bytes() != [0xff; 4]))
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

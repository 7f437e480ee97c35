//! SYNs that there is no time to answer.
//!
//! To answer one takes several times as long as to drop it. A flood that keeps a CPU busy with answers would cost the
//! connections that exist their packets, which then get lost before any program sees them. So of the SYNs to one address and
//! port each CPU answers as many as leave time for others, and drops the rest at first sight. The more there are the fewer
//! are answered, because dropping takes time as well.

use crate::abi::{FlowKey, Words};

/// Places for destinations on each CPU, a power of two.
pub const PLACES: u32 = 64;
/// How many SYNs to one destination a CPU answers in a second if there are no more.
pub const ANSWERS: u32 = 600_000;

/// How many are dropped in the time that it takes to answer one more.
const DROPS: u32 = 10;
/// One in so many of those [`ANSWERS`] is for as many SYNs as there may be.
const LEAST: u32 = 16;

/// For how many ticks a place is kept for a destination of which nothing comes, and SYNs are dropped although none is
/// answered any more.
const KEPT: u32 = 2;

/// What was seen of a destination on one CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Overload {
    dst: Words,
    link: u64,
    device: u32,
    port: u32,
    /// The tick that is being counted, low bits of the kernel's jiffies.
    tick: u32,
    /// SYNs in it.
    seen: u32,
    /// How many of them may be answered.
    most: u32,
    /// When one was answered for the last time.
    answered: u32,
    /// Dropped since then.
    spilled: u32,
}

/// The place of a destination.
#[inline(always)]
#[must_use]
pub fn place(key: &FlowKey) -> u32 {
    let folded = key.dst[0] ^ key.dst[1] ^ (key.dst[1] >> 32) ^ u64::from(key.ports >> 16);
    (folded.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as u32 & (PLACES - 1)
}

impl Overload {
    /// Takes down a SYN; whether to drop it. `answers`: how many there is time for in a tick.
    #[inline(always)]
    pub fn spills(&mut self, key: &FlowKey, now: u32, answers: u32) -> bool {
        let port = key.ports >> 16;
        let same = (self.dst[0] ^ key.dst[0]) | (self.dst[1] ^ key.dst[1]) | (self.link ^ key.link) == 0
            && self.device == key.device
            && self.port == port;
        let passed = now.wrapping_sub(self.tick);
        if !same {
            if passed < KEPT {
                return false;
            }
            self.dst = key.dst;
            self.link = key.link;
            self.device = key.device;
            self.port = port;
            self.answered = now.wrapping_sub(KEPT);
            self.spilled = 0;
        }
        if passed != 0 || !same {
            let before = if same && passed == 1 { self.seen } else { 0 };
            self.most = most(before, answers);
            self.seen = 0;
            self.tick = now;
        }
        self.seen = self.seen.wrapping_add(1);
        let spills = self.seen > self.most && now.wrapping_sub(self.answered) < KEPT;
        self.spilled = self.spilled.wrapping_add(spills as u32);
        spills
    }

    /// Takes down that the SYN which did not spill was answered. How many were dropped since the last one.
    #[inline(always)]
    pub const fn answered(&mut self, now: u32) -> u32 {
        let spilled = self.spilled;
        self.answered = now;
        self.spilled = 0;
        spilled
    }
}

/// How many of so many SYNs there is time to answer. Too many in one tick alone are no flood but a burst, as after a pause.
#[inline(always)]
const fn most(seen: u32, answers: u32) -> u32 {
    if seen <= answers {
        return u32::MAX;
    }
    let left = answers.saturating_sub(seen.saturating_sub(answers) / DROPS);
    let least = answers / LEAST + 1;
    if left > least { left } else { least }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWERED: u32 = 100;

    fn key(port: u16) -> FlowKey {
        let ports = u32::from_ne_bytes([1, 2, port.to_be_bytes()[0], port.to_be_bytes()[1]]);
        FlowKey { src: [0, 1], dst: [0, 2], ports, device: 3, link: 4 }
    }

    /// Of so many SYNs in a tick, how many went on and were answered.
    fn tick(overload: &mut Overload, key: &FlowKey, now: u32, syns: u32) -> u32 {
        let mut answered = 0;
        for _ in 0..syns {
            if !overload.spills(key, now, ANSWERED) {
                overload.answered(now);
                answered += 1;
            }
        }
        answered
    }

    #[test]
    fn what_there_is_time_for_is_answered_and_less_if_there_is_more() {
        for start in [0, 1_000, u32::MAX - 2] {
            let mut overload = Overload::default();
            let now = |n: u32| start.wrapping_add(KEPT + n);
            let key = key(443);
            assert_eq!(tick(&mut overload, &key, now(0), ANSWERED), ANSWERED, "from {start}");
            assert_eq!(tick(&mut overload, &key, now(1), 400), 400, "a burst");
            assert_eq!(tick(&mut overload, &key, now(2), 1_000), 70);
            assert_eq!(tick(&mut overload, &key, now(3), 1_000_000), 10);
            assert_eq!(tick(&mut overload, &key, now(4), 50), 7, "there is always time for some");
            assert_eq!(tick(&mut overload, &key, now(5), 50), 50);
            assert_eq!(tick(&mut overload, &key, now(6), 400), 400, "another");
            assert_eq!(tick(&mut overload, &key, now(8), 400), 400, "after a pause");
            assert_eq!(tick(&mut overload, &key, now(9), 90), 70);
        }
    }

    #[test]
    fn none_is_dropped_unless_some_are_answered() {
        let mut overload = Overload::default();
        for now in 10..20 {
            assert!((0..1_000).all(|_| !overload.spills(&key(443), now, ANSWERED)));
        }
        assert_eq!(overload.answered(19), 0);
        let spilled = (0..1_000).filter(|_| overload.spills(&key(443), 20, ANSWERED)).count();
        assert!(spilled >= 900, "{spilled}");
        assert_eq!(overload.answered(20), spilled as u32, "and they are told once");
        assert_eq!(overload.answered(20), 0);
        // The guard answers no more, as after the alarm.
        assert!((0..1_000).any(|_| overload.spills(&key(443), 21, ANSWERED)), "it is not noticed yet");
        assert!((0..1_000).all(|_| !overload.spills(&key(443), 22, ANSWERED)));
    }

    #[test]
    fn a_destination_keeps_its_place_while_it_is_busy() {
        let base = key(443);
        let mut overload = Overload::default();
        tick(&mut overload, &base, 9, 400);
        assert_eq!(tick(&mut overload, &base, 10, 400), 70);
        let others = [
            key(444),
            FlowKey { dst: [1, 2], ..base },
            FlowKey { dst: [0, 3], ..base },
            FlowKey { device: 4, ..base },
            FlowKey { link: 5, ..base },
        ];
        for other in others {
            assert!(!overload.spills(&other, 11, ANSWERED), "{other:?}");
            assert!(overload.spills(&base, 10, ANSWERED), "{other:?}");
        }
        let client = FlowKey { src: [7, 7], ports: base.ports ^ 0x55, ..base };
        assert!(overload.spills(&client, 10, ANSWERED), "whoever sends it");
        assert!(!overload.spills(&others[0], 10 + KEPT, ANSWERED));
        assert!(!overload.spills(&base, 10 + KEPT, ANSWERED), "another's now");
        assert_eq!(place(&base), place(&client));
    }
}

//! SYNs that there is no time to answer.
//!
//! To answer one takes many times as long as to drop it. A flood that keeps a CPU busy with answers would cost the
//! connections that exist their packets, which then get lost before any program sees them. So of the SYNs to one address and
//! port each CPU answers as many as leave time for others, and drops the rest at first sight. The more there are the fewer
//! are answered, because dropping takes time as well.

use crate::abi::Words;

/// Places for destinations on each CPU, a power of two.
pub const PLACES: u32 = 64;
/// How many SYNs to one destination a CPU answers in a second if there are no more.
pub const ANSWERS: u32 = 500_000;

/// How many are dropped in the time that it takes to answer one more, at the least.
const DROPS: u32 = 10;
/// One in so many of those [`ANSWERS`] is for as many SYNs as there may be.
const LEAST: u32 = 16;

/// For how many ticks a place is kept for a destination of which nothing comes, and SYNs are dropped although none is
/// answered any more.
const KEPT: u32 = 2;

/// Where SYNs go.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Destination {
    addr: Words,
    port: u32,
    reserved: u32,
}

impl Destination {
    /// An address and a port, the latter in network byte order.
    #[inline(always)]
    #[must_use]
    pub const fn new(addr: Words, port: [u8; 2]) -> Self {
        Self { addr, port: u16::from_ne_bytes(port) as u32, reserved: 0 }
    }

    /// Its place. The seed keeps others from choosing destinations that meet in one.
    #[inline(always)]
    #[must_use]
    pub fn place(&self, seed: u64) -> u32 {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let [high, low] = self.addr;
        let mixed = (seed ^ low ^ high.rotate_left(23)).wrapping_mul(STEP);
        let mixed = (mixed ^ mixed >> 32 ^ u64::from(self.port)).wrapping_mul(STEP);
        (mixed >> 40) as u32 & (PLACES - 1)
    }

    #[inline(always)]
    const fn is(&self, other: &Self) -> bool {
        (self.addr[0] ^ other.addr[0]) | (self.addr[1] ^ other.addr[1]) == 0 && self.port == other.port
    }
}

/// What was seen of a destination on one CPU. Of several in one place it is the one with the most SYNs, more or less.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Overload {
    to: Destination,
    /// The tick that is being counted, low bits of the kernel's jiffies.
    tick: u32,
    /// SYNs in it.
    seen: u32,
    /// SYNs in the one before.
    before: u32,
    /// SYNs to other destinations since this one's tick began.
    rivals: u32,
    /// How many may be answered in this tick.
    most: u32,
    /// When one was answered for the last time.
    answered: u32,
    /// Dropped since then.
    spilled: u32,
}

impl Overload {
    /// Takes down a SYN; whether to drop it. `answers`: how many there is time for in a tick.
    #[inline(always)]
    pub fn spills(&mut self, to: &Destination, now: u32, answers: u32) -> bool {
        let passed = now.wrapping_sub(self.tick);
        if !self.to.is(to) {
            self.rivals = self.rivals.wrapping_add(1);
            let busiest = if self.seen > self.before { self.seen } else { self.before };
            if passed < KEPT && self.rivals <= busiest {
                return false;
            }
            self.to = *to;
            self.answered = now.wrapping_sub(KEPT);
            self.spilled = 0;
            self.begin(0, now, answers);
        } else if passed != 0 {
            self.begin(if passed == 1 { self.seen } else { 0 }, now, answers);
        }
        self.seen = self.seen.wrapping_add(1);
        let spills = self.seen > self.most && now.wrapping_sub(self.answered) < KEPT;
        self.spilled = self.spilled.wrapping_add(spills as u32);
        spills
    }

    /// Begins a tick.
    #[inline(always)]
    const fn begin(&mut self, before: u32, now: u32, answers: u32) {
        self.tick = now;
        self.seen = 0;
        self.before = before;
        self.rivals = 0;
        self.most = most(before, answers);
    }

    /// Takes down that a SYN was answered. How many to the same destination were dropped since the last one.
    #[inline(always)]
    pub const fn answered(&mut self, to: &Destination, now: u32) -> u32 {
        if !self.to.is(to) {
            return 0;
        }
        let spilled = self.spilled;
        self.answered = now;
        self.spilled = 0;
        spilled
    }
}

/// How many SYNs there is time to answer in the tick after one with so many. Too many in one alone are no flood but a burst,
/// as after a pause.
#[inline(always)]
const fn most(before: u32, answers: u32) -> u32 {
    if before <= answers {
        return u32::MAX;
    }
    let left = answers.saturating_sub((before - answers) / DROPS);
    let least = answers / LEAST + 1;
    if left > least { left } else { least }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWERS: u32 = 100;

    fn to(port: u16) -> Destination {
        Destination::new([0, 2], port.to_be_bytes())
    }

    /// Of so many SYNs in a tick, how many went on and were answered.
    fn tick(overload: &mut Overload, to: &Destination, now: u32, syns: u32) -> u32 {
        let mut answered = 0;
        for _ in 0..syns {
            if !overload.spills(to, now, ANSWERS) {
                overload.answered(to, now);
                answered += 1;
            }
        }
        answered
    }

    /// How many of a thousand SYNs are dropped of which none is answered.
    fn dropped(overload: &mut Overload, to: &Destination, now: u32) -> usize {
        (0..1_000).filter(|_| overload.spills(to, now, ANSWERS)).count()
    }

    #[test]
    fn what_there_is_time_for_is_answered_and_less_if_there_is_more() {
        for start in [0, 1_000, u32::MAX - 2] {
            let mut overload = Overload::default();
            let now = |n: u32| start.wrapping_add(KEPT + n);
            let to = to(443);
            assert_eq!(tick(&mut overload, &to, now(0), ANSWERS), ANSWERS, "from {start}");
            assert_eq!(tick(&mut overload, &to, now(1), 400), 400, "a burst");
            assert_eq!(tick(&mut overload, &to, now(2), 1_000), 70);
            assert_eq!(tick(&mut overload, &to, now(3), 1_000_000), 10);
            assert_eq!(tick(&mut overload, &to, now(4), 50), 7, "there is always time for some");
            assert_eq!(tick(&mut overload, &to, now(5), 50), 50);
            assert_eq!(tick(&mut overload, &to, now(6), 400), 400, "another");
            assert_eq!(tick(&mut overload, &to, now(8), 400), 400, "after a pause");
            assert_eq!(tick(&mut overload, &to, now(9), 90), 70);
        }
    }

    #[test]
    fn none_is_dropped_unless_some_are_answered() {
        let mut overload = Overload::default();
        let to = to(443);
        assert!((10..20).all(|now| dropped(&mut overload, &to, now) == 0));
        assert_eq!(overload.answered(&to, 19), 0);
        let spilled = dropped(&mut overload, &to, 20);
        assert!(spilled >= 900, "{spilled}");
        assert_eq!(overload.answered(&to, 20), spilled as u32, "and they are told once");
        assert_eq!(overload.answered(&to, 20), 0);
        // The guard answers no more, as after the alarm; or it answers somebody else.
        assert_ne!(dropped(&mut overload, &to, 21), 0, "it is not noticed yet");
        overload.answered(&self::to(444), 22);
        overload.answered(&Destination::new([0, 3], [1, 187]), 22);
        assert_eq!(dropped(&mut overload, &to, 22), 0);
    }

    #[test]
    fn a_busy_destination_has_the_place_whoever_came_first() {
        let mut overload = Overload::default();
        let (few, many) = (to(1), to(2));
        for now in 10..30 {
            assert_eq!(tick(&mut overload, &few, now, 3), 3);
            let answered = tick(&mut overload, &many, now, 1_000);
            assert!(now == 10 || answered <= 11, "{answered} at {now}");
            assert_eq!(tick(&mut overload, &few, now, 3), 3);
        }
        assert_eq!(tick(&mut overload, &few, 30, 3), 3);
        assert_eq!(overload.to, many);
        assert_eq!(tick(&mut overload, &few, 29 + KEPT, 3), 3);
        assert_eq!(overload.to, few, "nothing comes for it any more");
    }

    #[test]
    fn destinations_differ_in_each_of_their_parts_and_spread_over_places() {
        let base = to(443);
        let others = [to(444), Destination::new([1, 2], [1, 187]), Destination::new([0, 3], [1, 187])];
        assert!(base.is(&base) && others.iter().all(|other| !base.is(other)));
        let places: std::collections::BTreeSet<u32> = (0..1_000).map(|port| to(port).place(7)).collect();
        assert_eq!(places.len(), PLACES as usize);
        assert!((0..100).any(|seed| base.place(seed) != base.place(7)));
    }
}

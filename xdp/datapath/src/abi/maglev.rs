use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{Addr, MAX_BACKENDS};

/// Words in a [`Chunk`]: a cache line.
pub const CHUNK_WORDS: u32 = 16;

/// A piece of a Maglev table in the kernel.
///
/// A table is an array map of chunks. Read as one sequence of words, word 0 is the number of slots M and the words
/// after it are slots 0 to M-1, each a [`Slot`]; then come the number of members and the members, which are the ids of
/// all backends that the table was made from, ascending; the rest of the last chunk is zero. M and members travel inside
/// the table so that replacing the map replaces all at once. Chunks, because an array map rounds each element up to
/// eight bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, IntoBytes, FromBytes, Immutable, KnownLayout)]
pub struct Chunk(pub [u32; CHUNK_WORDS as usize]);

const _: () = assert!(size_of::<Chunk>() == 64);

super::pod!(Chunk);

/// Slots of tables in [`super::map::MAGLEV_SMALL`]. As all have as many, no program has to read how many, and the kernel
/// writes the way to an element into the program itself, where it would ask arrays of different lengths.
pub const SMALL_SLOTS: u32 = 1_931;
/// The largest number of their members.
pub const SMALL_MEMBERS: u32 = SMALL_SLOTS / 100;
/// Chunks of each.
pub const SMALL_CHUNKS: u32 = (SMALL_SLOTS + SMALL_MEMBERS + 2).div_ceil(CHUNK_WORDS);

/// What a slot of a Maglev table holds: the backend's id, and something of its address.
///
/// Clients of a Service are seldom its endpoints; the tag tells so without a look at [`super::map::BACKENDS`].
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub u32);

impl Slot {
    const ID_BITS: u32 = 19;
    /// Nobody's.
    pub const NONE: Self = Self(0);

    /// Of a backend and its address.
    #[inline(always)]
    #[must_use]
    pub const fn new(id: u32, addr: &Addr) -> Self {
        Self(id | Self::tag(addr) << Self::ID_BITS)
    }

    /// The backend's id.
    #[inline(always)]
    #[must_use]
    pub const fn id(self) -> u32 {
        self.0 & ((1 << Self::ID_BITS) - 1)
    }

    /// Whether the backend may have this address. No is certain; yes is wrong for one address in eight thousand.
    #[inline(always)]
    #[must_use]
    pub const fn may_be(self, addr: &Addr) -> bool {
        self.0 >> Self::ID_BITS == Self::tag(addr)
    }

    #[inline(always)]
    const fn tag(addr: &Addr) -> u32 {
        let [high, low] = addr.words();
        let mixed = (high ^ low.rotate_left(23)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed >> (u64::BITS - (u32::BITS - Self::ID_BITS))) as u32
    }
}

const _: () = assert!(MAX_BACKENDS <= 1 << Slot::ID_BITS);

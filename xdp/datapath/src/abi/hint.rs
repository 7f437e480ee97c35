use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{Label, SCHEMA};

/// The decision that XDP leaves in front of a packet as metadata, for tc to take.
///
/// It holds only what is constant for a flow: GRO merges no two packets whose metadata differ. A driver that carries
/// no metadata, and a packet whose metadata is another program's, cost tc a second decision and nothing else. So does XDP of
/// another [`SCHEMA`], as between the updates of the two programs: its backend ids are of other maps than those that the
/// packet meets next.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoBytes, FromBytes, Immutable, KnownLayout)]
pub struct Hint {
    /// [`Hint::MAGIC`].
    pub magic: u32,
    /// The label, zero for none.
    pub label: u32,
    /// The bits to set in the packet's mark.
    pub mark: u32,
}

impl Hint {
    /// Of hints that these programs leave and take.
    pub const MAGIC: u32 = Self::magic(SCHEMA);

    /// "Ptc" and a schema: neither another program's metadata is taken for ours, nor that of programs on other maps.
    #[must_use]
    pub const fn magic(schema: u32) -> u32 {
        0x5074_6300 | schema
    }

    /// The hint for a decision.
    #[inline(always)]
    #[must_use]
    pub const fn new(label: Label, mark: u32) -> Self {
        Self { magic: Self::MAGIC, label: label.0, mark }
    }

    /// Whether programs of this schema left it.
    #[inline(always)]
    #[must_use]
    pub const fn is_current(&self) -> bool {
        self.magic == Self::MAGIC
    }
}

const _: () = assert!(size_of::<Hint>().is_multiple_of(4));
// There is one byte for it.
const _: () = assert!(SCHEMA <= 0xff);

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::Label;

/// The decision that XDP leaves in front of a packet as metadata, for tc to take.
///
/// It holds only what is constant for a flow: GRO merges no two packets whose metadata differ. A driver that carries
/// no metadata, and a packet whose metadata is another program's, cost tc a second decision and nothing else.
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
    /// "Ptc" and the schema: no other program's metadata is taken for ours.
    pub const MAGIC: u32 = 0x5074_6300 | super::SCHEMA;

    /// The hint for a decision.
    #[inline(always)]
    #[must_use]
    pub const fn new(label: Label, mark: u32) -> Self {
        Self { magic: Self::MAGIC, label: label.0, mark }
    }
}

const _: () = assert!(size_of::<Hint>().is_multiple_of(4));

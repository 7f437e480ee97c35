use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Words in a [`Chunk`]: a cache line.
pub const CHUNK_WORDS: u32 = 16;

/// A piece of a Maglev table in the kernel.
///
/// A table is an array map of chunks. Read as one sequence of words, word 0 is the number of slots M and the words
/// after it are the backend ids of slots 0 to M-1; then come the number of members and the members, which are the ids of
/// all backends that the table was made from, ascending; the rest of the last chunk is zero. M and members travel inside
/// the table so that replacing the map replaces all at once. Chunks, because an array map rounds each element up to
/// eight bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, IntoBytes, FromBytes, Immutable, KnownLayout)]
pub struct Chunk(pub [u32; CHUNK_WORDS as usize]);

const _: () = assert!(size_of::<Chunk>() == 64);

super::pod!(Chunk);

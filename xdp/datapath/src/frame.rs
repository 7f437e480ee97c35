//! Access to the bytes of a packet.

/// Read access to a packet, from the start of its first header.
///
/// Fixed-size windows, because the verifier accepts a bounds check per constant-size access and no slice of unknown
/// length, and because a window cannot be indexed out of range.
pub trait Frame {
    /// The `N` bytes at `offset`, or none if the packet is shorter.
    fn window<const N: usize>(&self, offset: usize) -> Option<&[u8; N]>;

    /// How many bytes can be read.
    fn length(&self) -> usize;
}

impl Frame for [u8] {
    fn window<const N: usize>(&self, offset: usize) -> Option<&[u8; N]> {
        self.get(offset..)?.first_chunk()
    }

    fn length(&self) -> usize {
        self.len()
    }
}

/// Write access to a packet.
pub trait FrameMut {
    /// The `N` bytes at `offset`, or none if the packet is shorter. Callers take windows that do not overlap.
    fn window_mut<const N: usize>(&self, offset: usize) -> Option<*mut [u8; N]>;
}

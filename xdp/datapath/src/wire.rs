//! Words of headers, which lie at any address.

use crate::abi::Addr;

/// Access to the `N` bytes of a header in words of native byte order. Offsets are constants; one that does not fit
/// does not compile.
pub(crate) trait Words<const N: usize> {
    fn half<const AT: usize>(&self) -> u16;
    fn word<const AT: usize>(&self) -> u32;
    fn double<const AT: usize>(&self) -> u64;
}

/// Writing them.
pub(crate) trait WordsMut<const N: usize> {
    fn set_half<const AT: usize>(&mut self, value: u16);
    fn set_word<const AT: usize>(&mut self, value: u32);
    fn set_double<const AT: usize>(&mut self, value: u64);
}

/// eBPF's compiler takes an access of unknown alignment to pieces, a byte at a time, although packets and maps need none
/// in the kernel; a pointer that claims to be aligned is one instruction.
macro_rules! load {
    ($self:ident, $type:ty, $at:expr) => {{
        const { assert!($at + size_of::<$type>() <= N) };
        #[cfg(target_arch = "bpf")]
        // SAFETY: within the array; the verifier knows that it is, and the kernel that eBPF runs on allows the access.
        let value = unsafe { core::ptr::read_volatile($self.as_ptr().add($at).cast::<$type>()) };
        #[cfg(not(target_arch = "bpf"))]
        let value = {
            let mut bytes = [0; size_of::<$type>()];
            bytes.copy_from_slice(&$self[$at..$at + size_of::<$type>()]);
            <$type>::from_ne_bytes(bytes)
        };
        value
    }};
}

macro_rules! store {
    ($self:ident, $type:ty, $at:expr, $value:expr) => {{
        const { assert!($at + size_of::<$type>() <= N) };
        #[cfg(target_arch = "bpf")]
        // SAFETY: as for loads.
        unsafe {
            core::ptr::write_volatile($self.as_mut_ptr().add($at).cast::<$type>(), $value);
        }
        #[cfg(not(target_arch = "bpf"))]
        $self[$at..$at + size_of::<$type>()].copy_from_slice(&<$type>::to_ne_bytes($value));
    }};
}

impl<const N: usize> Words<N> for [u8; N] {
    #[inline(always)]
    fn half<const AT: usize>(&self) -> u16 {
        load!(self, u16, AT)
    }

    #[inline(always)]
    fn word<const AT: usize>(&self) -> u32 {
        load!(self, u32, AT)
    }

    #[inline(always)]
    fn double<const AT: usize>(&self) -> u64 {
        load!(self, u64, AT)
    }
}

impl<const N: usize> WordsMut<N> for [u8; N] {
    #[inline(always)]
    fn set_half<const AT: usize>(&mut self, value: u16) {
        store!(self, u16, AT, value);
    }

    #[inline(always)]
    fn set_word<const AT: usize>(&mut self, value: u32) {
        store!(self, u32, AT, value);
    }

    #[inline(always)]
    fn set_double<const AT: usize>(&mut self, value: u64) {
        store!(self, u64, AT, value);
    }
}

/// The one's complement sum of words in 16 bits, RFC 1071. Its byte order is that of the words.
#[inline(always)]
pub(crate) const fn fold(sum: u64) -> u16 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    sum as u16
}

/// An IPv4 address, a native word of its bytes, in the form of [`Addr::words`].
#[inline(always)]
#[must_use]
pub const fn v4_words(addr: u32) -> [u64; 2] {
    let [_, prefix] = Addr::ANY_V4.words();
    [0, prefix | (addr as u64) << 32]
}

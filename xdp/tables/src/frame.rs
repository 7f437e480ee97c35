use aya_ebpf::programs::{SkBuffContext, TcContext, XdpContext};
use datapath::frame::{Frame, FrameMut};

/// The packet of a context.
pub struct ContextFrame<'a, C>(pub &'a C);

/// Where the part of the packet that can be read begins and ends.
pub trait Bounds {
    /// Address of the first byte, and of the one past the last; read anew each time, because helpers move packets.
    fn bounds(&self) -> (usize, usize);
}

impl Bounds for XdpContext {
    #[inline(always)]
    fn bounds(&self) -> (usize, usize) {
        (self.data(), self.data_end())
    }
}

impl Bounds for TcContext {
    #[inline(always)]
    fn bounds(&self) -> (usize, usize) {
        (self.data(), self.data_end())
    }
}

impl Bounds for SkBuffContext {
    #[inline(always)]
    fn bounds(&self) -> (usize, usize) {
        let skb = self.skb.skb;
        // SAFETY: the context is valid; the verifier knows both fields as packet pointers.
        unsafe { ((*skb).data as usize, (*skb).data_end as usize) }
    }
}

impl<C: Bounds> Frame for ContextFrame<'_, C> {
    #[inline(always)]
    fn window<const N: usize>(&self, offset: usize) -> Option<&[u8; N]> {
        let (start, end) = self.0.bounds();
        let start = start + offset;
        if start + N > end {
            return None;
        }
        // SAFETY: the bounds were checked just above, and any bytes make a valid array.
        Some(unsafe { &*(start as *const [u8; N]) })
    }

    #[inline(always)]
    fn length(&self) -> usize {
        let (start, end) = self.0.bounds();
        end - start
    }
}

impl FrameMut for ContextFrame<'_, XdpContext> {
    #[inline(always)]
    fn window_mut<const N: usize>(&self, offset: usize) -> Option<*mut [u8; N]> {
        let (start, end) = self.0.bounds();
        let start = start + offset;
        if start + N > end {
            return None;
        }
        Some(start as *mut [u8; N])
    }
}

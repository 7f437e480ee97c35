//! Asking the kernel's conntrack.
//!
//! The functions and the structure are the kernel's own and no stable interface (`net/netfilter/nf_conntrack_bpf.c`); the
//! loader looks up both in the kernel's BTF, and says so where they are missing.

use core::{ffi::c_void, ptr};

use aya_ebpf::{bindings::xdp_md, programs::XdpContext};
use datapath::{
    abi::{ConntrackLayout, FlowKey, TCP, ports},
    forward::verdict::Entry,
    wire::v4_words,
};
use tables::zero;

/// Set by the loader.
#[unsafe(no_mangle)]
static CONNTRACK: ConntrackLayout = ConntrackLayout {
    status: 0,
    timeout: 0,
    tcp_state: 0,
    net: 0,
    tcp_timeout: 0,
    udp_timeout: 0,
    tuples: [0; 2],
    src: 0,
    src_port: 0,
    dst: 0,
    dst_port: 0,
    options: 0,
    hz: 1,
};

/// `struct bpf_ct_opts`; before Linux 6.11 without what follows `zone`, which was reserved.
#[repr(C)]
struct Options {
    namespace: i32,
    error: i32,
    protocol: u8,
    direction: u8,
    zone: u16,
    /// The zone's direction, and what is reserved.
    rest: u32,
}

/// The namespace of the device that received.
const CURRENT: i32 = -1;

unsafe extern "C" {
    fn bpf_xdp_ct_lookup(
        ctx: *mut xdp_md,
        tuple: *mut c_void,
        tuple_size: u32,
        options: *mut Options,
        options_size: u32,
    ) -> *mut c_void;
    fn bpf_ct_release(entry: *mut c_void);
    fn bpf_ct_change_timeout(entry: *mut c_void, milliseconds: u32) -> i32;
}

macro_rules! layout {
    ($member:ident $([$i:literal])?) => {
        // SAFETY: a static; volatile, because the loader sets what the compiler takes for zero.
        unsafe { ptr::read_volatile(&raw const CONNTRACK.$member $([$i])?) }
    };
}

/// A referenced `struct nf_conn`.
pub(crate) struct Conntrack {
    entry: *mut c_void,
    reply: bool,
}

impl Conntrack {
    /// The confirmed entry of a flow. It must be given back with [`Conntrack::release`] on every path; there is no
    /// `Drop`, whose flags the verifier would have to follow.
    #[inline(always)]
    pub(crate) fn find(ctx: &XdpContext, key: &FlowKey, v4: bool) -> Option<Self> {
        let mut options = Options {
            namespace: CURRENT,
            error: 0,
            protocol: key.protocol(),
            direction: 0,
            zone: 0,
            rest: 0,
        };
        // `struct bpf_sock_tuple`: addresses, then ports.
        let zero = zero() as u32;
        let (mut tuple, size) = if v4 {
            let (src, dst) = ((key.src[1] >> 32) as u32, (key.dst[1] >> 32) as u32);
            ([src, dst, key.ports, zero, zero, zero, zero, zero, zero], 3 * 4)
        } else {
            let words = |[a, b]: [u64; 2]| [a as u32, (a >> 32) as u32, b as u32, (b >> 32) as u32];
            let [a, b, c, d] = words(key.src);
            let [e, f, g, h] = words(key.dst);
            ([a, b, c, d, e, f, g, h, key.ports], 9 * 4)
        };
        let options_size = layout!(options);
        // SAFETY: context and buffers are valid for the call and as long as it is told.
        let entry = unsafe {
            bpf_xdp_ct_lookup(ctx.ctx, (&raw mut tuple).cast(), size, &raw mut options, options_size)
        };
        if entry.is_null() {
            return None;
        }
        // SAFETY: the kernel wrote it; volatile, because the compiler does not see that.
        let direction = unsafe { ptr::read_volatile(&raw const options.direction) };
        Some(Self { entry, reply: direction != 0 })
    }

    /// Whether the packet is from the one that answered.
    #[inline(always)]
    pub(crate) const fn is_reply(&self) -> bool {
        self.reply
    }

    /// `enum tcp_conntrack`; anything for UDP.
    #[inline(always)]
    pub(crate) fn tcp_state(&self) -> u8 {
        self.at(layout!(tcp_state))
    }

    #[inline(always)]
    pub(crate) fn release(self) {
        // SAFETY: the entry is referenced, and not used after this.
        unsafe { bpf_ct_release(self.entry) }
    }

    /// What is there to judge.
    #[inline(always)]
    pub(crate) fn read(&self, v4: bool) -> Entry {
        let tuple = if self.reply { layout!(tuples[0]) } else { layout!(tuples[1]) };
        let words = |at: u32| {
            // The members are aligned to four bytes.
            let word = |i: u32| u64::from(self.at::<u32>(tuple + at + 4 * i));
            if v4 { v4_words(word(0) as u32) } else { [word(0) | word(1) << 32, word(2) | word(3) << 32] }
        };
        let (src, dst) = (words(layout!(src)), words(layout!(dst)));
        let port = |at: u32| self.at::<u16>(tuple + at).to_ne_bytes();
        Entry {
            status: self.at(layout!(status)),
            tcp_state: self.at(layout!(tcp_state)),
            reply: self.reply,
            src,
            dst,
            ports: ports(port(layout!(src_port)), port(layout!(dst_port))),
        }
    }

    /// Lets the entry live as long as if the kernel had seen this packet. The kernel's own timeouts count, as they are now.
    #[inline(always)]
    pub(crate) fn refresh(&self, key: &FlowKey, now: u32) {
        let net: *const c_void = self.at(layout!(net));
        let at = if key.protocol() == TCP { layout!(tcp_timeout) } else { layout!(udp_timeout) };
        // SAFETY: a member of the kernel's `struct net`; a fault reads as zero.
        let timeout = unsafe { ptr::read_volatile(net.byte_add(at as usize).cast::<u32>()) };
        let deadline: u32 = self.at(layout!(timeout));
        let hz = layout!(hz);
        // Signed, as the deadline may have passed. Half a second, because it is asked once a second: a flow whose timeout is
        // two seconds must not miss its last chance.
        let left = deadline.wrapping_sub(now) as i32;
        if left < (timeout as i32).wrapping_sub(hz as i32 / 2) {
            // Without jiffies a second there is no fast path; to the compiler a division is a panic.
            let milliseconds = (u64::from(timeout) * 1_000).checked_div(u64::from(hz)).unwrap_or(0);
            // SAFETY: the entry is referenced. It fails where somebody fixed the timeout, or the entry is dying.
            unsafe { bpf_ct_change_timeout(self.entry, milliseconds as u32) };
        }
    }

    #[inline(always)]
    fn at<T: Copy>(&self, offset: u32) -> T {
        const { assert!(size_of::<T>() <= 8) };
        // SAFETY: a member of `struct nf_conn`, at the offset that the kernel's BTF gives; the verifier checks it.
        unsafe { ptr::read_volatile(self.entry.byte_add(offset as usize).cast::<T>()) }
    }
}

//! Packets by a packet socket, where the kernel does not run the generator's program.

use std::{
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    ptr,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use nix::{
    errno::Errno,
    libc,
    time::{ClockId, clock_gettime},
};

use super::{
    Sent,
    abi::{MIN_V4, STAMPED, TEMPLATE, Traffic},
    frame,
};

/// Packets handed to the kernel at once.
const BATCH: usize = 64;

/// Sends as [`super::Generator::run`] does.
pub(super) fn run(
    interface: u32,
    traffic: &Traffic,
    size: usize,
    longest: Duration,
    before: Sent,
) -> anyhow::Result<Sent> {
    let socket = open(interface).context("cannot open a packet socket")?;
    let mut batch = Batch::new(size);
    let began = Instant::now();
    // The time that frames carry is of the same clock as the kernel's.
    let start = Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC)?).as_nanos() as u64;
    let due = |n: u64| ((n - before.packets) * traffic.interval) >> 16;
    let (mut made, mut fresh) = (before.packets, before.fresh);
    let mut elapsed = Duration::ZERO;
    while made < traffic.limit && elapsed < longest {
        let now = elapsed.as_nanos() as u64;
        let mut count = 0;
        while count < BATCH && made < traffic.limit && (traffic.interval == 0 || due(made) <= now) {
            let packet = frame::packet(traffic, made, fresh, start + due(made));
            batch.write(count, traffic, &packet);
            fresh += u64::from(packet.fresh);
            made += 1;
            count += 1;
        }
        batch.send(&socket, count).context("cannot send from a packet socket")?;
        elapsed = began.elapsed();
    }
    Ok(Sent { packets: made, fresh, elapsed, share: 1.0 })
}

fn open(interface: u32) -> io::Result<OwnedFd> {
    // SAFETY: takes numbers. With protocol 0 nothing is received.
    let socket = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    // SAFETY: a new descriptor that is nobody else's.
    let socket = unsafe { OwnedFd::from_raw_fd(Errno::result(socket)?) };
    // SAFETY: all bytes zero is a valid address.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_ifindex = interface.cast_signed();
    // SAFETY: the address is as long as is said.
    let bound = unsafe {
        libc::bind(socket.as_raw_fd(), (&raw const address).cast(), size_of_val(&address) as libc::socklen_t)
    };
    Errno::result(bound)?;
    let on: libc::c_int = 1;
    // SAFETY: the value is as long as is said.
    let bypass = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_QDISC_BYPASS,
            (&raw const on).cast(),
            size_of_val(&on) as libc::socklen_t,
        )
    };
    Errno::result(bypass)?;
    Ok(socket)
}

/// Room for packets.
struct Batch {
    size: usize,
    bytes: Vec<u8>,
}

impl Batch {
    fn new(size: usize) -> Self {
        Self { size, bytes: vec![0; size.max(STAMPED) * BATCH] }
    }

    fn write(&mut self, n: usize, traffic: &Traffic, packet: &frame::Packet) {
        let start = n * self.size.max(STAMPED);
        let Some(frame) = self.bytes.get_mut(start..start + STAMPED) else { return };
        let frame = frame.as_mut_ptr();
        // SAFETY: there are so many bytes.
        unsafe {
            if traffic.stamped != 0 {
                frame::write::<STAMPED>(frame, traffic, packet);
            } else if traffic.v6 != 0 {
                frame::write::<TEMPLATE>(frame, traffic, packet);
            } else {
                frame::write::<MIN_V4>(frame, traffic, packet);
            }
        }
    }

    /// Sends the first packets. Those that the interface does not take are lost, as on a wire.
    fn send(&mut self, socket: &OwnedFd, count: usize) -> io::Result<()> {
        let frames = self.bytes.chunks_exact_mut(self.size.max(STAMPED)).take(count);
        let mut vectors: Vec<libc::iovec> = frames
            .map(|frame| libc::iovec { iov_base: frame.as_mut_ptr().cast(), iov_len: self.size })
            .collect();
        let mut messages: Vec<libc::mmsghdr> = vectors
            .iter_mut()
            .map(|vector| {
                // SAFETY: all bytes zero is a valid message.
                let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
                message.msg_hdr.msg_iov = ptr::from_mut(vector);
                message.msg_hdr.msg_iovlen = 1;
                message
            })
            .collect();
        let mut rest = messages.as_mut_slice();
        while !rest.is_empty() {
            // SAFETY: there are so many messages, and what they point to outlives the call.
            let sent = unsafe { libc::sendmmsg(socket.as_raw_fd(), rest.as_mut_ptr(), rest.len() as u32, 0) };
            let sent = match Errno::result(sent) {
                Ok(sent) => sent as usize,
                Err(Errno::ENOBUFS | Errno::EAGAIN | Errno::EINTR) => 1,
                Err(error) => return Err(error.into()),
            };
            rest = rest.split_at_mut(sent.min(rest.len())).1;
        }
        Ok(())
    }
}

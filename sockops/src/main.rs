//! Translates the sockets of this node's processes when they connect or send, so that no packet needs translating.
#![no_std]
#![no_main]

use core::ptr;

use aya_ebpf::{
    EbpfContext as _,
    bindings::bpf_sock_addr,
    helpers::{bpf_get_netns_cookie, bpf_get_socket_cookie, generated::bpf_set_retval},
    macros::{cgroup_skb, cgroup_sock_addr},
    programs::{SkBuffContext, SockAddrContext},
};
use datapath::{
    abi::{Addr, CHECK, Counter, FrontendKey, Hook, SocketKey, SocketPeer, Source},
    packet::network,
    socket::{Origin, translate},
    tables::Tables as _,
};
use tables::{ContextFrame, KernelTables, count, remember_peer, socket_peer};

/// Cookie of the network namespace that the daemon runs in, which is the host's; set by the loader.
#[unsafe(no_mangle)]
static HOST_NAMESPACE: u64 = 0;

/// Verdicts of a `sock_addr` program.
const DENY: i32 = 0;
const ALLOW: i32 = 1;
const ECONNREFUSED: i32 = 111;

#[cgroup_sock_addr(connect4)]
fn portico_connect4(ctx: SockAddrContext) -> i32 {
    forward::<V4>(&ctx)
}

#[cgroup_sock_addr(connect6)]
fn portico_connect6(ctx: SockAddrContext) -> i32 {
    forward::<V6>(&ctx)
}

#[cgroup_sock_addr(sendmsg4)]
fn portico_sendmsg4(ctx: SockAddrContext) -> i32 {
    forward::<V4>(&ctx)
}

#[cgroup_sock_addr(sendmsg6)]
fn portico_sendmsg6(ctx: SockAddrContext) -> i32 {
    forward::<V6>(&ctx)
}

#[cgroup_sock_addr(recvmsg4)]
fn portico_recvmsg4(ctx: SockAddrContext) -> i32 {
    reveal::<V4>(&ctx)
}

#[cgroup_sock_addr(recvmsg6)]
fn portico_recvmsg6(ctx: SockAddrContext) -> i32 {
    reveal::<V6>(&ctx)
}

#[cgroup_sock_addr(getpeername4)]
fn portico_getpeername4(ctx: SockAddrContext) -> i32 {
    reveal::<V4>(&ctx)
}

#[cgroup_sock_addr(getpeername6)]
fn portico_getpeername6(ctx: SockAddrContext) -> i32 {
    reveal::<V6>(&ctx)
}

/// Replaces a frontend by a backend, for `connect` and `sendmsg`.
#[inline(always)]
fn forward<F: Family>(ctx: &SockAddrContext) -> i32 {
    let peer = peer::<F>(ctx);
    // SAFETY: the context is valid for the duration of the program.
    let (cookie, namespace) =
        unsafe { (bpf_get_socket_cookie(ctx.as_ptr()), bpf_get_netns_cookie(ctx.as_ptr())) };
    // SAFETY: a constant; volatile, because the loader sets it after compilation.
    let host = namespace == unsafe { ptr::read_volatile(&raw const HOST_NAMESPACE) };
    let (verdict, counter) = match translate(&peer, &Origin { cookie, namespace, host }, &KernelTables) {
        Ok(target) => {
            let (addr, port) = (target.backend.addr, target.backend.port);
            let key = key(cookie, addr, port, peer.protocol);
            let flags = if target.restricted { CHECK } else { 0 };
            let asked = SocketPeer { addr: peer.addr, port: peer.port, flags, service: target.service };
            if remember_peer(&key, &asked).is_err() {
                count(Hook::Socket, Counter::NoRoom);
            }
            write::<F>(ctx, &addr, port);
            (ALLOW, Counter::Forward)
        }
        Err(counter @ Counter::NoFrontend) => (ALLOW, counter),
        Err(counter @ (Counter::Refuse | Counter::UnservedPort)) => {
            // SAFETY: the helper takes no pointer. It makes the system call fail with this instead of EPERM.
            unsafe { bpf_set_retval(-ECONNREFUSED) };
            (DENY, counter)
        }
        Err(counter) => (DENY, counter),
    };
    count(Hook::Socket, counter);
    verdict
}

/// Shows the address that the program asked for, for `recvmsg` and `getpeername`.
#[inline(always)]
fn reveal<F: Family>(ctx: &SockAddrContext) -> i32 {
    let peer = peer::<F>(ctx);
    if let Some(asked) = socket_peer(&key(cookie(ctx), peer.addr, peer.port, peer.protocol)) {
        write::<F>(ctx, &asked.addr, asked.port);
        count(Hook::Socket, Counter::Reveal);
    }
    ALLOW
}

/// Enforces source ranges for translated sockets, whose source is known once a packet leaves. Attached only while a
/// Service has source ranges, since it sees all packets that leave a socket.
#[cgroup_skb(egress)]
fn portico_egress(ctx: SkBuffContext) -> i32 {
    let skb = ctx.skb.skb;
    // SAFETY: the context is valid for the duration of the program.
    let (cookie, protocol) = unsafe { (bpf_get_socket_cookie(skb.cast()), (*skb).protocol as u16) };
    let Ok(packet) = network(&ContextFrame(&ctx), protocol.to_ne_bytes(), 0) else { return ALLOW };
    if !packet.has_ports() {
        return ALLOW;
    }
    let key = key(cookie, packet.dst, packet.dst_port, packet.protocol);
    let Some(peer) = socket_peer(&key).filter(|peer| peer.flags & CHECK != 0) else { return ALLOW };
    if !KernelTables.may_reach(&Source { service: peer.service, addr: packet.src }) {
        count(Hook::Socket, Counter::SourceRange);
        return DENY;
    }
    // What is open stays open, whatever the ranges become. Without room it is checked again.
    let _ = remember_peer(&key, &SocketPeer { flags: peer.flags & !CHECK, ..peer });
    ALLOW
}

#[inline(always)]
fn key(cookie: u64, addr: Addr, port: [u8; 2], protocol: u8) -> SocketKey {
    SocketKey { cookie, addr, port, protocol, reserved: [0; 5] }
}

#[inline(always)]
fn cookie(ctx: &SockAddrContext) -> u64 {
    // SAFETY: the context is valid for the duration of the program.
    unsafe { bpf_get_socket_cookie(ctx.as_ptr()) }
}

/// Where `struct bpf_sock_addr` keeps the address.
trait Family {
    fn read(ctx: *mut bpf_sock_addr) -> Addr;
    fn write(ctx: *mut bpf_sock_addr, addr: &Addr);
}

struct V4;
struct V6;

impl Family for V4 {
    #[inline(always)]
    fn read(ctx: *mut bpf_sock_addr) -> Addr {
        // SAFETY: the context is valid and the field readable in IPv4 hooks.
        Addr::v4(unsafe { (*ctx).user_ip4 }.to_ne_bytes())
    }

    #[inline(always)]
    fn write(ctx: *mut bpf_sock_addr, addr: &Addr) {
        // SAFETY: the context is valid and the field writable in IPv4 hooks.
        unsafe { (*ctx).user_ip4 = u32::from_ne_bytes(addr.v4_bytes()) };
    }
}

impl Family for V6 {
    #[inline(always)]
    fn read(ctx: *mut bpf_sock_addr) -> Addr {
        let mut addr = [0; 16];
        for (i, bytes) in addr.as_chunks_mut::<4>().0.iter_mut().enumerate() {
            // SAFETY: the context is valid and the fields readable, word by word, in IPv6 hooks.
            *bytes = unsafe { ptr::read_volatile(&raw const (*ctx).user_ip6[i]) }.to_ne_bytes();
        }
        Addr::v6(addr)
    }

    #[inline(always)]
    fn write(ctx: *mut bpf_sock_addr, addr: &Addr) {
        let word = |i: usize| u32::from_ne_bytes([addr.0[i], addr.0[i + 1], addr.0[i + 2], addr.0[i + 3]]);
        // SAFETY: the context is valid and the fields writable, word by word, in IPv6 hooks.
        unsafe {
            (*ctx).user_ip6[0] = word(0);
            (*ctx).user_ip6[1] = word(4);
            (*ctx).user_ip6[2] = word(8);
            (*ctx).user_ip6[3] = word(12);
        }
    }
}

#[inline(always)]
fn peer<F: Family>(ctx: &SockAddrContext) -> FrontendKey {
    let sock_addr = ctx.sock_addr;
    // SAFETY: the context is valid; the port is 16 bits in network byte order at the start of a 32-bit field.
    let (port, protocol) = unsafe { ((*sock_addr).user_port, (*sock_addr).protocol) };
    let port = port.to_ne_bytes();
    FrontendKey::new(F::read(sock_addr), [port[0], port[1]], protocol as u8)
}

#[inline(always)]
fn write<F: Family>(ctx: &SockAddrContext, addr: &Addr, port: [u8; 2]) {
    F::write(ctx.sock_addr, addr);
    // SAFETY: the context is valid and the field writable.
    unsafe { (*ctx.sock_addr).user_port = u32::from_ne_bytes([port[0], port[1], 0, 0]) };
}

tables::program!();

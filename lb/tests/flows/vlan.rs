//! A client on a VLAN of the gateway's interface.

use std::{net::SocketAddr, os::fd::AsRawFd as _};

use datapath::{abi::UDP, testing::Layers};
use lab::{
    Netns, Topology, XdpMode,
    addr::{self, Family},
    client::Body,
};
use nix::{
    libc,
    sys::socket::{AddressFamily, SockFlag, SockType, socket},
};

use crate::{
    in_each_xdp_mode,
    scene::{Scene, outside, root, vip, web},
};

in_each_xdp_mode!(a_tagged_client_is_served, a_client_tagged_with_a_priority_only_is_served);

fn a_tagged_client_is_served(xdp: XdpMode) {
    root();
    if !Topology::can_vlan().unwrap() {
        eprintln!("skipped: this kernel has no VLANs");
        return;
    }
    let topology = Topology::builder().vlan(true).build().unwrap();
    let services = [web().with(topology.backends())];
    let scene = Scene::start(topology, xdp, &services);
    let client = scene.client();
    for to in outside() {
        for _ in 0..20 {
            client.tcp_once(to).unwrap();
            client.udp_once(to, 100).unwrap();
        }
        client.udp_once(to, 5000).unwrap();
        let mut connection = client.tcp(to).unwrap();
        connection.upload(1 << 20).unwrap();
        assert_eq!(connection.download(Body::Bytes(1 << 20)).unwrap().finish().unwrap(), 1 << 20);
    }
    scene.finish();
}

/// Some switches and adapters put a tag for VLAN 0 around untagged frames, to carry a priority. The kernel needs no VLAN
/// device to take it off.
fn a_client_tagged_with_a_priority_only_is_served(xdp: XdpMode) {
    const PRIORITY_3: [u8; 4] = [0x81, 0x00, 0x60, 0x00];
    const PORT: u16 = 7_000;
    root();
    let scene = Scene::with_two_backends(xdp);
    let client = &scene.topology.client;
    let mac = |ns: &Netns| {
        let links = lab::output(ns.command("ip").args(["-j", "link", "show", "eth0"])).unwrap().stdout;
        let links: serde_json::Value = serde_json::from_str(&links).unwrap();
        let mac = links.pointer("/0/address").and_then(|mac| mac.as_str()).unwrap();
        mac.split(':').map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect::<Vec<_>>()
    };
    let addresses = [mac(&scene.topology.gateway), mac(client)].concat();
    for (family, ether_type) in [(Family::V4, [0x08, 0x00]), (Family::V6, [0x86, 0xdd])] {
        let from = SocketAddr::new(addr::CLIENT.of(family), PORT);
        let packet = Layers::new(UDP, from, vip(family)).payload(b"0123456789").network();
        let frame = [&addresses[..], &PRIORITY_3, &ether_type, &packet].concat();
        // The answer reaches whoever has the port.
        let receiver = scene.client().udp_from(PORT, vip(family)).unwrap();
        client.run(|| send(&frame)).unwrap();
        receiver.receive(b"0123456789").unwrap();
    }
    scene.finish();
}

/// Sends a frame on the interface of the calling thread's namespace.
fn send(frame: &[u8]) {
    // SAFETY: the string ends with a zero byte.
    let index = unsafe { libc::if_nametoindex(c"eth0".as_ptr()) };
    let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None).unwrap();
    let to = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: 0,
        sll_ifindex: index as libc::c_int,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 6,
        sll_addr: [0; 8],
    };
    // SAFETY: both pointers are to objects that outlive the call, with their sizes.
    let sent = unsafe {
        libc::sendto(
            socket.as_raw_fd(),
            frame.as_ptr().cast(),
            frame.len(),
            0,
            (&raw const to).cast(),
            size_of_val(&to) as libc::socklen_t,
        )
    };
    assert_eq!(sent, frame.len() as isize, "{}", std::io::Error::last_os_error());
}

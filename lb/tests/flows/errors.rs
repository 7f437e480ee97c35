//! ICMP errors about translated packets reach those whom they concern.

use lab::{
    Topology, XdpMode,
    addr::Family,
    client::{Body, FlowError},
};

use crate::{
    in_each_xdp_mode,
    scene::{Scene, node_port, output, outside, root, vip, web},
};

/// Nobody listens there.
const DISCARD: u16 = 9;
const PATH_MTU: u16 = 1300;
const MEGABYTE: u64 = 1 << 20;

in_each_xdp_mode!(a_closed_port_of_a_backend_is_told, the_path_mtu_is_discovered);

fn a_closed_port_of_a_backend_is_told(xdp: XdpMode) {
    root();
    let topology = Topology::builder().build().unwrap();
    let mut deaf = web().with(topology.backends());
    for port in &mut deaf.ports {
        port.target = DISCARD;
    }
    let scene = Scene::start(topology, xdp, &[deaf]);
    let client = scene.client();
    for to in outside() {
        // A connected socket hears only of errors that come from the address it is connected to.
        let udp = client.udp_once(to, 100);
        assert!(matches!(udp, Err(FlowError::Refused)), "{to}: {udp:?}");
        let tcp = client.tcp_once(to);
        assert!(matches!(tcp, Err(FlowError::Refused)), "{to}: {tcp:?}");
    }
    scene.finish();
}

fn the_path_mtu_is_discovered(xdp: XdpMode) {
    root();
    let topology = Topology::builder().backends(1).path_mtu(PATH_MTU).build().unwrap();
    let services = [web().with(topology.backends())];
    let scene = Scene::start(topology, xdp, &services);
    for family in Family::ALL {
        for to in [vip(family), node_port(family)] {
            let mut connection = scene.client().tcp(to).unwrap();
            connection.upload(MEGABYTE).unwrap();
            let received = connection.download(Body::Bytes(MEGABYTE)).unwrap().finish().unwrap();
            assert_eq!(received, MEGABYTE);
        }
    }
    // Both ends had to be told, in the words of what they know: the client of the VIP, the backends of the gateway.
    let topology = &scene.topology;
    for ns in topology.backends().iter().map(|b| &b.ns).chain([&topology.client]) {
        for family in ["-4", "-6"] {
            let cached = output(ns.command("ip").args([family, "route", "show", "cache"])).stdout;
            assert!(cached.contains(&format!("mtu {PATH_MTU}")), "{} {family}: {cached:?}", ns.name());
        }
    }
    scene.finish();
}

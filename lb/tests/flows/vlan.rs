//! A client on a VLAN of the gateway's interface.

use portico::lab::{Topology, XdpMode, client::Body};

use crate::{
    in_each_xdp_mode,
    scene::{Scene, outside, root, web},
};

in_each_xdp_mode!(a_tagged_client_is_served);

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

//! Traffic policies, and who sees whose address.

use lab::{
    Server, Topology, XdpMode,
    addr::{self, Family},
    client::FlowError,
    eventually_ok,
    manifest::{Endpoint, NODE},
};

use crate::{
    in_each_xdp_mode,
    scene::{SOON, Scene, outside, root, vip, web},
};

in_each_xdp_mode!(the_local_policy_keeps_the_clients_address);

fn the_local_policy_keeps_the_clients_address(xdp: XdpMode) {
    root();
    let topology = Topology::builder().backends(1).build().unwrap();
    let _server = Server::start(&topology.pod, "pod", lab::Backend::PORT).unwrap();
    let local = Endpoint { addresses: addr::POD, node: NODE.to_owned(), ready: true };
    let mut service = web().with(topology.backends());
    service.external_local = true;
    let remote_only = service.clone();
    service.endpoints.push(local);

    let scene = Scene::start(topology, xdp, &[service]);
    let client = scene.client();
    for to in outside() {
        let own = client.source_towards(to).unwrap();
        for _ in 0..10 {
            let answer = client.tcp_once(to).unwrap();
            assert_eq!((answer.backend.as_str(), answer.seen_source.ip()), ("pod", own), "{to}");
            let answer = client.udp_once(to, 2000).unwrap().answer;
            assert_eq!((answer.backend.as_str(), answer.seen_source.ip()), ("pod", own), "{to}");
        }
    }
    // With endpoints elsewhere only, another node is in charge: silence, so that nobody takes this for the service.
    scene.manifests.put(&remote_only).unwrap();
    let quick = client.with_timeout(std::time::Duration::from_millis(300));
    eventually_ok("silence", SOON, || match quick.tcp_once(vip(Family::V4)) {
        Err(FlowError::TimedOut) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .unwrap();
    for to in outside() {
        let answers = [quick.tcp_once(to).map(drop), quick.udp_once(to, 10).map(drop)];
        assert!(answers.iter().all(|a| matches!(a, Err(FlowError::TimedOut))), "{to}: {answers:?}");
    }
    // Those on this node are served nonetheless.
    for to in outside() {
        for socket in ["tcp", "udp"] {
            for report in scene.host(&[socket, &to.to_string()]) {
                assert_eq!(report.error, None, "{socket} {to}");
            }
        }
    }
    scene.finish();
}

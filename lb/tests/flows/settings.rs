//! Settings of conntrack.

use lab::{Topology, XdpMode, eventually_ok};

use crate::scene::{SOON, Scene, root};

const ESTABLISHED: &str = "netfilter/nf_conntrack_tcp_timeout_established";
const CLOSE_WAIT: &str = "netfilter/nf_conntrack_tcp_timeout_close_wait";
const UDP: &str = "netfilter/nf_conntrack_udp_timeout";

/// And changed back by cleanup: what [`Scene::finish`] compares includes them.
#[test]
fn timeouts_of_conntrack_are_set_and_kept() {
    root();
    let topology = Topology::builder().build().unwrap();
    let gateway = topology.gateway.clone();
    gateway.sysctl(UDP, "77").unwrap();
    let scene = Scene::start(topology, XdpMode::Native, &[]);
    let read = |key| gateway.read_sysctl(key).unwrap();
    assert_eq!((read(ESTABLISHED).as_str(), read(CLOSE_WAIT).as_str()), ("86400", "3600"));
    assert_eq!(read(UDP), "77", "nothing is said of it");
    gateway.sysctl(ESTABLISHED, "432000").unwrap();
    eventually_ok("it is set again", SOON, || match read(ESTABLISHED) {
        value if value == "86400" => Ok(()),
        value => Err(value),
    })
    .unwrap();
    let status = scene.daemon.status().unwrap();
    let reported = status["sysctls"]
        .as_array()
        .unwrap()
        .iter()
        .find(|sysctl| sysctl["name"].as_str().is_some_and(|name| name.ends_with(ESTABLISHED)));
    assert_eq!(reported.unwrap()["value"], "86400");
    scene.finish();
}

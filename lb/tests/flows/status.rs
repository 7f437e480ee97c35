//! Somebody else has the name of the status socket.

use std::os::{
    linux::net::SocketAddrExt as _,
    unix::net::{SocketAddr, UnixListener},
};

use lab::{Topology, XdpMode, eventually};

use crate::scene::{SOON, Scene, root, web};

/// Any process in the network namespace can take an abstract name while no daemon has it.
#[test]
fn a_taken_status_socket_does_not_stop_the_daemon() {
    root();
    let topology = Topology::builder().build().unwrap();
    let services = [web().with(topology.backends())];
    let mut scene = Scene::start(topology, XdpMode::Native, &services);
    scene.daemon.kill();
    let address = SocketAddr::from_abstract_name("portico").unwrap();
    let squat = || {
        const NOBODY: libc::uid_t = 65_534;
        // SAFETY: no pointers; the raw call changes this thread alone, which ends with the closure.
        assert_eq!(unsafe { libc::syscall(libc::SYS_setresuid, NOBODY, NOBODY, NOBODY) }, 0);
        UnixListener::bind_addr(&address)
    };
    let squatter = scene.topology.gateway.run(squat).unwrap().unwrap();
    scene.daemon.start_again().unwrap();
    let complained = || scene.daemon.stderr().iter().any(|line| line.contains("status socket")).then_some(());
    eventually("the daemon complains", 6 * SOON, complained).unwrap();
    scene.manifests.put(&web().with(&scene.topology.backends()[..1])).unwrap();
    let new = || scene.client().tcp_once(crate::scene::vip(lab::addr::Family::V4)).ok();
    let first = scene.topology.backends()[0].name.clone();
    eventually("changes are followed", 6 * SOON, || {
        (0..10).all(|_| new().is_some_and(|answer| answer.backend == first)).then_some(())
    })
    .unwrap();
    drop(squatter);
    scene.daemon.wait_synced(6 * SOON).unwrap();
    scene.finish();
}

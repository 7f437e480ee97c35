//! A log that cannot be written keeps the daemon from nothing.

use std::{
    fs::File,
    io::{self, PipeReader},
    os::fd::{AsRawFd as _, OwnedFd},
    sync::Arc,
};

use lab::{Topology, XdpMode, addr::Family, eventually};

use crate::scene::{SOON, Scene, root, vip, web};

/// Bytes that fit into the pipe of [`the_log_is_a_pipe_that_nobody_reads`].
const PIPE: libc::c_int = 4_096;

/// Lines that standard error did not take.
fn serves_with(stderr: impl Into<OwnedFd>) -> u64 {
    root();
    let topology = Topology::builder().build().unwrap();
    let services = [web().with(topology.backends())];
    let mut scene = Scene::unsynced(topology, &services, |options| {
        options.xdp = XdpMode::Off;
        options.stderr = Some(Arc::new(stderr.into()));
        // Everything, which is more than the pipe has room for.
        options.more = vec!["-v".into(), "6".into()];
    });
    scene.wait_synced();
    scene.manifests.put(&web().with(&scene.topology.backends()[..1])).unwrap();
    let first = scene.topology.backends()[0].name.clone();
    let answer = || scene.client().tcp_once(vip(Family::V4)).ok();
    eventually("changes are followed", 6 * SOON, || {
        (0..10).all(|_| answer().is_some_and(|answer| answer.backend == first)).then_some(())
    })
    .unwrap();
    let status = scene.daemon.status().unwrap();
    let lost = status.get("logLinesLost").and_then(serde_json::Value::as_u64).unwrap();
    assert!(scene.daemon.terminate().unwrap().success());
    scene.finish();
    lost
}

#[test]
fn the_log_is_a_full_disk() {
    assert!(serves_with(File::options().write(true).open("/dev/full").unwrap()) > 0);
}

#[test]
fn the_reader_of_the_log_has_ended() {
    let (reader, writer) = io::pipe().unwrap();
    drop(reader);
    assert!(serves_with(writer) > 0);
}

#[test]
fn the_log_is_a_pipe_that_nobody_reads() {
    let (reader, writer) = io::pipe().unwrap();
    // SAFETY: no pointers; the descriptor is open.
    assert_eq!(unsafe { libc::fcntl(writer.as_raw_fd(), libc::F_SETPIPE_SZ, PIPE) }, PIPE);
    serves_with(writer);
    assert!(waiting(&reader) > PIPE / 2, "the log was not more than the pipe has room for");
}

fn waiting(reader: &PipeReader) -> libc::c_int {
    let mut bytes = 0;
    // SAFETY: FIONREAD writes one integer, and there is one.
    assert_eq!(unsafe { libc::ioctl(reader.as_raw_fd(), libc::FIONREAD, &raw mut bytes) }, 0);
    bytes
}

//! How flows end, and that conntrack knows.

use std::{
    io::{Read as _, Write as _},
    net::TcpListener,
    os::fd::AsRawFd as _,
    thread,
    time::{Duration, Instant},
};

use lab::{XdpMode, addr::Family, eventually, eventually_ok};
use nix::{
    libc,
    sys::socket::{setsockopt, sockopt},
};

use super::{entries, forwarded, start_with, transfer};
use crate::scene::{SOON, Scene, cluster_ip, outside, root, vip};

#[test]
fn conntrack_sees_the_end_of_a_connection_whose_middle_it_did_not_see() {
    root();
    let scene = Scene::with_two_backends(XdpMode::Native);
    for to in outside() {
        transfer(&scene, to, 4);
        eventually_ok("the entry waits for its end", SOON, || {
            let found = entries(&scene, to);
            if found.iter().all(|entry| entry.contains("TIME_WAIT") || entry.contains("CLOSE"))
                && !found.is_empty()
            {
                Ok(())
            } else {
                Err(format!("{found:?}"))
            }
        })
        .unwrap();
    }
    scene.finish();
}

/// What a window of conntrack's is far behind of: half of all sequence numbers.
const BEYOND: u64 = (2 << 30) + (64 << 20);

/// Sends until the other side is gone, and returns why and how much.
fn pour(listener: &TcpListener) -> (std::io::Error, u64) {
    let (mut stream, _) = listener.accept().unwrap();
    stream.set_write_timeout(Some(Duration::from_secs(60))).unwrap();
    let chunk = vec![0; 1 << 20];
    let mut sent = 0;
    loop {
        match stream.write(&chunk) {
            Ok(n) => sent += n as u64,
            Err(error) => return (error, sent),
        }
    }
}

#[test]
fn a_reset_after_more_than_two_gigabytes_ends_the_connection_everywhere() {
    root();
    let scene = Scene::with_two_backends(XdpMode::Native);
    // In the place of the lab's own servers, because it has to be fast.
    let listeners: Vec<TcpListener> = scene
        .topology
        .backends()
        .iter()
        .map(|backend| backend.ns.run(|| TcpListener::bind("[::]:9090")).unwrap().unwrap())
        .collect();
    let mut service = crate::scene::web().with(scene.topology.backends());
    service.ports.retain(|port| port.name == "tcp");
    service.ports[0].target = 9090;
    scene.manifests.put(&service).unwrap();
    let to = vip(Family::V4);
    eventually("the service has moved", SOON, || {
        scene.backends().iter().all(|b| b.address.ends_with(":9090")).then_some(())
    })
    .unwrap();

    let (ended, received) = thread::scope(|scope| {
        let servers: Vec<_> = listeners.iter().map(|listener| scope.spawn(move || pour(listener))).collect();
        let mut stream =
            scene.topology.client.run(|| std::net::TcpStream::connect_timeout(&to, SOON)).unwrap().unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        let mut buffer = vec![0; 1 << 20];
        let mut received = 0;
        while received < BEYOND {
            let n = stream.read(&mut buffer).unwrap();
            assert!(n > 0);
            received += n as u64;
        }
        let linger = libc::linger { l_onoff: 1, l_linger: 0 };
        setsockopt(&stream, sockopt::Linger, &linger).unwrap();
        drop(stream);
        let began = Instant::now();
        let ended = eventually("a server notices", SOON, || {
            servers.iter().position(thread::ScopedJoinHandle::is_finished)
        });
        let ended = ended.map(|_| began.elapsed());
        // The other has never had a connection.
        for listener in &listeners {
            // SAFETY: the descriptor is open; a listener that is shut down accepts nothing more.
            unsafe { libc::shutdown(listener.as_raw_fd(), libc::SHUT_RDWR) };
        }
        for server in servers {
            if let Ok((error, sent)) = server.join() {
                assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "after {sent} bytes");
            }
        }
        (ended, received)
    });
    ended.unwrap();
    let [to_backend, to_client] = forwarded(&scene, "tcp");
    assert!(to_client > received / 1_460 * 9 / 10, "{to_backend} {to_client}");
    eventually_ok("conntrack knows", SOON, || {
        let found = entries(&scene, to);
        if found.iter().any(|entry| entry.contains("ESTABLISHED")) {
            Err(format!("{found:?}"))
        } else {
            Ok(())
        }
    })
    .unwrap();
    scene.finish();
}

/// Timeout of established flows in these tests.
const TIMEOUT: Duration = Duration::from_secs(4);

#[test]
fn a_busy_flow_outlives_its_timeout_and_an_idle_one_does_not() {
    root();
    let scene =
        start_with(&["--conntrack-tcp-timeout-established", "4s", "--conntrack-udp-timeout-stream", "4s"]);
    for family in Family::ALL {
        let to = cluster_ip(family);
        let mut connection = scene.client().tcp(to).unwrap();
        let udp = scene.client().udp_connected(to).unwrap();
        let began = Instant::now();
        while began.elapsed() < 3 * TIMEOUT {
            connection.get().unwrap();
            udp.exchange(10).unwrap();
            thread::yield_now();
        }
        let idle = Instant::now();
        let left = |protocol: &str| {
            let port = to.port().to_string();
            let ip = to.ip().to_string();
            let family = if to.is_ipv4() { "ipv4" } else { "ipv6" };
            let arguments = ["-L", "-f", family, "-d", &ip, "-p", protocol, "--dport", &port];
            scene.gateway("conntrack", &arguments).lines().count()
        };
        for protocol in ["tcp", "udp"] {
            assert_eq!(left(protocol), 1, "{to}: {protocol} is not forgotten");
        }
        for protocol in ["tcp", "udp"] {
            eventually("the entry expires", 3 * TIMEOUT, || (left(protocol) == 0).then_some(())).unwrap();
            let after = idle.elapsed();
            assert!(after > TIMEOUT - Duration::from_millis(2_500), "{protocol}: already after {after:?}");
            assert!(after < TIMEOUT + Duration::from_secs(4), "{protocol}: only after {after:?}");
        }
    }
    assert!(forwarded(&scene, "tcp")[0] > 100 && forwarded(&scene, "udp")[0] > 100);
    scene.finish();
}

/// A flow is looked up, and its timeout renewed, once a second: there are two chances.
#[test]
fn a_busy_flow_outlives_a_timeout_of_two_seconds() {
    root();
    let scene =
        start_with(&["--conntrack-tcp-timeout-established", "2s", "--conntrack-udp-timeout-stream", "2s"]);
    let mut flows = Family::ALL.map(|family| {
        let to = cluster_ip(family);
        (scene.client().tcp(to).unwrap(), scene.client().udp_connected(to).unwrap())
    });
    // The backend would not know who asks, if the kernel gave a flow another port.
    let began = Instant::now();
    while began.elapsed() < 2 * TIMEOUT {
        for (tcp, udp) in &mut flows {
            tcp.get().unwrap();
            udp.exchange(10).unwrap();
        }
        thread::yield_now();
    }
    assert!(forwarded(&scene, "tcp")[0] > 100 && forwarded(&scene, "udp")[0] > 100);
    scene.finish();
}

/// Answers one connection after the other and closes each first, so that TIME_WAIT is here.
fn close_first(listener: &TcpListener) {
    while let Ok((mut stream, _)) = listener.accept() {
        let mut byte = [0];
        if stream.read_exact(&mut byte).is_ok() {
            let _ = stream.write_all(&byte);
        }
    }
}

#[test]
fn a_port_is_used_again_while_its_last_connection_waits() {
    const PORT: u16 = 21_000;
    root();
    let scene = Scene::with_two_backends(XdpMode::Native);
    let mut service = crate::scene::web().with(scene.topology.backends());
    service.ports.retain(|port| port.name == "tcp");
    service.ports[0].target = 9090;
    let listeners: Vec<TcpListener> = scene
        .topology
        .backends()
        .iter()
        .map(|backend| backend.ns.run(|| TcpListener::bind("[::]:9090")).unwrap().unwrap())
        .collect();
    scene.manifests.put(&service).unwrap();
    eventually("the service has moved", SOON, || {
        scene.backends().iter().all(|b| b.address.ends_with(":9090")).then_some(())
    })
    .unwrap();
    thread::scope(|scope| {
        for listener in &listeners {
            scope.spawn(move || close_first(listener));
        }
        for to in Family::ALL.map(cluster_ip) {
            for round in 0..50 {
                let connection = scene.client().tcp_from(PORT, to);
                let connection = connection.unwrap_or_else(|e| panic!("{to}, connection {round}: {e}"));
                assert_eq!(connection.echo(b'x').unwrap(), b'x', "{to}, connection {round}");
            }
        }
        for listener in &listeners {
            // SAFETY: the descriptor is open; a listener that is shut down accepts nothing more.
            unsafe { libc::shutdown(listener.as_raw_fd(), libc::SHUT_RDWR) };
        }
    });
    scene.finish();
}

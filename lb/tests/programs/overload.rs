//! More SYNs than there is time to answer.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use datapath::{
    abi::{Addr, Counter, Frontend, FrontendKey, Guard, Hook, TCP},
    testing::{Extension, Layers, tables},
};
use portico::driver::objects::{FAST_PROGRAMS, GUARD_PROGRAMS};

use crate::forwarding::{ANYONE, XDP_DROP, XDP_PASS, XDP_REDIRECT, ends, frame, in_a_gateway, run};

/// Long enough for any machine.
const LONGEST: Duration = Duration::from_secs(20);

/// The address of another host.
const ANOTHER: [u8; 6] = [2, 0, 0, 0, 0, 9];

/// The choices of a frontend whose endpoints anybody reaches.
fn served(v6: bool) -> Frontend {
    let tables = tables();
    let (_, frontend) = tables
        .frontends
        .iter()
        .find(|(key, frontend)| {
            let Frontend { flags: 0, outside, .. } = **frontend else { return false };
            key.protocol == TCP && key.addr.is_v4() != v6 && outside.flags == 0 && outside.table != 0
        })
        .unwrap();
    *frontend
}

#[test]
fn a_flood_is_answered_as_time_allows_and_only_where_it_is() {
    in_a_gateway(|gateway, rig| {
        gateway.link(rig, 0, gateway.output(0));
        for v6 in [false, true] {
            let [client, vip, _] = ends(v6);
            // The service whose connection is established, and another one.
            let ports = [vip.port(), vip.port() + 1];
            for (port, service) in ports.into_iter().zip(7..) {
                let key = FrontendKey::new(Addr::from(vip.ip()), port.to_be_bytes(), TCP);
                let guard = Guard { cookies: 1, ..Guard::default() };
                rig.maps.frontends.put(&[(key, Frontend { service, guard, ..served(v6) })]).unwrap();
            }
            // A SYN with options or an extension header is no excuse.
            let syn = |port: u16, n: u16, plain: bool| {
                let layers =
                    Layers::new(TCP, SocketAddr::new(client.ip(), n), SocketAddr::new(vip.ip(), port));
                let layers = match (plain, v6) {
                    (true, _) => layers,
                    (_, false) => layers.options(1),
                    (_, true) => layers.extension(Extension::Destination(0)),
                };
                frame(layers, ANYONE, None, 64)
            };
            let established = frame(Layers::new(TCP, client, vip).established(), ANYONE, None, 64);
            let programs = [GUARD_PROGRAMS[0], FAST_PROGRAMS[0]];
            for (program, plain) in programs.into_iter().flat_map(|one| [(one, true), (one, false)]) {
                let before = rig.counters();
                let deadline = Instant::now() + LONGEST;
                let (mut answered, mut dropped) = (0, 0);
                // The flood of the case before may not be over before the next tick.
                while dropped < 1_000 || answered == 0 {
                    assert!(
                        Instant::now() < deadline,
                        "{program} {plain}: {answered} answered, {dropped} dropped"
                    );
                    match run(rig, program, &syn(ports[0], dropped, plain)).0 {
                        XDP_REDIRECT => answered += 1,
                        XDP_DROP => dropped += 1,
                        other => panic!("{program}: {other}"),
                    }
                    if dropped == 500 {
                        let action = run(rig, program, &syn(ports[1], dropped, plain)).0;
                        assert_eq!(action, XDP_REDIRECT, "{program}: another service");
                        let mut elsewhere = syn(ports[0], dropped, plain);
                        elsewhere[..6].copy_from_slice(&ANOTHER);
                        // More than are let through in a tick.
                        for _ in 0..20 {
                            let action = run(rig, program, &elsewhere).0;
                            assert_eq!(action, XDP_PASS, "{program}: another host's, on a bridge");
                        }
                        let expected = if program == FAST_PROGRAMS[0] { XDP_REDIRECT } else { XDP_PASS };
                        let action = run(rig, program, &established).0;
                        assert_eq!(action, expected, "{program}: an established connection");
                    }
                }
                let counted = rig.counted_since(&before);
                let count = |counter| counted.iter().filter(|one| **one == (Hook::Xdp, counter)).count();
                assert_eq!(count(Counter::Overload), usize::from(dropped));
                assert!(count(Counter::Challenge) >= answered);
            }
        }
    });
}

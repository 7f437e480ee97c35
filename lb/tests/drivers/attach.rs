//! Attachments: each mode, replacement by a later process, an interface that comes back, and leaving without a trace.

use std::{
    path::PathBuf,
    process,
    sync::atomic::{AtomicU32, Ordering},
};

use portico::driver::{
    attach::{self, Attached, TcMode, XdpMode, XdpTask},
    link::Links,
    objects::Objects,
    pins::{DEFAULT, PinDir},
};

use crate::netns::Netns;

struct Pins(PinDir);

impl Pins {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Self(PinDir::prepare(&PathBuf::from(format!("{DEFAULT}-attach-{}-{number}", process::id()))).unwrap())
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        let _ = self.0.remove();
    }
}

fn with_interface() -> Netns {
    let netns = Netns::new();
    netns.sh("ip link add eth0 type veth peer name peer");
    netns
}

fn index(netns: &Netns) -> u32 {
    let snapshot = netns.run_async(async || Links::open().unwrap().snapshot().await.unwrap());
    snapshot.interfaces.iter().find(|interface| interface.name == "eth0").unwrap().index
}

/// Ids of the programs that `ip` and `tc` show.
fn xdp(netns: &Netns) -> String {
    netns.sh("ip -d link show eth0 | sed -n 's/.*prog\\/\\(xdp[a-z]*\\) id \\([0-9]*\\) .*/\\1 \\2/p'")
}

fn filters(netns: &Netns) -> String {
    netns.sh("tc filter show dev eth0 ingress")
}

#[test]
fn xdp_outlives_its_process_and_is_replaced_in_place() {
    let (netns, pins) = (with_interface(), Pins::new());
    let index = index(&netns);
    let attach = |mode| {
        netns.run(|| {
            attach::xdp(&mut Objects::load(&pins.0).unwrap(), &pins.0, "eth0", index, mode, XdpTask::Decide)
                .unwrap();
        });
        xdp(&netns)
    };
    let first = attach(XdpMode::Native);
    assert!(first.starts_with("xdp "), "{first:?}");
    let second = attach(XdpMode::Native);
    assert!(
        second.starts_with("xdp ") && second != first,
        "another program, natively: {first:?}, {second:?}"
    );
    assert_eq!(attach::attached(&pins.0).unwrap().xdp, [("eth0".to_owned(), XdpMode::Native)]);

    attach(XdpMode::Generic);
    assert!(netns.sh("ip link show eth0").contains("xdpgeneric"));
    assert_eq!(attach::attached(&pins.0).unwrap().xdp, [("eth0".to_owned(), XdpMode::Generic)]);

    attach::detach_xdp(&pins.0, "eth0").unwrap();
    assert_eq!(xdp(&netns), "");
    assert_eq!(attach::attached(&pins.0).unwrap(), Attached::default());
}

#[test]
fn xdp_is_attached_anew_to_an_interface_that_came_back() {
    let (netns, pins) = (with_interface(), Pins::new());
    let attach = |index| {
        netns.run(|| {
            let objects = &mut Objects::load(&pins.0).unwrap();
            attach::xdp(objects, &pins.0, "eth0", index, XdpMode::Native, XdpTask::Decide).unwrap();
            attach::tc(objects, &pins.0, "eth0", index, true, TcMode::Tcx).unwrap();
        });
    };
    attach(index(&netns));
    netns.sh("ip link del eth0; ip link add left type veth peer name right; ip link add eth0 type veth peer name peer");
    assert_eq!(xdp(&netns), "");
    attach(index(&netns));
    assert!(xdp(&netns).starts_with("xdp "));
}

#[test]
fn clsact_stands_in_for_tcx() {
    let (netns, pins) = (with_interface(), Pins::new());
    let index = index(&netns);
    let attach = || {
        netns.run(|| {
            let objects = &mut Objects::load(&pins.0).unwrap();
            attach::tc(objects, &pins.0, "eth0", index, true, TcMode::Clsact).unwrap()
        })
    };
    assert!(attach().new_qdisc);
    let first = filters(&netns);
    assert!(first.contains("portico_tc direct-action"), "{first}");
    assert!(!attach().new_qdisc);
    let second = filters(&netns);
    assert_eq!(second.matches("direct-action").count(), 1, "replaced, not added: {second}");
    assert_ne!(first, second);

    netns.run(|| attach::detach_tc(&pins.0, "eth0").unwrap());
    assert_eq!(filters(&netns), "");
    netns.run_async(async || Links::open().unwrap().delete_clsact(index).await.unwrap());
    assert!(!netns.sh("tc qdisc show dev eth0").contains("clsact"));
}

#[test]
fn filters_of_others_stay() {
    let (netns, pins) = (with_interface(), Pins::new());
    let (index, other) = (index(&netns), Pins::new());
    netns.run(|| {
        let objects = &mut Objects::load(&other.0).unwrap();
        attach::tc(objects, &other.0, "eth0", index, true, TcMode::Tcx).unwrap();
        let objects = &mut Objects::load(&pins.0).unwrap();
        attach::tc(objects, &pins.0, "eth0", index, true, TcMode::Tcx).unwrap();
        attach::detach_pinned(&pins.0).unwrap();
    });
    assert_eq!(attach::attached(&pins.0).unwrap(), Attached::default());
    assert_eq!(attach::attached(&other.0).unwrap().tcx, ["eth0"]);
}

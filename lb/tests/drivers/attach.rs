//! Attachments: each mode, replacement by a later process, an interface that comes back, and leaving without a trace.

use std::{
    fs::File,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU32, Ordering},
};

use lab::Cgroup;
use portico::{
    driver::{
        attach::{self, Attached, Held, TcMode, XdpMode, XdpTask, look},
        link::Links,
        objects::Objects,
        pins::{DEFAULT, PinDir},
    },
    model::attachment::{Attachment, Pin, Runs},
};

use crate::{meddle, netns::Netns};

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

/// One of each kind.
fn attach_all(objects: &mut Objects, pins: &PinDir, index: u32, cgroup: &File) -> Vec<Attachment> {
    let mut attached = vec![
        attach::xdp(objects, pins, "eth0", index, XdpMode::Native, XdpTask::Decide).unwrap(),
        attach::tc(objects, pins, "eth0", index, true, TcMode::Tcx).unwrap().attachment,
        attach::tc(objects, pins, "eth0", index, true, TcMode::Clsact).unwrap().attachment,
        attach::egress(objects, pins, cgroup).unwrap(),
    ];
    attached.extend(attach::sockets(objects, pins, cgroup).unwrap());
    attached
}

#[test]
fn what_becomes_of_attachments_and_pins_is_seen() {
    let (netns, pins, cgroup) = (with_interface(), Pins::new(), Cgroup::new("attach").unwrap());
    let (index, directory) = (index(&netns), File::open(cgroup.path()).unwrap());
    netns.run(|| {
        let objects = &mut Objects::load(&pins.0).unwrap();
        let attached = attach_all(objects, &pins.0, index, &directory);
        for (i, wanted) in attached.iter().enumerate() {
            let held = &mut None;
            let ours = Runs::Program(wanted.program);
            assert_eq!(look(&pins.0, wanted, held), (ours, Pin::Kept), "{wanted}");
            let Some(pin) = wanted.pin.as_ref().map(|pin| pins.0.links().join(pin)) else { continue };
            let id = meddle::link_id(&pin);
            std::fs::remove_file(&pin).unwrap();
            assert_eq!(look(&pins.0, wanted, held), (ours, Pin::Missing), "{wanted}");
            held.as_mut().unwrap().pin_again(&pin).unwrap();
            assert_eq!(look(&pins.0, wanted, held), (ours, Pin::Kept), "{wanted}");
            assert_eq!(meddle::link_id(&pin), id, "{wanted}: the same link");
            if i < 4 || wanted.target == "connect4" {
                meddle::replace(&pin);
                let (other, _) = look(&pins.0, wanted, held);
                assert!(matches!(other, Runs::Program(id) if id != wanted.program), "{wanted}: {other:?}");
            }
            meddle::detach(&pin);
            assert_eq!(look(&pins.0, wanted, held), (Runs::Nothing, Pin::Kept), "{wanted}");
            meddle::pin_another_map(&pin);
            assert_eq!(look(&pins.0, wanted, held), (Runs::Nothing, Pin::Other), "{wanted}");
            attach::unpin(&pin).unwrap();
        }
        assert_eq!(attach_all(objects, &pins.0, index, &directory), attached, "all can be attached again");
        // The filter, which TCX took away and clsact has put back.
        let filter = &attached[2];
        assert_eq!(look(&pins.0, filter, &mut None).0, Runs::Program(filter.program));
        netns.sh("tc qdisc del dev eth0 clsact");
        assert_eq!(look(&pins.0, filter, &mut None).0, Runs::Nothing);
        netns.sh("ip link del eth0");
        for wanted in &attached[..3] {
            assert_eq!(look(&pins.0, wanted, &mut None).0, Runs::Gone, "{wanted}");
        }
        attach::detach_pinned(&pins.0).unwrap();
    });
}

/// As by a daemon that starts after somebody detached a hook.
#[test]
fn a_detached_link_is_not_in_the_way() {
    let (pins, cgroup) = (Pins::new(), Cgroup::new("attach").unwrap());
    let directory = File::open(cgroup.path()).unwrap();
    let objects = &mut Objects::load(&pins.0).unwrap();
    attach::sockets(objects, &pins.0, &directory).unwrap();
    attach::egress(objects, &pins.0, &directory).unwrap();
    for name in pins.0.link_names().unwrap() {
        meddle::detach(&pins.0.links().join(name));
    }
    assert_eq!(attach::attached_now(&pins.0).unwrap(), Attached::default());
    attach::sockets(objects, &pins.0, &directory).unwrap();
    attach::egress(objects, &pins.0, &directory).unwrap();
    assert_eq!(attach::attached_now(&pins.0).unwrap().sockets.len(), 9);
    attach::detach_pinned(&pins.0).unwrap();
}

#[test]
fn hooks_move_to_another_cgroup() {
    let (pins, cgroups) = (Pins::new(), [0, 1].map(|_| Cgroup::new("attach").unwrap()));
    let objects = &mut Objects::load(&pins.0).unwrap();
    for cgroup in &cgroups {
        let directory = File::open(cgroup.path()).unwrap();
        let id = directory.metadata().unwrap().ino();
        let mut attached = attach::sockets(objects, &pins.0, &directory).unwrap();
        attached.push(attach::egress(objects, &pins.0, &directory).unwrap());
        for wanted in &attached {
            assert_eq!(wanted.place, id, "{wanted}");
            assert_eq!(look(&pins.0, wanted, &mut None).0, Runs::Program(wanted.program), "{wanted}");
        }
    }
    attach::detach_pinned(&pins.0).unwrap();
}

#[test]
fn interfaces_may_have_dots_in_their_names() {
    const NAME: &str = "flannel.1";
    let (netns, pins) = (Netns::new(), Pins::new());
    netns.sh("ip link add flannel.1 type veth peer name peer");
    netns.run(|| {
        let index = nix::net::if_::if_nametoindex(NAME).unwrap();
        let objects = &mut Objects::load(&pins.0).unwrap();
        attach::xdp(objects, &pins.0, NAME, index, XdpMode::Native, XdpTask::Decide).unwrap();
        // As a daemon that did not know how to pin it would have left it.
        attach::tc(objects, &pins.0, NAME, index, true, TcMode::Clsact).unwrap();
        attach::tc(objects, &pins.0, NAME, index, true, TcMode::Tcx).unwrap();
        assert_eq!(netns.sh("tc filter show dev flannel.1 ingress"), "");
        let found = attach::attached_now(&pins.0).unwrap();
        assert_eq!(found.xdp, [(NAME.to_owned(), XdpMode::Native)]);
        assert_eq!(found.tcx, [NAME]);
        attach::detach_xdp(&pins.0, NAME).unwrap();
        attach::detach_tc(&pins.0, NAME).unwrap();
        attach::detach_tc(&pins.0, "no.pin").unwrap();
    });
    assert_eq!(attach::attached(&pins.0).unwrap(), Attached::default());
}

#[test]
fn pins_follow_the_names_of_interfaces() {
    let (netns, pins) = (Netns::new(), Pins::new());
    netns.sh("ip link add name a type veth peer name b");
    netns.run(|| {
        let objects = &mut Objects::load(&pins.0).unwrap();
        let index = |name| nix::net::if_::if_nametoindex(name).unwrap();
        for name in ["a", "b"] {
            attach::xdp(objects, &pins.0, name, index(name), XdpMode::Native, XdpTask::Decide).unwrap();
            attach::tc(objects, &pins.0, name, index(name), true, TcMode::Tcx).unwrap();
        }
        let id = |name: &str| meddle::link_id(&pins.0.links().join(name)).unwrap();
        let before = ["xdp-native-a", "tcx-a", "xdp-native-b", "tcx-b"].map(id);
        netns.sh("ip link set dev a name x; ip link set dev b name a; ip link set dev x name b");
        let names = [(index("a").into(), "a"), (index("b").into(), "b")].into();
        attach::follow_names(&pins.0, &names).unwrap();
        assert_eq!(["xdp-native-b", "tcx-b", "xdp-native-a", "tcx-a"].map(id), before);
        attach::detach_pinned(&pins.0).unwrap();
    });
}

#[test]
fn a_map_is_pinned_again_from_what_is_held() {
    let pins = Pins::new();
    let _objects = Objects::load(&pins.0).unwrap();
    let pin = pins.0.maps().join("FRONTENDS");
    let mut held = Held::open(&pin).unwrap();
    let id = meddle::map_id(&pin);
    assert_eq!(held.pin(&pin), Pin::Kept);
    for (meddle, found) in [
        (meddle::pin_another_map as fn(&Path), Pin::Other),
        (|pin| attach::unpin(pin).unwrap(), Pin::Missing),
    ] {
        meddle(&pin);
        assert_eq!(held.pin(&pin), found);
        held.pin_again(&pin).unwrap();
        assert_eq!((held.pin(&pin), meddle::map_id(&pin)), (Pin::Kept, id));
    }
}

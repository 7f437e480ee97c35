//! Which interfaces programs run on, and between which of them established flows are forwarded in XDP.

use datapath::abi::{FORWARD, Input, InputKey, Output, TAGGED, TRANSMIT, mac};

use super::facts::pod_interfaces;
use crate::{
    config::DetectLocal,
    model::{
        forwarding::Links,
        link::{Interface, Layer, Snapshot},
    },
};

/// A link that takes part.
#[derive(Clone, Copy, Debug)]
pub struct Link<'a> {
    /// The interface that routes.
    pub interface: &'a Interface,
    /// The device that receives and sends for it.
    pub device: &'a Interface,
    /// Whether packets of other devices can be redirected to this one.
    pub takes_redirects: bool,
    /// Whether established flows are forwarded that arrive here.
    pub forwards: bool,
}

/// The tag of an interface's packets on its device; none if there is more than one.
fn tag(interface: &Interface, device: &Interface) -> Option<u16> {
    if interface.index == device.index {
        return Some(0);
    }
    let id = interface.vlan.filter(|_| interface.lower == Some(device.index))?;
    Some(TAGGED | id)
}

/// What to write into the maps.
#[must_use]
pub fn links(links: &[Link<'_>]) -> Links {
    let mut wanted = Links::default();
    for Link { interface, device, takes_redirects, forwards } in links {
        let (Some(tag), Some(address)) = (tag(interface, device), interface.mac) else { continue };
        if !interface.up || !device.up {
            continue;
        }
        let key = InputKey { device: device.index, tag: tag.into() };
        let flags = if *forwards { FORWARD } else { 0 };
        wanted.inputs.insert(key, Input { interface: interface.index, flags, mac: mac(address) });
        if *takes_redirects {
            wanted.devices.insert(device.index);
        }
        // What a driver of a virtual pair sends back needs more of the other end than what is redirected to it.
        let transmits = device.kind.as_deref() != Some("veth");
        if *takes_redirects && *forwards {
            let flags = if transmits { TRANSMIT } else { 0 };
            let mtu = interface.route_mtu.unwrap_or_default().min(u16::MAX.into());
            wanted.outputs.insert(interface.index, Output { device: device.index, tag, flags, mtu });
        }
    }
    wanted
}

/// The interface of a name.
#[must_use]
pub fn find<'a>(snapshot: &'a Snapshot, name: &str) -> Option<&'a Interface> {
    snapshot.interfaces.iter().find(|interface| interface.name == name)
}

/// The interfaces that programs are attached to: those that packets for frontends arrive on, by their names or, if there
/// are none, by what the namespace has, and those that pods of this node are behind.
#[must_use]
pub fn wanted<'a>(named: &[String], pods: &'a DetectLocal, snapshot: &'a Snapshot) -> Vec<&'a Interface> {
    let mut wanted = uplinks(named, snapshot);
    for interface in pod_interfaces(pods, snapshot).filter(|interface| interface.up) {
        if wanted.iter().all(|known| known.index != interface.index) {
            wanted.push(interface);
        }
    }
    wanted
}

/// Those of them that packets for frontends arrive on.
#[must_use]
pub fn uplinks<'a>(named: &[String], snapshot: &'a Snapshot) -> Vec<&'a Interface> {
    if !named.is_empty() {
        return named.iter().filter_map(|name| find(snapshot, name)).collect();
    }
    let real = |interface: &&Interface| interface.up && interface.layer != Layer::Loopback;
    let all = || snapshot.interfaces.iter().filter(real);
    let defaults: Vec<&Interface> = all()
        .filter(|interface| {
            snapshot.default_v4.contains(&interface.index) || snapshot.default_v6.contains(&interface.index)
        })
        .collect();
    if defaults.is_empty() { all().collect() } else { defaults }
}

/// The device that receives for an interface: tc belongs on the VLAN device that routes, because it would overwrite the
/// label, and XDP on the device beneath, which it runs fastest on.
#[must_use]
pub fn base<'a>(snapshot: &'a Snapshot, interface: &'a Interface) -> &'a Interface {
    let below = |interface: &&'a Interface| {
        let lower = interface.lower.filter(|_| interface.kind.as_deref() == Some("vlan"))?;
        snapshot.interfaces.iter().find(|candidate| candidate.index == lower)
    };
    std::iter::successors(Some(interface), below).last().unwrap_or(interface)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interface(index: u32, name: &str) -> Interface {
        Interface {
            index,
            name: name.to_owned(),
            kind: None,
            lower: None,
            vlan: None,
            mac: Some([2, 0, 0, 0, 0, index as u8]),
            controller: None,
            route_mtu: None,
            up: true,
            mtu: 1500,
            layer: Layer::Ethernet,
            addresses: Vec::new(),
        }
    }

    #[test]
    fn a_vlan_is_told_by_its_tag_on_the_device_below() {
        let eth0 = interface(2, "eth0");
        let vlan = Interface {
            vlan: Some(5),
            lower: Some(2),
            kind: Some("vlan".to_owned()),
            ..interface(3, "eth0.5")
        };
        let deeper = Interface { vlan: Some(6), lower: Some(3), ..interface(4, "eth0.5.6") };
        let link = |interface| Link { interface, device: &eth0, takes_redirects: true, forwards: true };
        let found = links(&[link(&eth0), link(&vlan), link(&deeper)]);
        let inputs: Vec<_> =
            found.inputs.iter().map(|(key, input)| (key.device, key.tag, input.interface)).collect();
        assert_eq!(inputs, [(2, 0, 2), (2, 0x1005, 3)]);
        let outputs: Vec<_> =
            found.outputs.iter().map(|(index, output)| (*index, output.device, output.tag)).collect();
        assert_eq!(outputs, [(2, 2, 0), (3, 2, 0x1005)]);
    }

    #[test]
    fn nothing_leaves_where_redirects_are_not_taken_and_nothing_arrives_where_it_is_down() {
        let eth0 = interface(2, "eth0");
        let veth = Interface { kind: Some("veth".to_owned()), ..interface(3, "pod0") };
        let down = Interface { up: false, ..interface(4, "eth1") };
        let link = |interface, takes_redirects| Link {
            interface,
            device: interface,
            takes_redirects,
            forwards: true,
        };
        let found = links(&[link(&eth0, false), link(&veth, true), link(&down, true)]);
        assert_eq!(found.inputs.len(), 2);
        let outputs: Vec<_> = found.outputs.iter().map(|(index, output)| (*index, output.flags)).collect();
        assert_eq!(outputs, [(3, 0)], "and a veth sends nothing back");
    }

    fn vlan(index: u32, name: &str, lower: u32) -> Interface {
        Interface { kind: Some("vlan".to_owned()), lower: Some(lower), ..interface(index, name) }
    }

    fn snapshot() -> Snapshot {
        Snapshot {
            interfaces: vec![
                Interface { layer: Layer::Loopback, ..interface(1, "lo") },
                interface(2, "eth0"),
                vlan(3, "eth0.5", 2),
                vlan(4, "eth0.5.6", 3),
                Interface { up: false, ..interface(5, "eth1") },
            ],
            ..Snapshot::default()
        }
    }

    fn names(interfaces: &[&Interface]) -> Vec<String> {
        interfaces.iter().map(|interface| interface.name.clone()).collect()
    }

    #[test]
    fn xdp_goes_beneath_vlan_devices() {
        let snapshot = snapshot();
        let base_of = |name| find(&snapshot, name).map(|i| base(&snapshot, i).name.clone());
        assert_eq!(base_of("eth0.5.6").as_deref(), Some("eth0"));
        assert_eq!(base_of("eth0").as_deref(), Some("eth0"));
    }

    #[test]
    fn unnamed_interfaces_are_those_with_a_default_route_or_all_that_are_up() {
        let mut snapshot = snapshot();
        let pods = DetectLocal::default();
        assert_eq!(names(&wanted(&[], &pods, &snapshot)), ["eth0", "eth0.5", "eth0.5.6"]);
        snapshot.default_v6.insert(3);
        assert_eq!(names(&wanted(&[], &pods, &snapshot)), ["eth0.5"]);
    }

    #[test]
    fn interfaces_that_pods_are_told_by_are_wanted_too() {
        let snapshot = snapshot();
        let named = ["eth0".to_owned()];
        let prefix = DetectLocal::InterfaceNamePrefix("eth0.5".to_owned());
        assert_eq!(names(&wanted(&named, &prefix, &snapshot)), ["eth0", "eth0.5", "eth0.5.6"]);
        assert_eq!(names(&uplinks(&named, &snapshot)), ["eth0"]);
        let bridge = DetectLocal::BridgeInterface("eth0.5".to_owned());
        assert_eq!(names(&wanted(&named, &bridge, &snapshot)), ["eth0", "eth0.5"]);
    }
}

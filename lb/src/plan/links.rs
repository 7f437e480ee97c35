//! Between which links established flows are forwarded in XDP.

use datapath::abi::{FORWARD, Input, InputKey, Output, TAGGED, TRANSMIT, mac};

use crate::model::{
    forwarding::Links,
    link::{Interface, Snapshot},
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

/// The device of an interface by its name.
#[must_use]
pub fn device<'a>(snapshot: &'a Snapshot, name: &str) -> Option<&'a Interface> {
    snapshot.interfaces.iter().find(|interface| interface.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::link::Layer;

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
}

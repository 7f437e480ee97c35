//! Where established flows are forwarded in XDP. Pure.

use std::{collections::BTreeMap, fmt, str::FromStr};

use datapath::abi::{FORWARD, Input, InputKey, Output, TAGGED, TRANSMIT, mac};

use crate::model::{
    forwarding::Links,
    link::{Interface, Snapshot},
};

/// `--fast-path`: on which interfaces established flows are forwarded in XDP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FastPath {
    /// On those that are not named.
    pub on: bool,
    /// On those that are.
    pub interfaces: BTreeMap<String, bool>,
}

impl Default for FastPath {
    fn default() -> Self {
        Self { on: true, interfaces: BTreeMap::new() }
    }
}

impl FastPath {
    /// From its parts, of which later ones count.
    #[must_use]
    pub fn new(parts: impl IntoIterator<Item = FastPathPart>) -> Self {
        let mut fast = Self::default();
        for FastPathPart { interface, on } in parts {
            match interface {
                None => fast.on = on,
                Some(interface) => drop(fast.interfaces.insert(interface, on)),
            }
        }
        fast
    }

    /// Whether it is wanted on an interface.
    #[must_use]
    pub fn wanted(&self, interface: &str) -> bool {
        self.interfaces.get(interface).copied().unwrap_or(self.on)
    }

    /// Whether it is wanted anywhere.
    #[must_use]
    pub fn anywhere(&self) -> bool {
        self.on || self.interfaces.values().any(|on| *on)
    }
}

/// `on`, `off`, `eth0=on`, `eth0=off`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FastPathPart {
    /// None: those that are not named.
    pub interface: Option<String>,
    /// Whether it is wanted.
    pub on: bool,
}

impl FromStr for FastPathPart {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (interface, state) = match text.rsplit_once('=') {
            Some((interface, state)) => (Some(interface), state),
            None => (None, text),
        };
        let on = match state {
            "on" => Some(true),
            "off" => Some(false),
            _ => None,
        };
        match (interface, on) {
            (Some(""), _) | (_, None) => {
                Err(format!("{text:?} is none of on, off, INTERFACE=on, INTERFACE=off"))
            }
            (interface, Some(on)) => Ok(Self { interface: interface.map(str::to_owned), on }),
        }
    }
}

impl fmt::Display for FastPathPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(interface) = &self.interface {
            write!(f, "{interface}=")?;
        }
        f.write_str(if self.on { "on" } else { "off" })
    }
}

/// A link that takes part: the interface that routes, and the device that receives and sends for it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Link<'a> {
    pub(super) interface: &'a Interface,
    pub(super) device: &'a Interface,
    /// Whether packets of other devices can be redirected to this one.
    pub(super) takes_redirects: bool,
    /// Whether established flows are forwarded that arrive here.
    pub(super) forwards: bool,
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
pub(super) fn links(links: &[Link<'_>]) -> Links {
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
pub(super) fn device<'a>(snapshot: &'a Snapshot, name: &str) -> Option<&'a Interface> {
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
    fn later_parts_count_and_names_before_the_rest() {
        let parse = |parts: &[&str]| FastPath::new(parts.iter().map(|part| part.parse().unwrap()));
        assert!(parse(&[]).wanted("eth0"));
        let fast = parse(&["eth0=off", "eth1=on", "off", "eth0=on", "a=b=off"]);
        assert_eq!(["eth0", "eth1", "eth2", "a=b"].map(|name| fast.wanted(name)), [true, true, false, false]);
        assert!(fast.anywhere());
        assert!(!parse(&["off", "eth0=off"]).anywhere());
        for wrong in ["", "eth0", "=on", "eth0=", "eth0=maybe", "ON"] {
            assert!(wrong.parse::<FastPathPart>().is_err(), "{wrong}");
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

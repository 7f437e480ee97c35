//! Interfaces, their addresses and default routes, over rtnetlink.
//!
//! A socket belongs to the network namespace of the thread that opens it: call [`Links::open`] and [`Links::watch`]
//! there. Afterwards they may be used from anywhere. Both need a tokio runtime.

use std::io;

use futures::{StreamExt, TryStreamExt};
use netlink_sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket, protocols::NETLINK_ROUTE};
use nix::net::if_::if_indextoname;
use rtnetlink::{
    MulticastGroup,
    packet_route::{
        AddressFamily,
        address::{AddressAttribute, AddressMessage, AddressScope},
        link::{
            InfoData, InfoKind, InfoVlan, LinkAttribute, LinkExtentMask, LinkFlags, LinkInfo, LinkLayerType,
            LinkMessage,
        },
        route::{RouteAttribute, RouteHeader, RouteMessage, RouteMetric, RouteType},
        tc::TcHandle,
    },
};

use crate::model::link::{Address, Interface, Layer, Scope, Snapshot};

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No rtnetlink socket could be had.
    #[error("cannot open an rtnetlink socket")]
    Open(#[source] io::Error),
    /// The kernel did not list something.
    #[error("cannot list {what}")]
    List {
        /// What was to be listed.
        what: &'static str,
        /// Why.
        source: rtnetlink::Error,
    },
    /// A qdisc could not be deleted.
    #[error("cannot delete the clsact qdisc of interface {index}")]
    Qdisc {
        /// The interface.
        index: u32,
        /// Why.
        source: rtnetlink::Error,
    },
    /// The multicast socket failed.
    #[error("cannot watch links, addresses and routes: {attempt} failed")]
    Watch {
        /// What was attempted.
        attempt: &'static str,
        /// Why.
        source: io::Error,
    },
}

/// Kinds whose `IFLA_LINK` is the other end, not an interface below.
const PAIRS: [InfoKind; 3] = [InfoKind::Veth, InfoKind::Netkit, InfoKind::Vxcan];

/// The name of an interface in the network namespace of the calling thread; none if there is no such interface.
#[must_use]
pub fn name(index: u32) -> Option<String> {
    let name = if_indextoname(index).ok()?.to_string_lossy().into_owned();
    // nix 0.31 takes the C function's null pointer for an empty name.
    Some(name).filter(|name| !name.is_empty())
}

/// The connection.
#[derive(Clone, Debug)]
pub struct Links(rtnetlink::Handle);

impl Links {
    /// Opens it in the network namespace of the calling thread.
    ///
    /// # Errors
    /// [`Error::Open`].
    pub fn open() -> Result<Self, Error> {
        let (connection, handle, _) = rtnetlink::new_connection().map_err(Error::Open)?;
        // Ends when the last handle is dropped.
        tokio::spawn(connection);
        Ok(Self(handle))
    }

    /// What there is. The parts are listed one after the other: [`Links::watch`] first, so that a change between them
    /// leads to another snapshot.
    ///
    /// # Errors
    /// [`Error::List`].
    pub async fn snapshot(&self) -> Result<Snapshot, Error> {
        let mut snapshot = Snapshot::default();
        let list = |what| move |source| Error::List { what, source };

        // Statistics are most of the message, and changed ones would make every snapshot different.
        let request = self.0.link().get();
        let links = request.set_filter_mask(AddressFamily::Unspec, vec![LinkExtentMask::SkipStats]).execute();
        let links: Vec<LinkMessage> = links.try_collect().await.map_err(list("links"))?;
        snapshot.interfaces = links.into_iter().map(interface).collect();
        snapshot.interfaces.sort_by_key(|interface| interface.index);

        let mut addresses = self.0.address().get().execute();
        while let Some(message) = addresses.next().await {
            let message = message.map_err(list("addresses"))?;
            let index = message.header.index;
            let position = snapshot.interfaces.binary_search_by_key(&index, |interface| interface.index);
            let interface = position.ok().and_then(|position| snapshot.interfaces.get_mut(position));
            if let Some(interface) = interface {
                interface.addresses.extend(address(&message));
            }
        }
        for (family, defaults) in [
            (AddressFamily::Inet, &mut snapshot.default_v4),
            (AddressFamily::Inet6, &mut snapshot.default_v6),
        ] {
            let mut request = RouteMessage::default();
            request.header.address_family = family;
            let mut routes = self.0.route().get(request).execute();
            while let Some(route) = routes.next().await {
                let route = route.map_err(list("routes"))?;
                defaults.extend(default_interfaces(&route));
                limit(&mut snapshot.interfaces, &route);
            }
        }
        Ok(snapshot)
    }

    /// Deletes the clsact qdisc of an interface, with all filters on it.
    ///
    /// # Errors
    /// [`Error::Qdisc`].
    pub async fn delete_clsact(&self, index: u32) -> Result<(), Error> {
        // `TC_H_CLSACT`, which is the qdisc's parent; its own handle is ffff:0.
        const CLSACT: TcHandle = TcHandle { major: 0xffff, minor: 0xfff1 };
        let mut request = self.0.qdisc().del(index as i32);
        request.message_mut().header.parent = CLSACT;
        request.message_mut().header.handle = TcHandle { major: CLSACT.major, minor: 0 };
        request.execute().await.map_err(|source| Error::Qdisc { index, source })
    }

    /// Subscribes to changes of links, addresses and routes in the network namespace of the calling thread.
    ///
    /// # Errors
    /// [`Error::Watch`].
    pub fn watch() -> Result<Watch, Error> {
        const GROUPS: [MulticastGroup; 5] = [
            MulticastGroup::Link,
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv6Ifaddr,
            MulticastGroup::Ipv4Route,
            MulticastGroup::Ipv6Route,
        ];
        let failed = |attempt| move |source| Error::Watch { attempt, source };
        let mask = GROUPS.iter().fold(0, |mask, group| mask | 1 << (*group as u32 - 1));
        let mut socket = TokioSocket::new(NETLINK_ROUTE).map_err(failed("opening a netlink socket"))?;
        socket.socket_mut().bind(&SocketAddr::new(0, mask)).map_err(failed("joining the groups"))?;
        Ok(Watch { socket, buffer: Vec::with_capacity(64) })
    }
}

/// The subscription.
pub struct Watch {
    socket: TokioSocket,
    buffer: Vec<u8>,
}

impl Watch {
    /// Waits for the next change, which may be one of many. Cancel safe.
    ///
    /// # Errors
    /// [`Error::Watch`].
    pub async fn changed(&mut self) -> Result<(), Error> {
        // What changed is for a snapshot to tell: here messages may be cut short, or lost.
        self.buffer.clear();
        match self.socket.recv(&mut self.buffer).await {
            Err(error) if error.raw_os_error() != Some(libc::ENOBUFS) => {
                Err(Error::Watch { attempt: "receiving", source: error })
            }
            _ => Ok(()),
        }
    }
}

fn interface(message: LinkMessage) -> Interface {
    let mut interface = Interface {
        index: message.header.index,
        name: String::new(),
        kind: None,
        lower: None,
        vlan: None,
        mac: None,
        controller: None,
        up: message.header.flags.contains(LinkFlags::Up),
        route_mtu: None,
        mtu: 0,
        layer: match message.header.link_layer_type {
            LinkLayerType::Ether => Layer::Ethernet,
            LinkLayerType::Loopback => Layer::Loopback,
            LinkLayerType::None => Layer::None,
            other => Layer::Other(u16::from(other)),
        },
        addresses: Vec::new(),
    };
    let mut elsewhere = false;
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => interface.name = name,
            LinkAttribute::Mtu(mtu) => interface.mtu = mtu,
            LinkAttribute::Link(index) if index != 0 => interface.lower = Some(index),
            LinkAttribute::Address(address) => interface.mac = address.try_into().ok(),
            LinkAttribute::LinkNetNsId(_) => elsewhere = true,
            LinkAttribute::Controller(index) => interface.controller = Some(index),
            LinkAttribute::LinkInfo(infos) => {
                for info in infos {
                    match info {
                        LinkInfo::Kind(kind) => {
                            elsewhere |= PAIRS.contains(&kind);
                            interface.kind = Some(kind.to_string());
                        }
                        LinkInfo::Data(InfoData::Vlan(data)) => {
                            interface.vlan = data.iter().find_map(|info| match info {
                                InfoVlan::Id(id) => Some(*id),
                                _ => None,
                            });
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    if elsewhere {
        interface.lower = None;
    }
    interface
}

fn address(message: &AddressMessage) -> Option<Address> {
    let mut ip = None;
    for attribute in &message.attributes {
        match attribute {
            // On a point-to-point link the other attribute is the peer's.
            AddressAttribute::Local(local) => ip = Some(*local),
            AddressAttribute::Address(address) if ip.is_none() => ip = Some(*address),
            _ => {}
        }
    }
    let scope = match message.header.scope {
        AddressScope::Universe => Scope::Global,
        AddressScope::Site => Scope::Site,
        AddressScope::Link => Scope::Link,
        AddressScope::Host => Scope::Host,
        other => Scope::Other(u8::from(other)),
    };
    Some(Address { ip: ip?, prefix_len: message.header.prefix_len, scope })
}

/// Takes down a route's `mtu` with the interfaces it leads to.
fn limit(interfaces: &mut [Interface], route: &RouteMessage) {
    let metrics = route.attributes.iter().filter_map(|attribute| match attribute {
        RouteAttribute::Metrics(metrics) => Some(metrics),
        _ => None,
    });
    let mtu = metrics.flatten().find_map(|metric| match metric {
        RouteMetric::Mtu(mtu) => Some(*mtu),
        _ => None,
    });
    let Some(mtu) = mtu else { return };
    for index in outgoing(route) {
        if let Ok(position) = interfaces.binary_search_by_key(&index, |interface| interface.index) {
            let least = &mut interfaces[position].route_mtu;
            *least = Some(least.map_or(mtu, |least| least.min(mtu)));
        }
    }
}

fn default_interfaces(route: &RouteMessage) -> Vec<u32> {
    let header = &route.header;
    if header.destination_prefix_length != 0
        || header.table != RouteHeader::RT_TABLE_MAIN
        || header.kind != RouteType::Unicast
    {
        return Vec::new();
    }
    outgoing(route)
}

/// Indexes of the interfaces that a route leads to.
fn outgoing(route: &RouteMessage) -> Vec<u32> {
    let mut indexes = Vec::new();
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Oif(index) => indexes.push(*index),
            RouteAttribute::MultiPath(hops) => indexes.extend(hops.iter().map(|hop| hop.interface_index)),
            _ => {}
        }
    }
    indexes
}

#[cfg(test)]
mod tests {
    use super::name;

    #[test]
    fn an_interface_that_is_not_there_has_no_name() {
        assert_eq!(name(1).as_deref(), Some("lo"));
        assert_eq!(name(u32::MAX >> 1), None);
    }
}

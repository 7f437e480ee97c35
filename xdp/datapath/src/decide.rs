//! What happens to a packet that arrives on an interface.

use crate::{
    abi::{
        Addr, Affinity, CLASSES, CLUSTER_IP, Choice, Counter, Frontend, FrontendKey, LOCAL, Label,
        MASQUERADE, MASQUERADE_MARK, NODE_PORT, POD_NETWORK, REFUSE, RESTRICTED, SERVICE_NETWORK, Slot,
        Source, VIP, WITHHOLD,
    },
    hash, maglev,
    packet::Packet,
    tables::Tables,
};

/// The verdict on a packet, and the one counter that explains it.
///
/// A decision is made for each packet alike: whether it opens a connection is for the kernel's conntrack to know, and
/// the NAT chains that read the label are seen by new connections only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Why.
    pub counter: Counter,
    /// What `table inet portico` shall do with the packet if it opens a connection.
    pub label: Label,
    /// Bits to set in the packet's mark.
    pub mark: u32,
}

impl Decision {
    /// Not ours: the packet passes untouched.
    #[inline(always)]
    #[must_use]
    pub const fn pass(counter: Counter) -> Self {
        Self { counter, label: Label::NONE, mark: 0 }
    }

    #[inline(always)]
    const fn deny(counter: Counter) -> Self {
        let label = match counter {
            Counter::Refuse | Counter::UnservedPort => Label::REJECT,
            _ => Label::DROP,
        };
        Self { counter, label, mark: 0 }
    }
}

/// Decides about a packet that arrived on an interface, given by its index.
#[inline(always)]
pub fn decide<T: Tables>(packet: &Packet, interface: u32, tables: &T) -> Decision {
    match find(packet, tables) {
        Ok(frontend) => serve(packet, interface, &frontend, tables),
        Err(decision) => decision,
    }
}

/// The first half of a decision: the frontend that a packet is for.
///
/// # Errors
///
/// It is for none, which is a decision.
#[inline(always)]
pub fn find<T: Tables>(packet: &Packet, tables: &T) -> Result<Frontend, Decision> {
    frontend(packet, tables).map_err(|counter| match counter {
        Counter::NoFrontend | Counter::OtherProtocol | Counter::UnservedVip => Decision::pass(counter),
        _ => Decision::deny(counter),
    })
}

/// The second half: what happens to a packet for a frontend.
#[inline(always)]
fn serve<T: Tables>(packet: &Packet, interface: u32, frontend: &Frontend, tables: &T) -> Decision {
    match permit(packet, interface, frontend, tables) {
        Ok(choice) => place(packet, frontend, &choice, tables),
        Err(decision) => decision,
    }
}

/// The first part of that: the choice for the client.
///
/// # Errors
///
/// It may not connect, or nobody serves it, which is a decision.
#[inline(always)]
pub fn permit<T: Tables>(
    packet: &Packet,
    interface: u32,
    frontend: &Frontend,
    tables: &T,
) -> Result<Choice, Decision> {
    let source = Source { service: frontend.service, addr: packet.src };
    if frontend.flags & RESTRICTED != 0 && !tables.may_reach(&source) {
        return Err(Decision::deny(Counter::SourceRange));
    }
    let choice = if frontend.flags & CLASSES == 0 {
        frontend.outside
    } else {
        by_class(packet, interface, frontend, tables)
    };
    open(&choice).map(|()| choice).map_err(Decision::deny)
}

/// The second part: the backend.
#[inline(always)]
pub fn place<T: Tables>(packet: &Packet, frontend: &Frontend, choice: &Choice, tables: &T) -> Decision {
    let source = Source { service: frontend.service, addr: packet.src };
    let client = Client { source, opens: packet.opens, hash: hash::flow(packet) };
    let slot = match choose(frontend, choice, &client, tables) {
        Ok(slot) => slot,
        Err(counter) => return Decision::deny(counter),
    };
    // A backend that reaches itself through the frontend would answer itself directly, past the translation.
    let hairpin = || {
        slot.may_be(&packet.src)
            && tables.backend(slot.id()).is_some_and(|backend| backend.addr == packet.src)
    };
    let mark = if choice.flags & MASQUERADE != 0 || hairpin() { MASQUERADE_MARK } else { 0 };
    Decision { counter: Counter::Forward, label: Label::backend(slot.id()), mark }
}

/// In kube-proxy's order: an address of the node that is in the pods' network is a pod's.
#[inline(always)]
fn by_class<T: Tables>(packet: &Packet, interface: u32, frontend: &Frontend, tables: &T) -> Choice {
    if tables.network(&packet.src) & POD_NETWORK != 0 || tables.is_pod_interface(interface) {
        frontend.pod
    } else if tables.address(&packet.src) & LOCAL != 0 || packet.src.is_loopback() {
        frontend.host
    } else {
        frontend.outside
    }
}

#[inline(always)]
fn frontend<T: Tables>(packet: &Packet, tables: &T) -> Result<Frontend, Counter> {
    let none = if packet.has_ports() { Counter::NoFrontend } else { Counter::OtherProtocol };
    if packet.has_ports() {
        let key = FrontendKey::new(packet.dst, packet.dst_port, packet.protocol);
        if let Some(frontend) = tables.frontend(&key) {
            return Ok(frontend);
        }
    }
    let flags = tables.address(&packet.dst);
    if flags & NODE_PORT != 0 && packet.has_ports() {
        let key = FrontendKey::new(packet.dst.any(), packet.dst_port, packet.protocol);
        if let Some(frontend) = tables.frontend(&key) {
            return Ok(frontend);
        }
    }
    if flags & (VIP | LOCAL | CLUSTER_IP) == VIP && packet.has_ports() {
        return Err(Counter::UnservedVip);
    }
    Err(unserved(&packet.dst, flags, tables).unwrap_or(none))
}

/// What is served at an address and port, `NodePorts` among it.
#[inline(always)]
pub(crate) fn frontend_at<T: Tables>(
    addr: Addr,
    port: [u8; 2],
    protocol: u8,
    tables: &T,
) -> Option<Frontend> {
    tables.frontend(&FrontendKey::new(addr, port, protocol)).or_else(|| {
        let on_node = tables.address(&addr) & NODE_PORT != 0;
        on_node.then(|| tables.frontend(&FrontendKey::new(addr.any(), port, protocol))).flatten()
    })
}

/// Why nothing else may have what is not served at this address, if so.
#[inline(always)]
pub(crate) fn unserved<T: Tables>(addr: &Addr, flags: u32, tables: &T) -> Option<Counter> {
    if flags & CLUSTER_IP != 0 {
        Some(Counter::UnservedPort)
    } else if flags & LOCAL == 0 && tables.network(addr) & SERVICE_NETWORK != 0 {
        Some(Counter::Unallocated)
    } else {
        None
    }
}

/// Whoever asks for a backend.
pub(crate) struct Client {
    /// Whose connections stay together.
    pub(crate) source: Source,
    /// Whether this may be a new connection.
    pub(crate) opens: bool,
    /// Picks the slot.
    pub(crate) hash: u32,
}

/// Whether there is anybody to choose from.
#[inline(always)]
fn open(choice: &Choice) -> Result<(), Counter> {
    if choice.flags & REFUSE != 0 {
        Err(Counter::Refuse)
    } else if choice.flags & WITHHOLD != 0 {
        Err(Counter::Withhold)
    } else {
        Ok(())
    }
}

/// The backend for a choice and a client, or why there is none. Whether it may be the client itself is said of the slot;
/// it may be said of one that is not.
#[inline(always)]
pub(crate) fn choose<T: Tables>(
    frontend: &Frontend,
    choice: &Choice,
    client: &Client,
    tables: &T,
) -> Result<Slot, Counter> {
    open(choice)?;
    if frontend.affinity == 0 {
        return maglev::pick(tables, choice.table, client.hash).ok_or(Counter::NoBackend);
    }
    let now = tables.now();
    let age = |seen: u64| now.saturating_sub(seen);
    let timeout = u64::from(frontend.affinity) * NANOSECONDS;
    let known = tables.affinity(&client.source).filter(|known| age(known.seen) < timeout);
    let slot = match known {
        // To find its slot would take a search. This one says that it may be the client, so that whoever needs to know looks.
        Some(known) if maglev::contains(tables, choice.table, known.backend) => {
            Slot::new(known.backend, &client.source.addr)
        }
        _ => maglev::pick(tables, choice.table, client.hash).ok_or(Counter::NoBackend)?,
    };
    if client.opens {
        tables.remember(&client.source, &Affinity { seen: now, backend: slot.id(), reserved: 0 });
    }
    Ok(slot)
}

const NANOSECONDS: u64 = 1_000_000_000;

#[cfg(test)]
mod tests;

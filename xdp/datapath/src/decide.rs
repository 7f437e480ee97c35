//! What happens to a packet that arrives on an interface.

use crate::{
    abi::{
        Choice, Counter, Frontend, FrontendKey, Label, MASQUERADE, MASQUERADE_MARK, NODE_PORT, REFUSE,
        WITHHOLD,
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
    const fn deny(counter: Counter, label: Label) -> Self {
        Self { counter, label, mark: 0 }
    }
}

/// Decides about a packet.
#[inline(always)]
pub fn decide<T: Tables>(packet: &Packet, tables: &T) -> Decision {
    let Some(frontend) = frontend(packet, tables) else {
        return Decision::pass(Counter::NoFrontend);
    };
    let choice = frontend.outside;
    let id = match choose(&choice, hash::flow(packet), tables) {
        Ok(id) => id,
        Err(counter @ Counter::Refuse) => return Decision::deny(counter, Label::REJECT),
        Err(counter) => return Decision::deny(counter, Label::DROP),
    };
    // A backend that reaches itself through the frontend would answer itself directly, past the translation.
    let hairpin = || tables.backend(id).is_some_and(|backend| backend.addr == packet.src);
    let mark = if choice.flags & MASQUERADE != 0 || hairpin() { MASQUERADE_MARK } else { 0 };
    Decision { counter: Counter::Forward, label: Label(id), mark }
}

#[inline(always)]
fn frontend<T: Tables>(packet: &Packet, tables: &T) -> Option<Frontend> {
    let key = FrontendKey::new(packet.dst, packet.dst_port, packet.protocol);
    if let Some(frontend) = tables.frontend(&key) {
        return Some(frontend);
    }
    if tables.node_address(&packet.dst)? & NODE_PORT == 0 {
        return None;
    }
    tables.frontend(&FrontendKey::new(packet.dst.any(), packet.dst_port, packet.protocol))
}

/// The backend id for a choice and a hash, or why there is none.
#[inline(always)]
pub(crate) fn choose<T: Tables>(choice: &Choice, hash: u32, tables: &T) -> Result<u32, Counter> {
    if choice.flags & REFUSE != 0 {
        return Err(Counter::Refuse);
    }
    if choice.flags & WITHHOLD != 0 {
        return Err(Counter::Withhold);
    }
    tables.table(choice.table).and_then(|table| maglev::pick(&table, hash)).ok_or(Counter::NoBackend)
}

#[cfg(test)]
mod tests;

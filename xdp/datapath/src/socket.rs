//! What happens to a socket of a process on this node.

use crate::{
    abi::{Addr, Backend, Counter, Frontend, FrontendKey, NODE_PORT, RESTRICTED, Source},
    decide::{Client, choose, unserved},
    hash,
    tables::Tables,
};

/// Where the socket is sent instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// The backend.
    pub backend: Backend,
    /// Id of the service port.
    pub service: u32,
    /// Whether it may be reached from some sources only. A socket has no source before it is routed.
    pub restricted: bool,
}

/// Whose socket it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The socket's cookie.
    pub cookie: u64,
    /// The cookie of its network namespace.
    pub namespace: u64,
    /// Whether that is the host's, rather than a pod's.
    pub host: bool,
}

/// Chooses a backend for `connect` and `sendmsg`; `peer` is what the program asked for.
///
/// # Errors
///
/// [`Counter::NoFrontend`] if the peer is none of ours; otherwise why it cannot be reached.
#[inline(always)]
pub fn translate<T: Tables>(peer: &FrontendKey, origin: &Origin, tables: &T) -> Result<Target, Counter> {
    let frontend = frontend(peer, tables)?;
    let choice = if origin.host { frontend.host } else { frontend.pod };
    // What a client is for affinity: its address, of which a namespace has one as a rule.
    let source =
        Source { service: frontend.service, addr: Addr::namespace(origin.namespace, !peer.addr.is_v4()) };
    let hash = hash::socket(origin.cookie, &peer.addr, peer.port);
    let slot = choose(&frontend, &choice, &Client { source, opens: true, hash }, tables)?;
    match tables.backend(slot.id()) {
        Some(backend) => {
            Ok(Target { backend, service: frontend.service, restricted: frontend.flags & RESTRICTED != 0 })
        }
        None => Err(Counter::NoBackend),
    }
}

/// As for packets, and besides: a `NodePort` is served on loopback, and the unspecified address means loopback.
#[inline(always)]
fn frontend<T: Tables>(peer: &FrontendKey, tables: &T) -> Result<Frontend, Counter> {
    let any = peer.addr.any();
    if peer.addr.words() != any.words() && !peer.addr.is_loopback() {
        if let Some(frontend) = tables.frontend(peer) {
            return Ok(frontend);
        }
        let flags = tables.address(&peer.addr);
        if flags & NODE_PORT == 0 {
            return Err(unserved(&peer.addr, flags, tables).unwrap_or(Counter::NoFrontend));
        }
    }
    tables.frontend(&FrontendKey::new(any, peer.port, peer.protocol)).ok_or(Counter::NoFrontend)
}

#[cfg(test)]
mod tests;

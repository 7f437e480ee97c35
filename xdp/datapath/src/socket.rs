//! What happens to a socket of a process on this node.

use crate::{
    abi::{Backend, Counter, Frontend, FrontendKey, NODE_PORT},
    decide::choose,
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
}

/// Chooses a backend for `connect` and `sendmsg`; `peer` is what the program asked for.
///
/// # Errors
///
/// [`Counter::NoFrontend`] if the peer is none of ours; otherwise why it cannot be reached.
#[inline(always)]
pub fn translate<T: Tables>(peer: &FrontendKey, cookie: u64, tables: &T) -> Result<Target, Counter> {
    let Some(frontend) = frontend(peer, tables) else {
        return Err(Counter::NoFrontend);
    };
    let id = choose(&frontend.inside, hash::socket(cookie, &peer.addr, peer.port), tables)?;
    match tables.backend(id) {
        Some(backend) => Ok(Target { backend, service: frontend.service }),
        None => Err(Counter::NoBackend),
    }
}

/// As for packets, and besides: a `NodePort` is served on loopback, and the unspecified address means loopback.
#[inline(always)]
fn frontend<T: Tables>(peer: &FrontendKey, tables: &T) -> Option<Frontend> {
    let any = peer.addr.any();
    if peer.addr.words() != any.words() && !peer.addr.is_loopback() {
        if let Some(frontend) = tables.frontend(peer) {
            return Some(frontend);
        }
        if tables.node_address(&peer.addr)? & NODE_PORT == 0 {
            return None;
        }
    }
    tables.frontend(&FrontendKey::new(any, peer.port, peer.protocol))
}

#[cfg(test)]
mod tests;

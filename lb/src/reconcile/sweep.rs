//! Deletes stale UDP flows and destroys stale UDP sockets, on a thread of its own: there can be very many to look
//! through.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use datapath::abi::{Backend, SocketKey, SocketPeer, UDP};
use tracing::{debug, info, warn};

use super::RETRY;
use crate::{
    driver::{
        conntrack::{self, Conntrack},
        diag::{self, Connected, Diag},
        maps::{self, Hash},
        netns::{self, Namespace},
    },
    error::chain,
    model::{Family, PerFamily},
    plan::Stale,
};

type Sockets = Hash<SocketKey, SocketPeer>;

/// What came of looking for stale flows and sockets. A run that failed and is repeated counts once it is complete.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sweeps {
    /// Complete runs.
    pub runs: u64,
    /// How long all of them took.
    pub total: Duration,
    /// How long the latest took.
    pub latest: Duration,
    /// Conntrack entries deleted by all of them.
    pub deleted: PerFamily<u64>,
    /// Sockets destroyed by all of them.
    pub destroyed: u64,
}

/// The thread.
#[derive(Debug)]
pub(super) struct Sweeper(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// For the next run.
    waiting: Stale,
    /// What the thread is looking for now.
    current: Stale,
    sweeps: Sweeps,
    stop: bool,
}

impl Sweeper {
    /// Starts the thread, in the network namespace of the calling one.
    pub(super) fn start(sockets: Arc<Sockets>) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let worker = Worker { shared: Arc::clone(&shared), sockets, can_destroy: true };
        thread::Builder::new().name("sweep".to_owned()).spawn(move || worker.run())?;
        Ok(Self(shared))
    }

    /// Looks for what is stale, soon.
    pub(super) fn add(&self, stale: Stale) {
        if !stale.is_empty() {
            self.0.lock().waiting.merge(stale);
            self.0.changed.notify_all();
        }
    }

    /// Lets what is looked for be what it is by now. To be called before the kernel is told of new endpoints: each flow and
    /// socket is judged after it was found, so none to a new endpoint is taken for stale.
    pub(super) fn refresh(&self, by_now: impl Fn(&Stale) -> Stale) {
        let mut state = self.0.lock();
        let State { waiting, current, .. } = &mut *state;
        for stale in [waiting, current].into_iter().filter(|stale| !stale.is_empty()) {
            *stale = by_now(stale);
        }
    }

    pub(super) fn sweeps(&self) -> Sweeps {
        self.0.lock().sweeps
    }
}

/// The thread ends when it is done with what it is about.
impl Drop for Sweeper {
    fn drop(&mut self) {
        self.0.lock().stop = true;
        self.0.changed.notify_all();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // No state is left half-written.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for something to look for. None: it is time to end.
    fn next(&self) -> Option<()> {
        let idle = |state: &mut State| state.waiting.is_empty() && !state.stop;
        let mut state = self.changed.wait_while(self.lock(), idle).unwrap_or_else(PoisonError::into_inner);
        state.current = std::mem::take(&mut state.waiting);
        (!state.stop).then_some(())
    }

    fn pause(&self) {
        let lock = self.lock();
        drop(self.changed.wait_timeout_while(lock, RETRY, |state| !state.stop));
    }

    fn flow_is_stale(&self, flow: &conntrack::Flow) -> bool {
        self.lock().current.flow(flow.original.destination, flow.reply.source)
    }

    fn socket_is_stale(&self, asked: SocketAddr, backend: SocketAddr) -> bool {
        self.lock().current.socket(asked, backend)
    }
}

struct Worker {
    shared: Arc<Shared>,
    sockets: Arc<Sockets>,
    can_destroy: bool,
}

impl Worker {
    fn run(mut self) {
        while self.shared.next().is_some() {
            let began = Instant::now();
            let deleted = self.flows();
            let destroyed = self.sockets();
            let took = began.elapsed();
            let mut failed = false;
            let mut note = |error: &dyn std::error::Error, what| {
                failed = true;
                warn!(reason = chain(error), "cannot {what}, will be tried again");
            };
            let deleted = deleted.unwrap_or_else(|error| {
                note(&error, "forget UDP flows");
                PerFamily::default()
            });
            let destroyed = destroyed.unwrap_or_else(|error| {
                note(&error, "look for sockets of endpoints that are gone");
                0
            });
            let PerFamily { v4: ipv4, v6: ipv6 } = deleted;
            if ipv4 + ipv6 + destroyed > 0 {
                let milliseconds = took.as_millis() as u64;
                info!(
                    flows = ipv4 + ipv6,
                    sockets = destroyed,
                    milliseconds,
                    "UDP flows and sockets of endpoints that are gone, or not translated"
                );
            }
            let mut state = self.shared.lock();
            let State { waiting, current, sweeps, .. } = &mut *state;
            let done = std::mem::take(current);
            sweeps.deleted.v4 += ipv4;
            sweeps.deleted.v6 += ipv6;
            sweeps.destroyed += destroyed;
            if failed {
                let later = std::mem::replace(waiting, done);
                waiting.merge(later);
                drop(state);
                self.shared.pause();
            } else {
                sweeps.runs += 1;
                sweeps.total += took;
                sweeps.latest = took;
            }
        }
    }

    /// Returns how many.
    fn flows(&self) -> Result<PerFamily<u64>, conntrack::Error> {
        let mut conntrack = Conntrack::open()?;
        let mut deleted = PerFamily::default();
        for flow in conntrack.udp_flows(|flow| self.shared.flow_is_stale(flow))? {
            if self.shared.flow_is_stale(&flow) {
                let family = Family::of(flow.original.destination.ip());
                deleted[family] += u64::from(conntrack.delete(&flow)?);
            }
        }
        Ok(deleted)
    }

    fn sockets(&mut self) -> Result<u64, maps::Error> {
        if !self.can_destroy {
            return Ok(0);
        }
        let mut candidates = Candidates::default();
        for (key, peer) in self.sockets.load()?.into_iter().filter(|(key, _)| key.protocol == UDP) {
            let asked = SocketAddr::new(peer.addr.into(), u16::from_be_bytes(peer.port));
            if self.shared.socket_is_stale(asked, backend(&key)) {
                candidates.0.entry(key.cookie).or_default().push((key, asked));
            }
        }
        if candidates.0.is_empty() {
            return Ok(0);
        }
        // A thread that has been in other namespaces is of no more use for anything else.
        let found = thread::scope(|scope| scope.spawn(|| self.destroy(&candidates)).join());
        match found {
            Ok(Ok(destroyed)) => {
                self.sockets.delete(&destroyed)?;
                Ok(destroyed.len() as u64)
            }
            Ok(Err(diag::Error::Unsupported)) => {
                self.can_destroy = false;
                warn!(
                    "connected UDP sockets stay with endpoints that are gone: {}",
                    diag::Error::Unsupported
                );
                Ok(0)
            }
            Ok(Err(error)) => {
                warn!(reason = chain(&error), "cannot destroy sockets of endpoints that are gone");
                Ok(0)
            }
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    /// Goes through all namespaces. Returns the entries of the sockets that were destroyed.
    fn destroy(&self, candidates: &Candidates) -> Result<Vec<SocketKey>, diag::Error> {
        let mut destroyed = Vec::new();
        for namespace in netns::all() {
            if self.shared.lock().stop {
                break;
            }
            match self.destroy_in(&namespace, candidates, &mut destroyed) {
                Ok(()) => debug!(namespace = %namespace.path().display(), "looked for stale sockets"),
                // The kernel is the same everywhere.
                Err(diag::Error::Unsupported) if destroyed.is_empty() => {
                    return Err(diag::Error::Unsupported);
                }
                Err(error) => {
                    let namespace = namespace.path().display();
                    warn!(%namespace, reason = chain(&error), "cannot destroy sockets of endpoints that are gone");
                }
            }
        }
        Ok(destroyed)
    }

    fn destroy_in(
        &self,
        namespace: &Namespace,
        candidates: &Candidates,
        destroyed: &mut Vec<SocketKey>,
    ) -> Result<(), diag::Error> {
        let failed = |source| diag::Error::Socket { attempt: "enter the network namespace", source };
        namespace.enter().map_err(failed)?;
        let mut diag = Diag::open()?;
        for socket in diag.connected_udp(|socket| candidates.find(socket).is_some())? {
            let Some((key, asked)) = candidates.find(&socket) else { continue };
            if self.shared.socket_is_stale(*asked, socket.peer) && diag.destroy(&socket)? {
                destroyed.push(*key);
            }
        }
        Ok(())
    }
}

/// Entries of sockets that are stale if they are still connected there, by their cookies, and what was asked for.
#[derive(Default)]
struct Candidates(HashMap<u64, Vec<(SocketKey, SocketAddr)>>);

impl Candidates {
    fn find(&self, socket: &Connected) -> Option<&(SocketKey, SocketAddr)> {
        self.0.get(&socket.cookie)?.iter().find(|(key, _)| backend(key) == socket.peer)
    }
}

fn backend(key: &SocketKey) -> SocketAddr {
    Backend { addr: key.addr, port: key.port, reserved: [0; 2] }.into()
}

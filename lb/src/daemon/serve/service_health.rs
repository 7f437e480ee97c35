//! The health check ports of Services: kube-proxy's `pkg/proxy/healthcheck/service_health.go`.
//!
//! A load balancer asks a node how many endpoints of a Service it has, and leaves it alone if there are none. A task of
//! its own opens and closes the ports, so that none can hold up the daemon.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use hyper::StatusCode;
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{MissedTickBehavior, interval},
};
use tracing::{debug, info, warn};

use super::{
    events::{About, Events, Notice},
    health::Health,
    http::{self, Answer},
};
use crate::{
    model::{Family, ObjectName},
    plan::health::HealthCheck,
};

/// Wait before a port that could not be had is tried again: somebody may have let go of it without anything changing.
const RETRY: Duration = Duration::from_secs(1);
/// How many local endpoints a node has for a Service, for load balancers that weigh nodes by it.
const WEIGHT: &str = "x-load-balancing-endpoint-weight";

/// What should be served.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    /// By Service.
    pub(super) checks: BTreeMap<ObjectName, HealthCheck>,
    /// On which addresses.
    pub(super) hosts: Hosts,
}

/// Addresses of the node on which ports are opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Hosts {
    /// IPv4; none stands for all there are.
    pub(super) v4: Option<Vec<IpAddr>>,
    /// Likewise IPv6.
    pub(super) v6: Option<Vec<IpAddr>>,
}

/// A socket: one family of one Service on one address. With both families of a wildcard in one, the Service has only
/// one family, and that is what it tells about whoever asks.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Socket {
    address: SocketAddr,
    both_families: bool,
    service: ObjectName,
}

impl Wanted {
    /// Sockets, with the number each tells.
    fn sockets(&self) -> BTreeMap<Socket, usize> {
        let mut sockets = BTreeMap::new();
        for (service, check) in &self.checks {
            let both_families = check.local_ready.len() == 1;
            for (family, count) in &check.local_ready {
                let (any, hosts): (IpAddr, _) = match family {
                    Family::V4 => (Ipv4Addr::UNSPECIFIED.into(), &self.hosts.v4),
                    Family::V6 => (Ipv6Addr::UNSPECIFIED.into(), &self.hosts.v6),
                };
                for host in hosts.as_deref().unwrap_or(&[any]) {
                    let address = SocketAddr::new(*host, check.port);
                    sockets.insert(Socket { address, both_families, service: service.clone() }, *count);
                }
            }
        }
        sockets
    }
}

/// A socket that is open.
struct Open {
    count: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

/// Serves what is wanted until nobody wants anything any more.
pub(super) async fn run(mut wanted: watch::Receiver<Wanted>, health: Arc<Health>, events: Events) {
    let mut server = Server { open: BTreeMap::new(), failed: BTreeMap::new(), health, events };
    let mut retry = interval(RETRY);
    retry.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            changed = wanted.changed() => if changed.is_err() { break },
            _ = retry.tick(), if !server.failed.is_empty() => {}
        }
        let sockets = wanted.borrow_and_update().sockets();
        server.apply(sockets).await;
    }
    server.apply(BTreeMap::new()).await;
}

struct Server {
    open: BTreeMap<Socket, Open>,
    /// What could not be opened, and why.
    failed: BTreeMap<Socket, String>,
    health: Arc<Health>,
    events: Events,
}

impl Server {
    async fn apply(&mut self, wanted: BTreeMap<Socket, usize>) {
        let gone: Vec<Socket> =
            self.open.keys().filter(|socket| !wanted.contains_key(socket)).cloned().collect();
        for socket in gone {
            if let Some(open) = self.open.remove(&socket) {
                debug!(service = %socket.service, address = %socket.address, "health check port closed");
                open.task.abort();
                // Only then is the port free for another Service.
                let _ = open.task.await;
            }
        }
        self.failed.retain(|socket, _| wanted.contains_key(socket));
        for (socket, count) in wanted {
            match self.open.get(&socket) {
                Some(open) => open.count.store(count, Ordering::Relaxed),
                None => self.open(socket, count),
            }
        }
    }

    fn open(&mut self, socket: Socket, count: usize) {
        let bind = if socket.both_families { http::bind } else { http::bind_exactly };
        match bind(socket.address) {
            Ok(listener) => {
                info!(service = %socket.service, address = %socket.address, "serving its health checks");
                let count = Arc::new(AtomicUsize::new(count));
                let (shown, health) = (Arc::clone(&count), Arc::clone(&self.health));
                let service = socket.service.clone();
                let task = tokio::spawn(http::serve(listener, move |_| {
                    let count = shown.load(Ordering::Relaxed);
                    std::future::ready(render(&service, count, health.is_healthy()))
                }));
                self.failed.remove(&socket);
                self.open.insert(socket, Open { count, task });
            }
            Err(error) => {
                let reason = error.to_string();
                if self.failed.get(&socket) != Some(&reason) {
                    self.tell(&socket, &reason);
                    self.failed.insert(socket, reason);
                }
            }
        }
    }

    fn tell(&self, Socket { address, service, .. }: &Socket, reason: &str) {
        warn!(%service, %address, reason, "cannot serve its health checks, will try again");
        self.events.tell(Notice {
            about: About::Object { kind: "Service", name: service.clone() },
            normal: false,
            reason: "FailedToStartServiceHealthcheck",
            action: "Listen",
            note: format!("node {} failed to serve health checks on {address}: {reason}", self.events.node()),
        });
    }
}

fn render(ObjectName { namespace, name }: &ObjectName, count: usize, healthy: bool) -> Answer {
    let code = if count > 0 && healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    // Laid out as kube-proxy does, for those who compare text. Names are DNS labels and need no escapes.
    let body = format!(
        "{{\n\t\"service\": {{\n\t\t\"namespace\": \"{namespace}\",\n\t\t\"name\": \"{name}\"\n\t}},\n\
         \t\"localEndpoints\": {count},\n\t\"serviceProxyHealthy\": {healthy}\n}}"
    );
    http::with_number(http::answer(code, http::JSON, body), WEIGHT, count)
}

#[cfg(test)]
mod tests;

//! Connections that conntrack translates for frontends.

use std::{collections::BTreeSet, net::SocketAddr};

use anyhow::bail;
use datapath::abi::{FrontendKey, NODE_PORT};
use serde::Serialize;

use super::{View, protocol};
use crate::driver::conntrack;

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ConnectionRow {
    pub(crate) service: String,
    pub(crate) protocol: &'static str,
    pub(crate) client: SocketAddr,
    pub(crate) frontend: SocketAddr,
    pub(crate) backend: SocketAddr,
    pub(crate) masqueraded_as: Option<SocketAddr>,
    pub(crate) state: String,
    pub(crate) timeout_seconds: u32,
}

impl View {
    /// Those of a service, or all.
    pub(crate) fn connections(&self, service: Option<&str>) -> anyhow::Result<Vec<ConnectionRow>> {
        let wanted = |name: &str| {
            service.is_none_or(|service| {
                name == service || name.rsplit_once(':').is_some_and(|(n, _)| n == service)
            })
        };
        if let Some(service) = service.filter(|_| !self.names.values().any(|name| wanted(name))) {
            bail!("no service {service}; `portico get services` lists them");
        }
        let addresses = self.maps.addresses.load()?.into_iter();
        let local: BTreeSet<_> =
            addresses.filter(|(_, flags)| flags & NODE_PORT != 0).map(|(addr, _)| addr).collect();
        let owner = |flow: &conntrack::Flow| {
            let to = flow.original.destination;
            let key = FrontendKey::new(to.ip().into(), to.port().to_be_bytes(), flow.protocol);
            self.frontends.get(&key).or_else(|| {
                local.contains(&key.addr).then_some(())?;
                self.frontends.get(&FrontendKey { addr: key.addr.any(), ..key })
            })
        };
        let flows = conntrack::Conntrack::open()?.flows(|flow| flow.dst_nat)?;
        let mut rows: Vec<ConnectionRow> = flows
            .iter()
            .filter_map(|flow| {
                let service = self.name(owner(flow)?.service);
                wanted(&service).then(|| ConnectionRow {
                    service,
                    protocol: protocol(flow.protocol),
                    client: flow.original.source,
                    frontend: flow.original.destination,
                    backend: flow.reply.source,
                    masqueraded_as: flow.src_nat.then_some(flow.reply.destination),
                    state: state(flow),
                    timeout_seconds: flow.timeout_s,
                })
            })
            .collect();
        rows.sort_by(|a, b| (&a.service, a.client).cmp(&(&b.service, b.client)));
        Ok(rows)
    }
}

fn state(flow: &conntrack::Flow) -> String {
    match (flow.state, flow.seen_reply, flow.assured) {
        (Some(state), ..) => state.to_string(),
        (None, false, _) => "unreplied".to_owned(),
        (None, true, false) => "replied".to_owned(),
        (None, true, true) => "assured".to_owned(),
    }
}

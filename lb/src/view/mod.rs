//! What the data path holds and the daemon says, in words: for `get`, `status` and the metrics.

mod ask;
mod connections;
mod guards;
mod report;
mod rows;
mod traffic;

pub(crate) use ask::{address, owner, query};
pub(crate) use connections::ConnectionRow;
pub use guards::GuardReport;
pub use report::{
    CounterReport, InterfaceReport, MissingReport, Report, SwitchReport, SysctlReport, Translations, Trouble,
    XdpReport,
};
pub(crate) use rows::{BackendRow, CounterRow, ServiceRow, ShareRow, SocketRow};
pub use traffic::TrafficReport;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use anyhow::Context as _;
use datapath::abi::{
    Choice, Frontend, FrontendKey, Label, MASQUERADE, REFUSE, RESTRICTED, SocketKey, SocketPeer, TCP,
    WITHHOLD,
};

use crate::driver::{
    maps::Maps,
    nft::{Nft, counter},
};

/// The maps, read once.
pub(crate) struct View {
    pub(crate) maps: Maps,
    frontends: BTreeMap<FrontendKey, Frontend>,
    backends: BTreeMap<u32, SocketAddr>,
    names: BTreeMap<u32, String>,
}

impl View {
    /// Reads the maps.
    pub(crate) fn load(maps: Maps) -> anyhow::Result<Self> {
        Ok(Self {
            frontends: maps.frontends.load()?.into_iter().collect(),
            backends: maps.backends.load()?.into_iter().map(|(id, backend)| (id, backend.into())).collect(),
            names: maps
                .services
                .load()?
                .into_iter()
                .map(|(id, name)| (id, name.as_str().to_owned()))
                .collect(),
            maps,
        })
    }

    fn name(&self, service: u32) -> String {
        self.names.get(&service).cloned().unwrap_or_else(|| format!("#{service}"))
    }

    fn members(&self, table: u32) -> anyhow::Result<BTreeSet<u32>> {
        Ok(self.maps.maglev.get(table)?.into_iter().flatten().collect())
    }

    /// Tables of a frontend, each once.
    fn tables(frontend: &Frontend) -> BTreeSet<u32> {
        frontend.choices().into_iter().map(|choice| choice.table).filter(|table| *table != 0).collect()
    }

    /// Frontends, by service.
    pub(crate) fn services(&self) -> anyhow::Result<Vec<ServiceRow>> {
        let mut rows = Vec::new();
        for (key, frontend) in &self.frontends {
            let mut backends = BTreeSet::new();
            for table in Self::tables(frontend) {
                backends.extend(self.members(table)?);
            }
            rows.push(ServiceRow {
                service: self.name(frontend.service),
                protocol: protocol(key.protocol),
                frontend: frontend_text(key),
                outside: choice(&frontend.outside),
                pod: choice(&frontend.pod),
                host: choice(&frontend.host),
                affinity: match frontend.affinity {
                    0 => "none".to_owned(),
                    seconds => format!("{seconds} s"),
                },
                sources: if frontend.flags & RESTRICTED == 0 { "all" } else { "restricted" },
                backends: backends.len(),
            });
        }
        rows.sort_by(|a, b| (&a.service, &a.frontend).cmp(&(&b.service, &b.frontend)));
        Ok(rows)
    }

    /// Sockets that were translated, by service.
    pub(crate) fn sockets(&self) -> anyhow::Result<Vec<SocketRow>> {
        let row = |(key, peer): (SocketKey, SocketPeer)| SocketRow {
            cookie: key.cookie,
            service: self.name(peer.service),
            protocol: protocol(key.protocol),
            peer: SocketAddr::new(peer.addr.into(), u16::from_be_bytes(peer.port)),
            backend: SocketAddr::new(key.addr.into(), u16::from_be_bytes(key.port)),
        };
        let mut rows: Vec<SocketRow> = self.maps.sockets.load()?.into_iter().map(row).collect();
        rows.sort_by(|a, b| (&a.service, a.peer, a.cookie).cmp(&(&b.service, b.peer, b.cookie)));
        Ok(rows)
    }

    /// Backends, and who has them.
    pub(crate) fn backends(&self) -> anyhow::Result<Vec<BackendRow>> {
        let mut users: BTreeMap<u32, BTreeSet<u32>> = BTreeMap::new();
        let mut seen = BTreeSet::new();
        for frontend in self.frontends.values() {
            for table in Self::tables(frontend) {
                if seen.insert((table, frontend.service)) {
                    for id in self.members(table)? {
                        users.entry(id).or_default().insert(frontend.service);
                    }
                }
            }
        }
        let services =
            |id: u32| users.get(&id).into_iter().flatten().map(|service| self.name(*service)).collect();
        let row = |(id, address): (&u32, &SocketAddr)| BackendRow {
            id: *id,
            label: Label::backend(*id).to_string(),
            address: *address,
            services: services(*id),
        };
        Ok(self.backends.iter().map(row).collect())
    }

    /// How the slots of a service port's tables are shared out.
    pub(crate) fn maglev(&self, service: &str) -> anyhow::Result<Vec<ShareRow>> {
        let id = self.names.iter().find(|(_, name)| *name == service).map(|(id, _)| *id);
        let id =
            id.with_context(|| format!("no service port {service}; `portico get services` lists them"))?;
        let of_service = self.frontends.values().filter(|frontend| frontend.service == id);
        let tables: BTreeSet<u32> = of_service.flat_map(Self::tables).collect();
        let mut rows = Vec::new();
        for table in tables {
            let slots = self.maps.maglev.get(table)?.unwrap_or_default();
            let mut counts: BTreeMap<u32, usize> = BTreeMap::new();
            for id in &slots {
                *counts.entry(*id).or_default() += 1;
            }
            rows.extend(counts.iter().map(|(id, count)| ShareRow {
                table,
                backend: self.backends.get(id).map_or_else(|| format!("#{id}"), ToString::to_string),
                slots: *count,
                share: *count as f64 / slots.len() as f64,
            }));
        }
        Ok(rows)
    }

    /// Why packets and calls were treated as they were.
    pub(crate) fn counters(&self) -> anyhow::Result<Vec<CounterRow>> {
        let programs = self.maps.counters.load()?.into_iter().map(|(hook, counter, count)| CounterRow {
            hook: hook.name().to_owned(),
            reason: counter.name().to_owned(),
            count,
            help: counter.help().trim().to_owned(),
        });
        // The table may be gone, or in another network namespace; the programs' counters are to be had all the same.
        let rules = Nft::beside(None).and_then(|nft| nft.counters()).unwrap_or_default();
        let rules = rules.into_iter().map(|counter| CounterRow {
            hook: "nft".to_owned(),
            help: counter::help(&counter.name).to_owned(),
            reason: counter.name,
            count: counter.packets,
        });
        Ok(programs.chain(rules).collect())
    }
}

fn protocol(number: u8) -> &'static str {
    if number == TCP { "tcp" } else { "udp" }
}

fn frontend_text(key: &FrontendKey) -> String {
    let addr = key.socket_addr();
    if addr.ip().is_unspecified() { format!("NodePort {addr}") } else { addr.to_string() }
}

fn choice(choice: &Choice) -> String {
    match choice.flags {
        flags if flags & REFUSE != 0 => "refuse",
        flags if flags & WITHHOLD != 0 => "withhold",
        flags if flags & MASQUERADE != 0 => "masquerade",
        _ => "forward",
    }
    .to_owned()
}

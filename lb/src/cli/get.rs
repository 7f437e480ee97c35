use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    process::ExitCode,
};

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use datapath::abi::{
    Choice, Frontend, FrontendKey, Label, MASQUERADE, NODE_PORT, REFUSE, RESTRICTED, SocketKey, SocketPeer,
    TCP, WITHHOLD,
};
use serde::Serialize;

use super::output::{Format, Row, list};
use crate::{
    daemon::TrafficReport,
    driver::{
        conntrack,
        maps::Maps,
        nft::{Nft, counter},
        pins::PinDir,
    },
};

/// List what the data path holds; works while the daemon is down
#[derive(Debug, Args)]
pub(super) struct Get {
    #[command(subcommand)]
    what: What,
    #[command(flatten)]
    options: Options,
}

#[derive(Debug, Args)]
struct Options {
    #[arg(long, global = true, value_name = "PATH", default_value = crate::driver::pins::DEFAULT,
          help = "Where state is pinned; each instance on a host has its own")]
    pin_dir: std::path::PathBuf,
    /// How to print it
    #[arg(short, long, global = true, value_enum, default_value_t)]
    output: Format,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Frontends: what clients connect to, and what happens to them
    Services,
    /// Backends: where connections are sent
    Backends,
    /// How the slots of a service's Maglev tables are shared out
    Maglev {
        /// As listed by `get services`: namespace/name:port/protocol
        service: String,
    },
    /// Connections that the kernel's conntrack translates for a frontend
    Connections {
        /// Only those of this service: namespace/name, or namespace/name:port/protocol
        service: Option<String>,
    },
    /// Sockets of this node's processes that were translated: what they asked for, and where they are sent
    Sockets,
    /// Packets and bytes of established flows that XDP forwarded
    Traffic,
    /// Why packets and socket calls were treated as they were
    Counters,
}

impl Get {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let Options { pin_dir, output } = self.options;
        let pins = PinDir::find(&pin_dir).filter(Maps::exist).with_context(|| {
            format!("nothing is pinned in {}: portico has not run here", pin_dir.display())
        })?;
        let view = View::load(Maps::open(&pins)?)?;
        match self.what {
            What::Services => list(output, &view.services()?)?,
            What::Backends => list(output, &view.backends()?)?,
            What::Maglev { service } => list(output, &view.maglev(&service)?)?,
            What::Connections { service } => list(output, &view.connections(service.as_deref())?)?,
            What::Sockets => list(output, &view.sockets()?)?,
            What::Traffic => list(output, &TrafficReport::list(&view.maps)?)?,
            What::Counters => list(output, &view.counters()?)?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// The maps, read once.
struct View {
    maps: Maps,
    frontends: BTreeMap<FrontendKey, Frontend>,
    backends: BTreeMap<u32, SocketAddr>,
    names: BTreeMap<u32, String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ServiceRow {
    service: String,
    protocol: &'static str,
    frontend: String,
    outside: String,
    pod: String,
    host: String,
    affinity: String,
    sources: &'static str,
    backends: usize,
}

impl Row for ServiceRow {
    const COLUMNS: &'static [&'static str] =
        &["service", "protocol", "frontend", "outside", "pod", "host", "affinity", "sources", "backends"];

    fn cells(&self) -> Vec<String> {
        let Self { service, protocol, frontend, outside, pod, host, affinity, sources, backends } = self;
        let strings: [&str; 8] = [service, protocol, frontend, outside, pod, host, affinity, sources];
        let strings = strings.map(ToOwned::to_owned);
        strings.into_iter().chain([backends.to_string()]).collect()
    }
}

/// A socket, by the cookie that `ss -e` shows in hexadecimal as `sk:`. Those that were closed stay until there is no
/// room for others.
#[derive(Debug, Serialize)]
struct SocketRow {
    cookie: u64,
    service: String,
    protocol: &'static str,
    peer: SocketAddr,
    backend: SocketAddr,
}

impl Row for SocketRow {
    const COLUMNS: &'static [&'static str] = &["socket", "service", "protocol", "peer", "backend"];

    fn cells(&self) -> Vec<String> {
        let Self { cookie, service, protocol, peer, backend } = self;
        [
            format!("{cookie:x}"),
            service.clone(),
            (*protocol).to_owned(),
            peer.to_string(),
            backend.to_string(),
        ]
        .into()
    }
}

#[derive(Debug, Serialize)]
struct BackendRow {
    id: u32,
    label: String,
    address: SocketAddr,
    services: Vec<String>,
}

impl Row for BackendRow {
    const COLUMNS: &'static [&'static str] = &["id", "label", "address", "services"];

    fn cells(&self) -> Vec<String> {
        let Self { id, label, address, services } = self;
        vec![id.to_string(), label.clone(), address.to_string(), services.join(" ")]
    }
}

#[derive(Debug, Serialize)]
struct ShareRow {
    table: u32,
    backend: String,
    slots: usize,
    share: f64,
}

impl Row for ShareRow {
    const COLUMNS: &'static [&'static str] = &["table", "backend", "slots", "share"];

    fn cells(&self) -> Vec<String> {
        let Self { table, backend, slots, share } = self;
        vec![table.to_string(), backend.clone(), slots.to_string(), format!("{:.2} %", share * 100.0)]
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ConnectionRow {
    service: String,
    protocol: &'static str,
    client: SocketAddr,
    frontend: SocketAddr,
    backend: SocketAddr,
    masqueraded_as: Option<SocketAddr>,
    state: String,
    timeout_seconds: u32,
}

impl Row for ConnectionRow {
    const COLUMNS: &'static [&'static str] =
        &["service", "protocol", "client", "frontend", "backend", "masqueraded as", "state", "timeout"];

    fn cells(&self) -> Vec<String> {
        let Self { service, protocol, client, frontend, backend, masqueraded_as, state, timeout_seconds } =
            self;
        vec![
            service.clone(),
            (*protocol).to_owned(),
            client.to_string(),
            frontend.to_string(),
            backend.to_string(),
            masqueraded_as.map_or_else(|| "-".to_owned(), |addr| addr.to_string()),
            state.clone(),
            format!("{timeout_seconds} s"),
        ]
    }
}

impl Row for TrafficReport {
    const COLUMNS: &'static [&'static str] =
        &["service", "protocol", "backend", "to", "in", "out", "packets", "bytes"];

    fn cells(&self) -> Vec<String> {
        let Self { service, protocol, backend, to, input, output, packets, bytes } = self;
        vec![
            service.clone(),
            protocol.clone(),
            backend.to_string(),
            to.clone(),
            input.clone(),
            output.clone(),
            packets.to_string(),
            bytes.to_string(),
        ]
    }
}

#[derive(Debug, Serialize)]
struct CounterRow {
    hook: String,
    reason: String,
    count: u64,
    help: String,
}

impl Row for CounterRow {
    const COLUMNS: &'static [&'static str] = &["hook", "reason", "count", "meaning"];

    fn cells(&self) -> Vec<String> {
        let Self { hook, reason, count, help } = self;
        vec![hook.clone(), reason.clone(), count.to_string(), help.clone()]
    }
}

impl View {
    fn load(maps: Maps) -> anyhow::Result<Self> {
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

    fn services(&self) -> anyhow::Result<Vec<ServiceRow>> {
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

    fn sockets(&self) -> anyhow::Result<Vec<SocketRow>> {
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

    fn backends(&self) -> anyhow::Result<Vec<BackendRow>> {
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
            label: Label(*id).to_string(),
            address: *address,
            services: services(*id),
        };
        Ok(self.backends.iter().map(row).collect())
    }

    fn maglev(&self, service: &str) -> anyhow::Result<Vec<ShareRow>> {
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

    fn connections(&self, service: Option<&str>) -> anyhow::Result<Vec<ConnectionRow>> {
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

    fn counters(&self) -> anyhow::Result<Vec<CounterRow>> {
        let programs = self.maps.counters.load()?.into_iter().map(|(hook, counter, count)| CounterRow {
            hook: hook.name().to_owned(),
            reason: counter.name().to_owned(),
            count,
            help: counter.help().trim().to_owned(),
        });
        // The table may be gone, or in another network namespace; the programs' counters are to be had all the same.
        let rules = Nft::new().counters().unwrap_or_default().into_iter().map(|counter| CounterRow {
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

fn state(flow: &conntrack::Flow) -> String {
    match (flow.state, flow.seen_reply, flow.assured) {
        (Some(state), ..) => state.to_string(),
        (None, false, _) => "unreplied".to_owned(),
        (None, true, false) => "replied".to_owned(),
        (None, true, true) => "assured".to_owned(),
    }
}

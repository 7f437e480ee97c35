use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Subcommand};

use super::output::{Format, Row, list};
use crate::{
    driver::{maps::Maps, pins::PinDir},
    view::{
        BackendRow, ConnectionRow, CounterRow, GuardReport, ServiceRow, ShareRow, SocketRow, TrafficReport,
        View,
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
    /// How many connections are opened, and what becomes of too many
    Guards,
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
            What::Guards => list(output, &GuardReport::list(&view.maps)?)?,
            What::Counters => list(output, &view.counters()?)?,
        }
        Ok(ExitCode::SUCCESS)
    }
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

impl Row for BackendRow {
    const COLUMNS: &'static [&'static str] = &["id", "label", "address", "services"];

    fn cells(&self) -> Vec<String> {
        let Self { id, label, address, services } = self;
        vec![id.to_string(), label.clone(), address.to_string(), services.join(" ")]
    }
}

impl Row for ShareRow {
    const COLUMNS: &'static [&'static str] = &["table", "backend", "slots", "share"];

    fn cells(&self) -> Vec<String> {
        let Self { table, backend, slots, share } = self;
        vec![table.to_string(), backend.clone(), slots.to_string(), format!("{:.2} %", share * 100.0)]
    }
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

impl Row for GuardReport {
    const COLUMNS: &'static [&'static str] =
        &["service", "syn cookies", "asking", "opening/s", "opened/s", "most/s", "most of a source/s"];

    fn cells(&self) -> Vec<String> {
        let Self { service, syn_cookies, asking, opening, opened, max_new_flows, max_new_flows_per_source } =
            self;
        let most = |number: &u32| if *number == 0 { "any".to_owned() } else { number.to_string() };
        vec![
            service.clone(),
            match syn_cookies {
                0 => "never".to_owned(),
                1 => "always".to_owned(),
                from => format!("from {from}/s"),
            },
            if *asking { "yes" } else { "no" }.to_owned(),
            opening.to_string(),
            opened.to_string(),
            most(max_new_flows),
            most(max_new_flows_per_source),
        ]
    }
}

impl Row for CounterRow {
    const COLUMNS: &'static [&'static str] = &["hook", "reason", "count", "meaning"];

    fn cells(&self) -> Vec<String> {
        let Self { hook, reason, count, help } = self;
        vec![hook.clone(), reason.clone(), count.to_string(), help.clone()]
    }
}

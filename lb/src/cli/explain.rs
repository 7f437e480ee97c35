use std::{net::SocketAddr, process::ExitCode};

use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};
use datapath::{
    abi::{
        self, Addr, CLASSES, Counter, Frontend, FrontendKey, LOCAL, Label, MASQUERADE_MARK, NODE_PORT, Name,
        POD_NETWORK, RESTRICTED, Source,
    },
    decide::decide,
    packet::{Packet, flag},
    socket::{Origin, translate},
    tables::Tables as _,
};
use serde::Serialize;

use super::{
    PinDirArg,
    output::{Format, pairs},
};
use crate::driver::{
    conntrack::{Conntrack, Flow},
    link::Links,
    maps::{Lookup, Maps},
    namespace_cookie,
    pins::PinDir,
};

/// Say what happens to a packet or a socket call, and why
///
/// Asks the code that decides in the kernel, with the maps it decides by. Nothing is sent and nothing changes. Works while
/// the daemon is down.
///
/// Example: portico explain tcp 198.51.100.7:40000 203.0.113.10:443
#[derive(Debug, Args)]
pub(super) struct Explain {
    /// The transport protocol
    #[arg(value_enum)]
    protocol: Protocol,
    /// Address and port of the client, [address]:port for IPv6
    source: SocketAddr,
    /// Address and port that it asks for
    destination: SocketAddr,
    /// The interface that the packet arrives on, where pods are told by theirs
    #[arg(long, value_name = "IF", conflicts_with = "socket")]
    interface: Option<String>,
    /// A connect() or sendto() of a process rather than a packet; its source address matters for source ranges only
    #[arg(long, value_enum, value_name = "OF")]
    socket: Option<Class>,
    #[command(flatten)]
    pin_dir: PinDirArg,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Protocol {
    Tcp,
    Udp,
}

/// Whose socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Class {
    /// Of a process in the host's network namespace
    Host,
    /// Of a process in another
    Pod,
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Explanation {
    /// `forward`, `refuse`, `drop` or `pass`.
    verdict: &'static str,
    /// Name of the counter.
    reason: &'static str,
    /// What that means.
    meaning: &'static str,
    service: Option<String>,
    frontend: Option<String>,
    client: Option<&'static str>,
    affinity: Option<String>,
    backend: Option<SocketAddr>,
    label: Option<String>,
    masquerade: Option<bool>,
    connection: Option<String>,
}

impl Explain {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        if self.source.is_ipv4() != self.destination.is_ipv4() {
            bail!("{} and {} are of different families", self.source, self.destination);
        }
        let pin_dir = &self.pin_dir.pin_dir;
        let pins = PinDir::find(pin_dir).filter(Maps::exist).with_context(|| {
            format!("nothing is pinned in {}: portico has not run here", pin_dir.display())
        })?;
        let maps = Maps::open(&pins)?;
        let mut found = self.explain(&maps)?;
        if self.socket.is_none() {
            found.connection = self.connection()?;
        }
        let Explanation { verdict, reason, meaning, .. } = found;
        pairs(
            self.output,
            &found,
            &[
                ("verdict", Some(format!("{verdict} ({reason}: {meaning})"))),
                ("service", found.service.clone()),
                ("frontend", found.frontend.clone()),
                ("client", found.client.map(str::to_owned)),
                ("affinity", found.affinity.clone()),
                ("backend", found.backend.map(|backend| backend.to_string())),
                ("label", found.label.clone()),
                ("masquerade", found.masquerade.map(|yes| if yes { "yes" } else { "no" }.to_owned())),
                ("connection", found.connection.clone()),
            ],
        )?;
        Ok(ExitCode::SUCCESS)
    }

    fn explain(&self, maps: &Maps) -> anyhow::Result<Explanation> {
        let lookup = Lookup::new(maps);
        let packet = self.packet();
        let key = FrontendKey::new(packet.dst, packet.dst_port, packet.protocol);
        let mut found = match self.socket {
            Some(class) => Self::socket(&key, class, &lookup)?,
            None => self.arrival(&packet, &lookup)?,
        };
        let frontend = self.frontend(&key, &lookup);
        if let Some((key, frontend)) = &frontend {
            let name = maps.services.get(&frontend.service)?;
            found.service = name.as_ref().map(Name::as_str).map(str::to_owned);
            found.frontend = Some(match key.socket_addr() {
                addr if addr.ip().is_unspecified() => format!("NodePort {addr}"),
                addr => addr.to_string(),
            });
            found.client = Some(self.class(&packet, frontend, &lookup)?);
            let client = match self.socket {
                Some(class) => Addr::namespace(origin(class)?.namespace, !packet.dst.is_v4()),
                None => packet.src,
            };
            found.affinity = (frontend.affinity != 0).then(|| {
                let source = Source { service: frontend.service, addr: client };
                let age = lookup.affinity(&source).map(|known| lookup.now().saturating_sub(known.seen));
                match age.map(|age| age / 1_000_000_000) {
                    Some(age) => format!("{} s, last connection {age} s ago", frontend.affinity),
                    None => format!("{} s, no connection yet", frontend.affinity),
                }
            });
        }
        Ok(lookup.finish(found)?)
    }

    fn packet(&self) -> Packet {
        let protocol = match self.protocol {
            Protocol::Tcp => abi::TCP,
            Protocol::Udp => abi::UDP,
        };
        Packet {
            src: self.source.ip().into(),
            dst: self.destination.ip().into(),
            src_port: self.source.port().to_be_bytes(),
            dst_port: self.destination.port().to_be_bytes(),
            protocol,
            opens: true,
            flags: if protocol == abi::TCP { flag::SYN } else { 0 },
            network: 0,
            transport: 0,
        }
    }

    fn arrival(&self, packet: &Packet, lookup: &Lookup<'_>) -> anyhow::Result<Explanation> {
        let decision = decide(packet, self.interface_index()?, lookup);
        let mut found = explanation(decision.counter);
        if decision.counter == Counter::Forward {
            found.backend = decision.label.id().and_then(|id| lookup.backend(id)).map(SocketAddr::from);
            found.masquerade = Some(decision.mark & MASQUERADE_MARK != 0);
        }
        found.label = (decision.label != Label::NONE).then(|| decision.label.to_string());
        Ok(found)
    }

    fn socket(key: &FrontendKey, class: Class, lookup: &Lookup<'_>) -> anyhow::Result<Explanation> {
        Ok(match translate(key, &origin(class)?, lookup) {
            Ok(target) => Explanation {
                backend: Some(target.backend.into()),
                masquerade: Some(false),
                ..explanation(Counter::Forward)
            },
            Err(counter) => explanation(counter),
        })
    }

    /// What is served there, and the key under which.
    fn frontend(&self, key: &FrontendKey, lookup: &Lookup<'_>) -> Option<(FrontendKey, Frontend)> {
        if let Some(frontend) = lookup.frontend(key) {
            return Some((*key, frontend));
        }
        let ours = lookup.address(&key.addr) & NODE_PORT != 0;
        let any = FrontendKey { addr: key.addr.any(), ..*key };
        let local = self.socket.is_some() && (key.addr.is_loopback() || key.addr == any.addr);
        lookup.frontend(&any).filter(|_| ours || local).map(|frontend| (any, frontend))
    }

    fn class(
        &self,
        packet: &Packet,
        frontend: &Frontend,
        lookup: &Lookup<'_>,
    ) -> anyhow::Result<&'static str> {
        Ok(match self.socket {
            Some(Class::Host) => "this host",
            Some(Class::Pod) => "pod of this node",
            None if frontend.flags & RESTRICTED != 0
                && !lookup.may_reach(&Source { service: frontend.service, addr: packet.src }) =>
            {
                "outside the source ranges"
            }
            None if frontend.flags & CLASSES == 0 => "any",
            None if lookup.network(&packet.src) & POD_NETWORK != 0
                || lookup.is_pod_interface(self.interface_index()?) =>
            {
                "pod of this node"
            }
            None if lookup.address(&packet.src) & LOCAL != 0 => "this host",
            None => "outside",
        })
    }

    fn interface_index(&self) -> anyhow::Result<u32> {
        let Some(name) = &self.interface else { return Ok(0) };
        let snapshot = super::runtime()?.block_on(async { Links::open()?.snapshot().await })?;
        let found = snapshot.interfaces.iter().find(|interface| interface.name == *name);
        Ok(found.with_context(|| format!("there is no interface {name}"))?.index)
    }

    /// The flow that such a packet would belong to, if there is one: it goes where that goes.
    fn connection(&self) -> anyhow::Result<Option<String>> {
        let packet = self.packet();
        let same = |flow: &Flow| {
            flow.protocol == packet.protocol
                && flow.original.source == self.source
                && flow.original.destination == self.destination
        };
        let flows = Conntrack::open()?.flows(same)?;
        Ok(flows.first().map(|flow| format!("exists, and goes on to {}", flow.reply.source)))
    }
}

/// A socket of that class; which one decides about the slot, so the cookie is as good as any.
fn origin(class: Class) -> anyhow::Result<Origin> {
    let namespace = namespace_cookie().context("cannot identify the network namespace")?;
    let host = class == Class::Host;
    Ok(Origin { cookie: 1, namespace: if host { namespace } else { 0 }, host })
}

fn explanation(counter: Counter) -> Explanation {
    let verdict = match counter {
        Counter::Forward => "forward",
        Counter::Refuse | Counter::UnservedPort => "refuse",
        Counter::Withhold | Counter::SourceRange | Counter::Unallocated | Counter::NoBackend => "drop",
        _ => "pass",
    };
    Explanation { verdict, reason: counter.name(), meaning: counter.help().trim(), ..Explanation::default() }
}

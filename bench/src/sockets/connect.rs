//! How long `connect` takes to a cluster address on the gateway itself, and the first `sendto` of a datagram.
//!
//! A process of its own connects, in the cgroup whose hooks translate for it, since a cgroup holds processes.

use std::{
    io::{self, Write as _},
    net::{SocketAddr, UdpSocket},
    os::fd::AsRawFd as _,
    time::Instant,
};

use anyhow::{Context as _, ensure};
use hdrhistogram::Histogram;
use nix::{
    libc,
    sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, connect, setsockopt, socket, sockopt},
};

use super::{Extent, QUANTILES, microseconds};
use crate::{
    generator::latency::histogram,
    progress,
    report::{Cell, Plot, Section, Table},
    scene::hosts::Hosts,
    variants::Variant,
};

/// Connects before those that count.
const WARM_UP: u32 = 50;

/// What the process is told, on its command line.
#[derive(Clone, Copy, Debug, clap::Args)]
#[group(id = "connects")]
pub(crate) struct Agent {
    /// Only connects to this address, again and again, and prints how long each took, in ns.
    #[arg(long, hide = true)]
    connect_to: Option<SocketAddr>,
    /// Sends datagrams in place of connecting.
    #[arg(long, hide = true, requires = "connect_to")]
    connect_udp: bool,
    /// How often.
    #[arg(long, hide = true, default_value_t = 1000)]
    connect_times: u32,
}

impl Agent {
    /// Runs, if this process is to do that: whether it was.
    pub(crate) fn run(self) -> anyhow::Result<bool> {
        let Some(to) = self.connect_to else { return Ok(false) };
        let mut all = Vec::new();
        for time in 0..self.connect_times.saturating_add(WARM_UP) {
            let took = if self.connect_udp { send_once(to) } else { connect_once(to) };
            let took = took.with_context(|| format!("cannot connect to {to}"))?;
            if time >= WARM_UP {
                all.push(took);
            }
        }
        let mut out = io::BufWriter::new(io::stdout().lock());
        all.iter().try_for_each(|took| writeln!(out, "{took}"))?;
        out.flush()?;
        Ok(true)
    }
}

/// Nanoseconds of connect(2).
fn connect_once(to: SocketAddr) -> io::Result<u128> {
    let family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let socket = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    // No `TIME_WAIT` is left behind.
    setsockopt(&socket, sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 0 })?;
    let to = SockaddrStorage::from(to);
    let began = Instant::now();
    connect(socket.as_raw_fd(), &to)?;
    Ok(began.elapsed().as_nanos())
}

/// Nanoseconds of a new socket's first sendto(2).
fn send_once(to: SocketAddr) -> io::Result<u128> {
    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any)?;
    let began = Instant::now();
    socket.send_to(b"portico bench", to)?;
    Ok(began.elapsed().as_nanos())
}

/// A way to an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// To the endpoint's own address.
    Direct,
    /// To the service's.
    Service,
}

impl Way {
    const fn name(self, variant: Variant) -> &'static str {
        match (self, variant) {
            (Self::Direct, _) => "direct to the endpoint",
            (Self::Service, Variant::Nftables) => "nftables as kube-proxy's (OUTPUT)",
            (Self::Service, Variant::Iptables) => "iptables as kube-proxy's (OUTPUT)",
            (Self::Service, _) => "Portico, connect hook",
        }
    }
}

/// Variants that differ on the gateway itself.
pub(super) const VARIANTS: [Variant; 4] =
    [Variant::Route, Variant::FastPath, Variant::Nftables, Variant::Iptables];

/// Measures connects to the service of these gateways, all of one protocol.
pub(super) fn measure(extent: &Extent, all: &[Hosts], section: &mut Section) -> anyhow::Result<()> {
    let Some(services) = all.first().map(|hosts| hosts.services) else { return Ok(()) };
    let (family, protocol) = (services.family, services.protocol().to_uppercase());
    let mut ways = Vec::new();
    for hosts in all.iter().filter(|hosts| VARIANTS.contains(&hosts.variant)) {
        let way = if hosts.variant == Variant::Route { Way::Direct } else { Way::Service };
        ways.push((hosts, way, histogram()?));
    }
    let call = if services.udp { "first sendto()" } else { "connect()" };
    let mut table = Table::new(
        format!("{family:?} {protocol}: {call} on the gateway, microseconds"),
        &["variant", "calls", "p50", "p90", "p99", "p99.9", "largest"],
    )
    .plot(Plot::bars("p50").and("p99").unit("us").less_is_better());
    for round in 1..=extent.rounds {
        progress(format_args!("sockets: {family:?}: {call}, round {round} of {}", extent.rounds));
        for (hosts, way, times) in &mut ways {
            let name = way.name(hosts.variant);
            turn(extent, hosts, *way, times).with_context(|| format!("{call}, {name}"))?;
            hosts.flush_conntrack()?;
        }
    }
    for (hosts, way, times) in ways {
        let name = way.name(hosts.variant);
        let mut cells: Vec<Cell> = vec![name.into(), times.len().into()];
        cells.extend(QUANTILES.map(|q| microseconds(times.value_at_quantile(q))));
        cells.push(microseconds(times.max()));
        table.row(cells);
        section.histograms.push((format!("connect latency/{name}/{family:?} {call}"), times));
    }
    section.tables.push(table);
    Ok(())
}

fn turn(extent: &Extent, hosts: &Hosts, way: Way, times: &mut Histogram<u64>) -> anyhow::Result<()> {
    let [service, endpoint] = hosts.addresses();
    let to = if way == Way::Direct { endpoint } else { service };
    let program = std::env::current_exe().context("cannot find this program")?;
    let mut command = hosts.middle.command(program);
    command.args(["--connect-to", &to.to_string(), "--connect-times", &extent.connects.to_string()]);
    if hosts.services.udp {
        command.arg("--connect-udp");
    }
    hosts.gateway.place(&mut command);
    let output = command.output().context("cannot run the program that connects")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr).trim());
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        times.saturating_record(line.parse()?);
    }
    Ok(())
}

pub(super) fn note(extent: &Extent) -> String {
    format!(
        "Connect: {} calls in each of {} turns by a process on the gateway, each on a socket of its own; TCP's includes the \
         handshake with the server over a veth. With Portico the process is in the cgroup of its hooks, which replace the \
         address; the rulesets translate packets by OUTPUT.",
        extent.connects, extent.rounds
    )
}

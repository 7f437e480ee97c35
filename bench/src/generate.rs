//! Only makes packets, on an interface of the caller's network namespace, and counts those that arrive at another.

mod interface;

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use clap::Args;
use nix::net::if_::if_nametoindex;

use self::interface::{Mac, carries_default_route, hardware_address};
use crate::{
    datapath,
    generator::{
        End, Generator, Kind, Sent,
        abi::{Sink, Traffic},
        interval,
        template::{Macs, Profile, Protocol, Segment},
    },
    host, progress,
    report::{Cell, Section, Table},
};

/// Between two lines of progress.
const SLICE: Duration = Duration::from_secs(1);

/// Where packets go, for `generate`.
#[derive(Clone, Debug, Args)]
#[group(id = "where")]
#[command(
    next_help_heading = "Options of generate, besides --flows --size --protocol --fresh --rate --generator"
)]
pub(crate) struct Arguments {
    /// Send from this interface; a native XDP program that passes everything is attached to it meanwhile, if it has none.
    #[arg(long, value_name = "IF", required_if_eq("sections", "generate"))]
    out_interface: Option<String>,
    /// The hardware address of the next hop.
    #[arg(long, value_name = "MAC", required_if_eq("sections", "generate"))]
    to_mac: Option<Mac>,
    /// The first source address; each has --source-ports flows, and the next address the next ones.
    #[arg(long, value_name = "ADDRESS", default_value = "198.51.100.2")]
    source: IpAddr,
    /// Source ports of an address, from 2000 on.
    #[arg(long, value_name = "N", default_value_t = 60_000, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    source_ports: u32,
    /// The first destination address; flows take turns with those after it.
    #[arg(long, value_name = "ADDRESS", default_value = "203.0.113.1")]
    destination: IpAddr,
    /// How many destination addresses there are.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    destinations: u32,
    /// The destination port.
    #[arg(long, value_name = "PORT", default_value_t = 80)]
    port: u16,
    /// How long to send.
    #[arg(long, value_name = "SECONDS", default_value_t = 5)]
    seconds: u32,
    /// Count what arrives on this interface, and how late it is; what is counted goes no further.
    #[arg(long, value_name = "IF")]
    count_on: Option<String>,
    /// Count packets to the network of this address (its first 24 bits, or 32 of IPv6) [default: that of --destination].
    #[arg(long, value_name = "ADDRESS", requires = "count_on")]
    count_to: Option<IpAddr>,
    /// Send even where the default route leads.
    #[arg(long)]
    even_default_route: bool,
}

impl Arguments {
    /// How long it takes.
    pub(crate) fn expected(&self) -> Duration {
        Duration::from_secs(self.seconds.into())
    }

    fn profile(&self, packets: &datapath::Arguments, out: &str, to: Mac) -> anyhow::Result<Profile> {
        ensure!(
            self.source.is_ipv4() == self.destination.is_ipv4(),
            "--source {} and --destination {} are not of one family",
            self.source,
            self.destination
        );
        let udp = packets.transport() == datapath::Transport::Udp;
        Ok(Profile {
            protocol: if udp { Protocol::Udp } else { Protocol::Tcp(Segment::Ack) },
            client: self.source,
            service: self.destination,
            services: self.destinations,
            port: self.port,
            size: packets.size(),
            macs: Macs { destination: to.0, source: hardware_address(out)?.0 },
        })
    }

    /// What counts as arrived; anything else is left alone.
    fn sink(&self) -> Sink {
        network(self.count_to.unwrap_or(self.destination))
    }
}

/// Everything passes that is not for this network.
fn network(address: IpAddr) -> Sink {
    let mut sink = Sink { pass: 1, v4: 1, v6: 1, ..Sink::default() };
    match address {
        IpAddr::V4(address) => {
            let [a, b, c, _] = address.octets();
            sink.v4 = u32::from_ne_bytes([a, b, c, 0]);
            sink.v4_mask = 0xffff_ff00_u32.to_be();
        }
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.octets();
            sink.v6 = u32::from_ne_bytes([a, b, c, d]);
            sink.v6_mask = u32::MAX;
        }
    }
    sink
}

pub(crate) fn measure(
    arguments: &Arguments,
    packets: &datapath::Arguments,
    kind: Kind,
    cpu: usize,
) -> anyhow::Result<Section> {
    host::pin(Some(cpu))?;
    let out = arguments.out_interface.as_deref().context("--out-interface is missing")?;
    let to = arguments.to_mac.context("--to-mac is missing")?;
    let interface = if_nametoindex(out).with_context(|| format!("there is no interface {out}"))?;
    ensure!(
        arguments.even_default_route || !carries_default_route(out)?,
        "the default route leads to {out}; to send there nevertheless, say --even-default-route"
    );
    let profile = arguments.profile(packets, out, to)?;
    let counted = arguments.count_on.as_deref();
    let mut end = counted.map(|interface| End::beside(interface, arguments.sink())).transpose()?;
    // A veth runs the generator only beside a program of its own.
    let beside = Sink { pass: 1, v4: 1, v6: 1, ..Sink::default() };
    let _own = (kind != Kind::AfPacket && counted != Some(out)).then(|| End::sink(out, beside).ok());
    // Flat out, packets are not due at any time.
    let stamped = end.is_some() && packets.rate().is_some();
    let traffic = Traffic {
        ports: arguments.source_ports,
        fresh: packets.fresh(),
        interval: packets.rate().map_or(0, interval),
        ..profile.traffic(packets.first_flows(), stamped)
    };
    if let Some(end) = &mut end {
        end.stamped(stamped)?;
    }
    let mut generator = Generator::load(kind)?;
    let size = profile.frame(stamped);
    let before = end.as_ref().map(End::counts).transpose()?.unwrap_or_default();
    let mut sent = Sent::default();
    let wanted = Duration::from_secs(arguments.seconds.into());
    let began = Instant::now();
    while sent.elapsed < wanted && began.elapsed() < wanted * 2 {
        let longest = SLICE.min(wanted.saturating_sub(sent.elapsed));
        let so_far = generator.resume(interface, &traffic, size, longest, sent)?;
        let (packets, elapsed) = (so_far.packets - sent.packets, so_far.elapsed - sent.elapsed);
        sent = so_far;
        let rate = packets as f64 / elapsed.as_secs_f64().max(1e-9);
        progress(format_args!("generate: {} packets, {rate:.0} packets/s", sent.packets));
    }
    let mut section = Section { name: "generate", ..Section::default() };
    let mut table = Table::new(
        format!("frames of {size} bytes from {out}, made by {}", generator.name()),
        &[
            "packets",
            "seconds",
            "packets/s",
            "arrived",
            "lost %",
            "p50, us",
            "p99, us",
            "p99.9, us",
            "largest, us",
        ],
    );
    let mut cells: Vec<Cell> = vec![
        sent.packets.into(),
        sent.elapsed.as_secs_f64().into(),
        ((sent.packets as f64 / sent.elapsed.as_secs_f64().max(1e-9)) as u64).into(),
    ];
    if let Some(end) = &mut end {
        let arrived = end.settle(before, sent.packets)?.arrived;
        cells.push(arrived.into());
        cells.push((100.0 * (1.0 - arrived as f64 / sent.packets.max(1) as f64)).max(0.0).into());
        let times = end.latencies()?;
        let quantile = |q| stamped.then(|| times.value_at_quantile(q) as f64 / 1e3);
        cells.extend([0.5, 0.99, 0.999].map(|q| Cell::from(quantile(q))));
        cells.push(quantile(1.0).into());
        if stamped {
            section.histograms.push((format!("generate/{out}/latency"), times));
        }
    } else {
        cells.extend([const { Cell::None }; 6]);
    }
    table.row(cells);
    section.tables.push(table);
    if end.is_some() {
        section
            .notes
            .push("Microseconds are from when a packet was due, and need --rate and --count-on.".to_owned());
    }
    Ok(section)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_its_own_network_counts() {
        let sink = network(IpAddr::from([203, 0, 113, 77]));
        let counts = |sink: &Sink, octets| u32::from_ne_bytes(octets) & sink.v4_mask == sink.v4;
        assert!(counts(&sink, [203, 0, 113, 1]));
        assert!(!counts(&sink, [203, 0, 112, 1]));
        // Nothing of the other family, whose mask is empty.
        assert_eq!(sink.v6_mask, 0);
        assert_ne!(sink.v6, 0);
        let v6 = network("2001:db8::1".parse().unwrap());
        assert!(!counts(&v6, [203, 0, 113, 1]));
    }
}

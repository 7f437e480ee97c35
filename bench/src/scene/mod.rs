//! A client, a gateway and a backend, each a network namespace, in a row:
//!
//! ```text
//! client eth0 ----- eth0 gateway far0 ----- eth0 backend
//! generator;             the variant              counts and drops,
//! counts and drops                                or answers
//! ```
//!
//! All neighbours are permanent, so that nothing is resolved while packets are measured. The gateway's interfaces have
//! GRO, as NICs do, and as a veth needs to accept frames from XDP at its other end.

pub(crate) mod gateway;
pub(crate) mod hosts;
mod kube_proxy;
pub(crate) mod objects;

use std::{
    fs,
    net::IpAddr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use lab::{Netns, behave_like_a_nic};
use nix::net::if_::if_nametoindex;

use self::{
    gateway::Gateway,
    objects::{Family, PORT, Services},
};
use crate::{
    generator::{
        End, Generator, Sent,
        abi::{Sink, Traffic},
        template::{Macs, Profile, Protocol, Segment},
    },
    host,
    variants::Variant,
};

/// Hardware addresses: client, gateway towards it, gateway towards the backend, backend.
pub(crate) const MACS: [[u8; 6]; 4] =
    [[2, 0, 0, 0, 1, 1], [2, 0, 0, 0, 1, 2], [2, 0, 0, 0, 2, 1], [2, 0, 0, 0, 2, 2]];
/// The gateway's interfaces.
pub(crate) const NEAR: &str = "eth0";
pub(crate) const FAR: &str = "far0";
/// How long establishing flows may take.
const ESTABLISH: Duration = Duration::from_secs(60);
/// How often those are tried that were lost.
const ATTEMPTS: u32 = 3;
/// More flows than this are noticed by other scenes.
const MANY: u32 = 2_000;
/// After so long an answered UDP flow counts as assured, at its next packet (`nf_conntrack_udp_packet`).
const STREAM: Duration = Duration::from_millis(2_100);

/// Packets sent and received.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Passed {
    pub(crate) sent: Sent,
    pub(crate) arrived: u64,
}

impl Passed {
    /// Nanoseconds of the CPU for each packet that arrived.
    pub(crate) fn nanoseconds(&self) -> f64 {
        self.sent.elapsed.as_nanos() as f64 * self.sent.share / self.arrived.max(1) as f64
    }

    /// Share of the CPU's time that other processes had, in percent.
    pub(crate) fn others(&self) -> f64 {
        100.0 * (1.0 - self.sent.share)
    }

    /// Share that did not arrive, in percent.
    pub(crate) fn lost(&self) -> f64 {
        100.0 * (1.0 - self.arrived as f64 / self.sent.packets.max(1) as f64)
    }
}

/// How many packets came where.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Received {
    /// To the gateway from clients, whatever became of them.
    pub(crate) gateway: u64,
    /// To clients.
    pub(crate) client: u64,
    /// To endpoints.
    pub(crate) backend: u64,
}

/// A row of namespaces, and what forwards in the middle.
pub(crate) struct Scene {
    pub(crate) variant: Variant,
    pub(crate) services: Services,
    /// Before the namespaces, so as to be gone first.
    pub(crate) gateway: Gateway,
    near: End,
    far: End,
    client: Netns,
    pub(crate) middle: Netns,
    _backend: Netns,
    interface: u32,
    cpu: usize,
}

impl Scene {
    /// Sets it up; packets are made on `cpu`.
    pub(crate) fn new(
        variant: Variant,
        services: Services,
        binaries: &gateway::Binaries,
        cpu: usize,
    ) -> anyhow::Result<Self> {
        let (client, middle, backend) =
            (Netns::new("client")?, Netns::new("gateway")?, Netns::new("backend")?);
        connect(&client, &middle, &backend)?;
        let translated = variant.tracks();
        let near = client.run(|| End::sink(NEAR, networks("100.64.0.0", 10, "fd64::")))??;
        let far = backend.run(|| {
            let config = if translated {
                networks("172.16.0.0", 12, "fd17::")
            } else {
                networks("10.0.0.0", 8, "fd10::")
            };
            End::sink(NEAR, config)
        })??;
        let interface = client.run(|| if_nametoindex(NEAR))?.context("the client has no interface")?;
        let gateway = Gateway::start(variant, &services, &middle, &[NEAR, FAR], binaries)
            .with_context(|| format!("cannot set up {}", variant.name()))?;
        Ok(Self { variant, services, gateway, near, far, client, middle, _backend: backend, interface, cpu })
    }

    /// Packets of clients.
    pub(crate) fn profile(&self, protocol: Protocol, size: usize) -> anyhow::Result<Profile> {
        let client = match self.services.family {
            Family::V4 => "100.64.0.0",
            Family::V6 => "fd64::",
        };
        let [source, destination, ..] = MACS;
        Ok(Profile {
            protocol,
            client: client.parse()?,
            service: self.services.address(0),
            services: self.services.number,
            port: PORT,
            size,
            macs: Macs { destination, source },
        })
    }

    /// Packets of established flows.
    pub(crate) const fn established(&self) -> Protocol {
        if self.services.udp { Protocol::Udp } else { Protocol::Tcp(Segment::Ack) }
    }

    /// Sends, and counts what arrives: at the backend, or at the gateway if that drops.
    pub(crate) fn send(
        &mut self,
        generator: &mut Generator,
        traffic: &Traffic,
        size: usize,
        longest: Duration,
    ) -> anyhow::Result<Passed> {
        let (interface, cpu) = (self.interface, self.cpu);
        let end = self.gateway.end().unwrap_or(&self.far);
        let before = end.counts()?;
        let sent = self.client.run(|| {
            host::pin(Some(cpu))?;
            generator.run(interface, traffic, size, longest)
        })??;
        let arrived = end.settle(before, sent.packets)?.arrived;
        Ok(Passed { sent, arrived })
    }

    /// The end where packets arrive, for latencies.
    pub(crate) fn end(&mut self) -> &mut End {
        self.gateway.end_mut().unwrap_or(&mut self.far)
    }

    /// How many packets came where so far.
    pub(crate) fn received(&self) -> anyhow::Result<Received> {
        let text = self.middle.run(|| fs::read_to_string("/proc/thread-self/net/dev"))??;
        let gateway = packets_in(&text, NEAR).with_context(|| format!("there is no {NEAR} in {text}"))?;
        Ok(Received { gateway, client: self.near.counts()?.arrived, backend: self.far.counts()?.arrived })
    }

    /// Makes that many flows known to conntrack as established and assured, by handshakes from both sides. Nothing if
    /// the variant does not track.
    pub(crate) fn establish(&mut self, generator: &mut Generator, flows: u32) -> anyhow::Result<()> {
        if !self.variant.tracks() {
            return Ok(());
        }
        self.forget()?;
        self.far.answer(true)?;
        let done = self.handshakes(generator, flows);
        self.far.answer(false)?;
        done?;
        let known = self.flows()?;
        ensure!(known >= u64::from(flows), "{}: {known} flows of {flows} are known", self.variant.name());
        Ok(())
    }

    fn handshakes(&mut self, generator: &mut Generator, flows: u32) -> anyhow::Result<()> {
        let (interface, cpu) = (self.interface, self.cpu);
        let mut send = |protocol, flows| -> anyhow::Result<u64> {
            let profile = self.profile(protocol, 60)?;
            let traffic = Traffic { random: 0, limit: u64::from(flows), ..profile.traffic(flows, false) };
            let size = profile.frame(false);
            let before = self.near.counts()?;
            self.client.run(|| {
                host::pin(Some(cpu))?;
                generator.run(interface, &traffic, size, ESTABLISH)
            })??;
            let wanted = if protocol == Protocol::Tcp(Segment::Ack) { 0 } else { u64::from(flows) };
            Ok(self.near.settle(before, wanted)?.arrived)
        };
        let first = if self.services.udp { Protocol::Udp } else { Protocol::Tcp(Segment::Syn) };
        let mut answered = 0;
        for _ in 0..ATTEMPTS {
            answered = send(first, flows)?;
            if answered >= u64::from(flows) {
                break;
            }
        }
        ensure!(
            answered >= u64::from(flows),
            "{}: of {flows} flows only {answered} were answered",
            self.variant.name()
        );
        if self.services.udp {
            std::thread::sleep(STREAM);
        }
        send(self.established(), flows).map(drop)
    }

    /// Empties the gateway's conntrack.
    pub(crate) fn forget(&self) -> anyhow::Result<()> {
        flush(&self.middle)?;
        let began = Instant::now();
        // Of the kernel's own, ICMPv6 for one, there may be a few at any time.
        while self.flows()? > 10 {
            ensure!(began.elapsed() < ESTABLISH, "conntrack does not become empty");
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// The same if there were so many that they would slow down others: the hash table is all namespaces'.
    pub(crate) fn forget_if_many(&self, flows: u32) -> anyhow::Result<()> {
        if self.variant.tracks() && flows > MANY { self.forget() } else { Ok(()) }
    }

    /// Where packets are made.
    pub(crate) const fn cpu(&self) -> usize {
        self.cpu
    }

    /// How many flows the gateway's conntrack has.
    pub(crate) fn flows(&self) -> anyhow::Result<u64> {
        Ok(self.middle.read_sysctl("netfilter/nf_conntrack_count")?.parse()?)
    }

    /// How many of them, TCP, are assured.
    pub(crate) fn assured(&self) -> anyhow::Result<usize> {
        let mut command = self.middle.command("conntrack");
        let family = match self.services.family {
            Family::V4 => "ipv4",
            Family::V6 => "ipv6",
        };
        let output = command.args(["-L", "-f", family, "-p", self.services.protocol()]).output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let good =
            |line: &&str| line.contains("[ASSURED]") && (self.services.udp || line.contains("ESTABLISHED"));
        Ok(text.lines().filter(good).count())
    }
}

/// What an interface has received by /proc/net/dev, see proc_pid_net(5).
fn packets_in(text: &str, interface: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.trim().strip_prefix(interface)?.strip_prefix(':'))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// Tells a namespace's conntrack to forget all it knows.
fn flush(ns: &Netns) -> anyhow::Result<()> {
    let output = ns.command("conntrack").arg("-F").output().context("cannot run conntrack")?;
    ensure!(output.status.success(), "conntrack -F: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

fn networks(v4: &str, bits: u8, v6: &str) -> Sink {
    let first = |address: &str| match address.parse() {
        Ok(IpAddr::V4(address)) => u32::from_ne_bytes(address.octets()),
        Ok(IpAddr::V6(address)) => {
            let [a, b, c, d, ..] = address.octets();
            u32::from_ne_bytes([a, b, c, d])
        }
        Err(_) => 0,
    };
    Sink {
        v4: first(v4),
        v4_mask: (u32::MAX << (32 - bits)).to_be(),
        v6: first(v6),
        v6_mask: 0xffff_0000_u32.to_be(),
        ..Sink::default()
    }
}

fn connect(client: &Netns, middle: &Netns, backend: &Netns) -> anyhow::Result<()> {
    let mac = |n: usize| {
        let octets = MACS.get(n).copied().unwrap_or_default();
        octets.map(|octet| format!("{octet:02x}")).join(":")
    };
    let pairs = [(NEAR, client, 0, 1), (FAR, backend, 3, 2)];
    for (interface, other, far, near) in pairs {
        middle.ip(&format!(
            "link add name {interface} address {} type veth peer name {NEAR} address {} netns {}\nlink set \
             {interface} up\n",
            mac(near),
            mac(far),
            other.name()
        ))?;
        other.ip(&format!("link set {NEAR} up\n"))?;
        behave_like_a_nic(middle, interface)?;
        behave_like_a_nic(other, NEAR)?;
    }
    for (key, value) in [
        ("ipv4/ip_forward", "1"),
        ("ipv6/conf/all/forwarding", "1"),
        ("ipv4/conf/all/rp_filter", "0"),
        ("ipv4/conf/default/rp_filter", "0"),
    ] {
        middle.sysctl(key, value)?;
    }
    let (client, backend) = (mac(0), mac(3));
    middle.ip(&format!(
        "address add 198.51.100.1/24 dev {NEAR}\naddress add 2001:db8:c::1/64 dev {NEAR} nodad\n\
         address add 198.18.1.1/24 dev {FAR}\naddress add 2001:db8:b::1/64 dev {FAR} nodad\n\
         neigh add 198.51.100.2 lladdr {client} dev {NEAR} nud permanent\n\
         neigh add 2001:db8:c::2 lladdr {client} dev {NEAR} nud permanent\n\
         neigh add 198.18.1.2 lladdr {backend} dev {FAR} nud permanent\n\
         neigh add 2001:db8:b::2 lladdr {backend} dev {FAR} nud permanent\n\
         route add 100.64.0.0/10 via 198.51.100.2\nroute add fd64::/16 via 2001:db8:c::2\n\
         route add 172.16.0.0/12 via 198.18.1.2\nroute add fd17::/16 via 2001:db8:b::2\n"
    ))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces_say_what_they_received() {
        let text = "Inter-| Receive\n face |bytes packets errs\n  eth01:  1 2 3\n  eth0: 600 10 0 0\n";
        assert_eq!(packets_in(text, "eth0"), Some(10));
        assert_eq!(packets_in(text, "eth1"), None);
    }
}

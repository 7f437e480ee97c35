//! Headers that the generator starts from.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{
    abi::{STAMPED, TEMPLATE, Traffic},
    frame::fold,
};

/// Shortest frames that carry all bytes that the generator writes.
const SHORTEST: [usize; 2] = [60, TEMPLATE];
/// Ports of a client.
const PORTS: u32 = 60_000;
/// The first of them.
const FIRST_PORT: u16 = 2_000;
/// The first sequence number of clients, and the one of answers.
const SEQUENCE: [u32; 2] = [0x1000_0000, 0x2000_0000];

/// A kind of TCP packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Segment {
    /// Opens a connection.
    Syn,
    /// Belongs to an open one.
    Ack,
}

/// The protocol of packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// Of one kind.
    Tcp(Segment),
    /// Datagrams.
    Udp,
}

/// What packets are like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Profile {
    pub(crate) protocol: Protocol,
    /// The first client's address; the others are those after it.
    pub(crate) client: IpAddr,
    /// The first service's address, of the same family; likewise.
    pub(crate) service: IpAddr,
    pub(crate) services: u32,
    pub(crate) port: u16,
    /// Bytes from Ethernet header to the end, without checksum; at least 60 (IPv4), 80 (IPv6), 88 (stamped).
    pub(crate) size: usize,
    pub(crate) macs: Macs,
}

/// Ends of the first hop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Macs {
    pub(crate) destination: [u8; 6],
    pub(crate) source: [u8; 6],
}

impl Profile {
    const fn v6(&self) -> bool {
        self.client.is_ipv6()
    }

    /// Bytes of a frame.
    pub(crate) fn frame(&self, stamped: bool) -> usize {
        let shortest = SHORTEST[usize::from(self.v6())];
        self.size.max(if stamped { shortest.max(STAMPED) } else { shortest })
    }

    /// What the generator is told: `flows` flows, no limit, no pace, no new flows.
    pub(crate) fn traffic(&self, flows: u32, stamped: bool) -> Traffic {
        let size = self.frame(stamped);
        let network = if self.v6() { 54 } else { 34 };
        let udp = self.protocol == Protocol::Udp;
        // The datagram fills the frame, but for Ethernet's padding of a shortest one.
        let transport = if udp { 8 } else { 20 };
        let payload = if size <= 60 { 0 } else { size - network - transport };
        let length = (transport + payload) as u16;
        let mut bytes = [0; TEMPLATE];
        put(&mut bytes, 0, &self.macs.destination);
        put(&mut bytes, 6, &self.macs.source);
        match (self.client, self.service) {
            (IpAddr::V4(client), IpAddr::V4(service)) => ipv4(&mut bytes, length, udp, client, service),
            (IpAddr::V6(client), IpAddr::V6(service)) => ipv6(&mut bytes, length, udp, client, service),
            _ => {}
        }
        put(&mut bytes, network + 2, &self.port.to_be_bytes());
        let flags = match self.protocol {
            Protocol::Udp => {
                put(&mut bytes, network + 4, &length.to_be_bytes());
                0
            }
            Protocol::Tcp(segment) => tcp(&mut bytes, network, segment),
        };
        // Both sums are without what differs between packets. The frame beyond the template is zeros.
        let (network_sum, addresses) = if self.v6() {
            // The low bits of addresses are the generator's.
            (0, sum(bytes.get(22..34)) + sum(bytes.get(38..50)))
        } else {
            (sum(bytes.get(14..26)), 0)
        };
        let pseudo = u32::from(length) + if udp { 17 } else { 6 };
        Traffic {
            template: words_of(&bytes),
            limit: u64::MAX,
            interval: 0,
            network_sum,
            transport_sum: u32::from(fold(addresses + pseudo + sum(bytes.get(network..)))),
            v6: self.v6().into(),
            udp: udp.into(),
            client: low(self.client),
            service: low(self.service),
            services: self.services,
            port: FIRST_PORT.into(),
            ports: PORTS,
            first: 0,
            flows,
            random: 1,
            fresh: 0,
            fresh_flags: SYN.into(),
            flags: flags.into(),
            stamped: stamped.into(),
        }
    }
}

/// Data offset and flags.
const SYN: u16 = 0x5002;
const ACK: u16 = 0x5010;

fn tcp(bytes: &mut [u8], at: usize, segment: Segment) -> u16 {
    let [own, other] = SEQUENCE;
    let (sequence, acknowledged, flags) = match segment {
        Segment::Syn => (own, 0, SYN),
        Segment::Ack => (own + 1, other + 1, ACK),
    };
    put(bytes, at + 4, &u32::to_be_bytes(sequence));
    put(bytes, at + 8, &u32::to_be_bytes(acknowledged));
    put(bytes, at + 12, &flags.to_be_bytes());
    put(bytes, at + 14, &0xfaf0_u16.to_be_bytes());
    flags
}

fn ipv4(bytes: &mut [u8], length: u16, udp: bool, client: Ipv4Addr, service: Ipv4Addr) {
    put(bytes, 12, &[0x08, 0x00, 0x45, 0]);
    put(bytes, 16, &(20 + length).to_be_bytes());
    // Do not fragment.
    put(bytes, 20, &[0x40, 0, 64, if udp { 17 } else { 6 }]);
    put(bytes, 26, &client.octets());
    put(bytes, 30, &service.octets());
}

fn ipv6(bytes: &mut [u8], length: u16, udp: bool, client: Ipv6Addr, service: Ipv6Addr) {
    put(bytes, 12, &[0x86, 0xdd, 0x60, 0, 0, 0]);
    put(bytes, 18, &length.to_be_bytes());
    put(bytes, 20, &[if udp { 17 } else { 6 }, 64]);
    put(bytes, 22, &client.octets());
    put(bytes, 38, &service.octets());
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    for (to, from) in bytes.iter_mut().skip(at).zip(value) {
        *to = *from;
    }
}

fn sum(bytes: Option<&[u8]>) -> u32 {
    let pairs = bytes.unwrap_or_default().chunks_exact(2);
    pairs.map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum()
}

fn low(address: IpAddr) -> u32 {
    match address {
        IpAddr::V4(address) => address.to_bits(),
        IpAddr::V6(address) => address.to_bits() as u32,
    }
}

fn words_of(bytes: &[u8; TEMPLATE]) -> [u64; TEMPLATE / 8] {
    let mut all = [0; TEMPLATE / 8];
    for (word, chunk) in all.iter_mut().zip(bytes.chunks_exact(8)) {
        let mut array = [0; 8];
        array.copy_from_slice(chunk);
        *word = u64::from_ne_bytes(array);
    }
    all
}

#[cfg(test)]
mod tests;

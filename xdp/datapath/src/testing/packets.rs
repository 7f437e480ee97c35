use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use etherparse::{
    ArpEthIpv4Packet, ArpOperation, EtherType, Ethernet2Header, Icmpv4Header, Icmpv4Type, Icmpv6Header,
    Icmpv6Type, IpAuthHeader, IpFragOffset, IpNumber, Ipv4Header, Ipv4Options, Ipv6FragmentHeader,
    Ipv6Header, Ipv6RawExtHeader, SingleVlanHeader, TcpHeader, TransportHeader, UdpHeader, icmpv4, icmpv6,
};

use super::MemoryTables;
use crate::{
    abi::{TCP, UDP},
    decide::{Decision, decide},
    packet,
};

/// An IPv6 extension header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extension {
    /// Hop-by-hop options, with so many units of eight bytes after the first.
    HopByHop(u8),
    /// Routing, likewise.
    Routing(u8),
    /// Destination options, likewise.
    Destination(u8),
    /// Authentication, with so many units of four bytes of integrity check value.
    Authentication(u8),
    /// Fragment, with the offset in units of eight bytes.
    Fragment(u16),
}

impl Extension {
    const fn number(self) -> IpNumber {
        match self {
            Self::HopByHop(_) => IpNumber::IPV6_HEADER_HOP_BY_HOP,
            Self::Routing(_) => IpNumber::IPV6_ROUTE_HEADER,
            Self::Destination(_) => IpNumber::IPV6_DESTINATION_OPTIONS,
            Self::Authentication(_) => IpNumber::AUTHENTICATION_HEADER,
            Self::Fragment(_) => IpNumber::IPV6_FRAGMENTATION_HEADER,
        }
    }

    fn bytes(self, next: IpNumber) -> Vec<u8> {
        match self {
            Self::HopByHop(units) | Self::Routing(units) | Self::Destination(units) => {
                let header = Ipv6RawExtHeader::new_raw(next, &vec![0; 6 + usize::from(units) * 8]);
                header.map(|header| header.to_bytes().to_vec()).unwrap_or_default()
            }
            Self::Authentication(units) => {
                let header = IpAuthHeader::new(next, 1, 1, &vec![0; usize::from(units) * 4]);
                header.map(|header| header.to_bytes().to_vec()).unwrap_or_default()
            }
            Self::Fragment(offset) => {
                Ipv6FragmentHeader::new(next, frag_offset(offset), true, 1).to_bytes().to_vec()
            }
        }
    }
}

fn frag_offset(units: u16) -> IpFragOffset {
    IpFragOffset::try_new(units).unwrap_or_default()
}

/// A packet by its headers. Lengths and checksums are right; what is wrong with a broken packet is done to its bytes.
#[derive(Clone, Debug)]
pub struct Layers {
    protocol: u8,
    src: SocketAddr,
    dst: SocketAddr,
    tags: Vec<EtherType>,
    options: Ipv4Options,
    fragment: Option<u16>,
    extensions: Vec<Extension>,
    established: bool,
    error: bool,
    payload: Vec<u8>,
}

impl Layers {
    /// The first packet of a TCP connection, or a UDP packet; both addresses of one family.
    #[must_use]
    pub fn new(protocol: u8, src: SocketAddr, dst: SocketAddr) -> Self {
        let payload = if protocol == UDP { b"hello, world".to_vec() } else { Vec::new() };
        Self {
            protocol,
            src,
            dst,
            tags: Vec::new(),
            options: Ipv4Options::new(),
            fragment: None,
            extensions: Vec::new(),
            established: false,
            error: false,
            payload,
        }
    }

    /// With one more VLAN tag inside those there are.
    #[must_use]
    pub fn tag(mut self, service: bool) -> Self {
        self.tags.push(if service { EtherType::PROVIDER_BRIDGING } else { EtherType::VLAN_TAGGED_FRAME });
        self
    }

    /// With IPv4 options, `words` times four bytes of no-operation, at most ten.
    #[must_use]
    pub fn options(mut self, words: usize) -> Self {
        self.options = Ipv4Options::try_from(&vec![1; words * 4][..]).unwrap_or_default();
        self
    }

    /// As a fragment that is not the last, at `offset` times eight bytes.
    #[must_use]
    pub fn fragment(mut self, offset: u16) -> Self {
        match self.dst {
            SocketAddr::V4(_) => self.fragment = Some(offset),
            SocketAddr::V6(_) => self.extensions.push(Extension::Fragment(offset)),
        }
        self
    }

    /// With an IPv6 extension header after those there are.
    #[must_use]
    pub fn extension(mut self, extension: Extension) -> Self {
        self.extensions.push(extension);
        self
    }

    /// A TCP segment from the middle of a connection.
    #[must_use]
    pub fn established(mut self) -> Self {
        self.established = true;
        self.payload = b"hello".to_vec();
        self
    }

    /// An ICMP port unreachable from the source, about a packet that the destination sent it.
    #[must_use]
    pub fn icmp_error(mut self) -> Self {
        self.payload = Self::new(self.protocol, self.dst, self.src).network();
        self.error = true;
        self
    }

    /// With this after the last header.
    #[must_use]
    pub fn payload(mut self, payload: &[u8]) -> Self {
        self.payload = payload.to_vec();
        self
    }

    /// From the Ethernet header on.
    #[must_use]
    pub fn frame(&self) -> Vec<u8> {
        let network = if self.dst.is_ipv4() { EtherType::IPV4 } else { EtherType::IPV6 };
        let mut types = self.tags.iter().copied().chain([network]);
        let mut bytes = ethernet(types.next().unwrap_or_default().0, &[]);
        for ether_type in types {
            bytes.extend(SingleVlanHeader { ether_type, ..Default::default() }.to_bytes());
        }
        bytes.extend(self.network());
        bytes
    }

    /// From the network header on.
    #[must_use]
    pub fn network(&self) -> Vec<u8> {
        match (self.src.ip(), self.dst.ip()) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => self.ipv4(src, dst),
            (src, dst) => self.ipv6(mapped(src), mapped(dst)),
        }
    }

    fn ipv4(&self, src: Ipv4Addr, dst: Ipv4Addr) -> Vec<u8> {
        let mut header = Ipv4Header {
            time_to_live: 64,
            protocol: self.number(IpNumber::ICMP),
            source: src.octets(),
            destination: dst.octets(),
            options: self.options.clone(),
            ..Default::default()
        };
        if let Some(offset) = self.fragment {
            header.dont_fragment = false;
            header.more_fragments = true;
            header.fragment_offset = frag_offset(offset);
        }
        let mut transport = self.transport(true);
        // Fails only for payloads longer than a packet.
        let _ = transport.update_checksum_ipv4(&header, &self.payload);
        header.total_len = (header.header_len() + transport.header_len() + self.payload.len()) as u16;
        header.header_checksum = header.calc_header_checksum();
        let mut bytes = header.to_bytes().to_vec();
        self.append(&mut bytes, &transport);
        bytes
    }

    fn ipv6(&self, src: Ipv6Addr, dst: Ipv6Addr) -> Vec<u8> {
        let mut next = self.number(IpNumber::IPV6_ICMP);
        let mut extensions = Vec::new();
        for extension in self.extensions.iter().rev() {
            extensions.splice(0..0, extension.bytes(next));
            next = extension.number();
        }
        let mut header = Ipv6Header {
            hop_limit: 64,
            next_header: next,
            source: src.octets(),
            destination: dst.octets(),
            ..Default::default()
        };
        let mut transport = self.transport(false);
        // Fails only for payloads longer than a packet.
        let _ = transport.update_checksum_ipv6(&header, &self.payload);
        header.payload_length = (extensions.len() + transport.header_len() + self.payload.len()) as u16;
        let mut bytes = header.to_bytes().to_vec();
        bytes.extend(extensions);
        self.append(&mut bytes, &transport);
        bytes
    }

    fn number(&self, icmp: IpNumber) -> IpNumber {
        if self.error { icmp } else { IpNumber(self.protocol) }
    }

    fn transport(&self, v4: bool) -> TransportHeader {
        let (source_port, destination_port) = (self.src.port(), self.dst.port());
        match (self.error, v4) {
            (true, true) => TransportHeader::Icmpv4(Icmpv4Header::new(Icmpv4Type::DestinationUnreachable(
                icmpv4::DestUnreachableHeader::Port,
            ))),
            (true, false) => TransportHeader::Icmpv6(Icmpv6Header::new(Icmpv6Type::DestinationUnreachable(
                icmpv6::DestUnreachableCode::Port,
            ))),
            (false, _) if self.protocol == TCP => {
                let mut header = TcpHeader::new(source_port, destination_port, 1_000, 64_240);
                (header.syn, header.ack) = (!self.established, self.established);
                TransportHeader::Tcp(header)
            }
            (false, _) => {
                let length = (UdpHeader::LEN + self.payload.len()) as u16;
                TransportHeader::Udp(UdpHeader { source_port, destination_port, length, checksum: 0 })
            }
        }
    }

    fn append(&self, bytes: &mut Vec<u8>, transport: &TransportHeader) {
        // A `Vec` takes all that is written.
        let _ = transport.write(bytes);
        bytes.extend(&self.payload);
    }
}

const fn mapped(addr: IpAddr) -> Ipv6Addr {
    match addr {
        IpAddr::V4(addr) => addr.to_ipv6_mapped(),
        IpAddr::V6(addr) => addr,
    }
}

/// MAC addresses from the range for documentation (RFC 7042 section 2.1.2).
const SOURCE_MAC: [u8; 6] = [0x00, 0x00, 0x5e, 0x00, 0x53, 0x01];
const DESTINATION_MAC: [u8; 6] = [0x00, 0x00, 0x5e, 0x00, 0x53, 0x02];

/// An Ethernet header and what comes after it.
#[must_use]
pub fn ethernet(ether_type: u16, payload: &[u8]) -> Vec<u8> {
    let header = Ethernet2Header {
        source: SOURCE_MAC,
        destination: DESTINATION_MAC,
        ether_type: EtherType(ether_type),
    };
    let mut bytes = header.to_bytes().to_vec();
    bytes.extend(payload);
    bytes
}

/// An ARP request.
#[must_use]
pub fn arp(sender_ipv4: [u8; 4], target_ipv4: [u8; 4]) -> Vec<u8> {
    let request = ArpEthIpv4Packet {
        operation: ArpOperation::REQUEST,
        sender_mac: SOURCE_MAC,
        sender_ipv4,
        target_mac: [0; 6],
        target_ipv4,
    };
    ethernet(EtherType::ARP.0, &request.to_bytes())
}

/// The interface that frames arrive on; no pods are behind it.
pub const INTERFACE: u32 = 1;

/// What a program decides about a frame.
#[must_use]
pub fn decide_frame(frame: &[u8], tables: &MemoryTables) -> Decision {
    match packet::ethernet(frame) {
        Ok(packet) => decide(&packet, INTERFACE, tables),
        Err(counter) => Decision::pass(counter),
    }
}

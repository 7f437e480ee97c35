//! TCP segments without a socket, from any address.

use std::net::{IpAddr, SocketAddr};

use super::fragment::{checksum, pseudo_header};

/// IANA protocol number of TCP.
const TCP: u8 = 6;
const HOP_LIMIT: u8 = 64;

/// Flags of a segment, RFC 9293 section 3.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flags(pub u8);

impl Flags {
    /// Asks for a connection.
    pub const SYN: Self = Self(0x02);
    /// Of a connection.
    pub const ACK: Self = Self(0x10);
    /// Contradicts itself.
    pub const SYN_FIN: Self = Self(0x03);
}

/// The IP packet of a segment without data, sequence and acknowledgement numbers taken from its ports; none if the
/// addresses are of different families.
#[must_use]
pub fn segment(from: SocketAddr, to: SocketAddr, flags: Flags) -> Option<Vec<u8>> {
    let mut tcp = Vec::with_capacity(20);
    tcp.extend_from_slice(&from.port().to_be_bytes());
    tcp.extend_from_slice(&to.port().to_be_bytes());
    tcp.extend_from_slice(&[1, 2, 3, 4]);
    tcp.extend_from_slice(&if flags == Flags::SYN { [0; 4] } else { [5, 6, 7, 8] });
    tcp.extend_from_slice(&[5 << 4, flags.0, 0xff, 0xff, 0, 0, 0, 0]);
    let mut sum = pseudo_header(from.ip(), to.ip(), TCP, 20)?;
    sum.extend_from_slice(&tcp);
    tcp.get_mut(16..18)?.copy_from_slice(&checksum(&sum).to_be_bytes());
    let mut packet = Vec::with_capacity(60);
    match (from.ip(), to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            // The kernel fills in identification and checksum of raw sockets, see raw(7).
            packet.extend_from_slice(&[0x45, 0, 0, 40, 0, 0, 0x40, 0, HOP_LIMIT, TCP, 0, 0]);
            packet.extend_from_slice(&from.octets());
            packet.extend_from_slice(&to.octets());
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            packet.extend_from_slice(&[0x60, 0, 0, 0, 0, 20, TCP, HOP_LIMIT]);
            packet.extend_from_slice(&from.octets());
            packet.extend_from_slice(&to.octets());
        }
        _ => return None,
    }
    packet.append(&mut tcp);
    Some(packet)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_are_well_formed() {
        for [from, to] in
            [["192.0.2.7:40000", "203.0.113.1:80"], ["[2001:db8::7]:40000", "[2001:db8:1b::1]:80"]]
        {
            let [from, to]: [SocketAddr; 2] = [from, to].map(|text| text.parse().unwrap());
            let packet = segment(from, to, Flags::SYN).unwrap();
            let sliced = etherparse::SlicedPacket::from_ip(&packet).unwrap();
            let Some(etherparse::TransportSlice::Tcp(tcp)) = sliced.transport else { panic!("{sliced:?}") };
            assert!(tcp.syn() && !tcp.ack());
            assert_eq!((tcp.source_port(), tcp.destination_port()), (from.port(), to.port()));
            let header = tcp.to_header();
            let expected = match sliced.net.unwrap() {
                etherparse::NetSlice::Ipv4(ip) => header.calc_checksum_ipv4(&ip.header().to_header(), &[]),
                etherparse::NetSlice::Ipv6(ip) => header.calc_checksum_ipv6(&ip.header().to_header(), &[]),
                etherparse::NetSlice::Arp(arp) => panic!("{arp:?}"),
            };
            assert_eq!(tcp.checksum(), expected.unwrap());
        }
        let [v4, v6] = ["192.0.2.7:1", "[2001:db8::7]:1"].map(|text| text.parse().unwrap());
        assert_eq!(segment(v4, v6, Flags::ACK), None);
    }
}

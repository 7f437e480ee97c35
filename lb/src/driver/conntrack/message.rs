//! ctnetlink attributes to [`Flow`] and back. Pure.

use std::net::{IpAddr, SocketAddr};

use datapath::abi::{TCP, UDP};
use netlink_packet_core::{
    DefaultNla, Emitable, NLA_F_NESTED, NLA_TYPE_MASK, Nla, NlasIterator, parse_u32_be, parse_u64_be,
};
use netlink_packet_netfilter::conntrack::{
    ConntrackAttribute, IPTuple, ProtoInfo, ProtoInfoTCP, ProtoTuple, Protocol, Status,
    Tuple as TupleAttribute,
};

use super::{Count, Flow, TcpState, Traffic, Tuple, Volume};

/// `CTA_COUNTERS_ORIG`, `CTA_COUNTERS_REPLY`, `CTA_ID`, `CTA_ZONE`.
const COUNTERS_ORIGINAL: u16 = 9;
const COUNTERS_REPLY: u16 = 10;
const ID: u16 = 12;
const ZONE: u16 = 18;
/// `CTA_COUNTERS_PACKETS`, `CTA_COUNTERS_BYTES`.
const PACKETS: u16 = 1;
const BYTES: u16 = 2;
/// `CTA_STATS_GLOBAL_ENTRIES`, `CTA_STATS_GLOBAL_MAX_ENTRIES`.
const ENTRIES: u16 = 1;
const MAX_ENTRIES: u16 = 2;

/// `CTA_TUPLE_ORIG`, `CTA_FILTER`, `CTA_FILTER_ORIG_FLAGS`, and what the kernel keeps to itself, `CTA_FILTER_F_CTA_PROTO_NUM`
/// (`net/netfilter/nf_internals.h`; Linux 5.8).
const TUPLE_ORIGINAL: u16 = 1;
const FILTER: u16 = 25;
const FILTER_ORIGINAL: u16 = 1;
const FILTER_PROTOCOL: u32 = 1 << 3;

/// Limits a dump to flows of one protocol. (The kernel wants the flag of nested attributes here.)
pub(super) fn only(protocol: u8) -> Vec<DefaultNla> {
    let tuple = TupleAttribute::Proto(vec![ProtoTuple::Protocol(Protocol::from(protocol))]);
    let flags = DefaultNla::new(FILTER_ORIGINAL, FILTER_PROTOCOL.to_ne_bytes().to_vec());
    vec![
        DefaultNla::new(TUPLE_ORIGINAL | NLA_F_NESTED, bytes(&tuple)),
        DefaultNla::new(FILTER | NLA_F_NESTED, bytes(&flags)),
    ]
}

fn bytes(nla: &impl Nla) -> Vec<u8> {
    let mut bytes = vec![0; nla.buffer_len()];
    nla.emit(&mut bytes);
    bytes
}

/// None if it is neither TCP nor UDP.
pub(super) fn flow(attributes: &[ConntrackAttribute]) -> Option<Flow> {
    let (mut original, mut reply) = (None, None);
    let mut status = Status::empty();
    let (mut state, mut timeout_s, mut mark, mut zone, mut id) = (None, 0, 0, 0, None);
    let mut traffic: Option<Traffic> = None;
    for attribute in attributes {
        match attribute {
            ConntrackAttribute::CtaTupleOrig(parts) => original = tuple(parts),
            ConntrackAttribute::CtaTupleReply(parts) => reply = tuple(parts),
            ConntrackAttribute::CtaStatus(bits) => status = *bits,
            ConntrackAttribute::CtaTimeout(seconds) => timeout_s = *seconds,
            ConntrackAttribute::CtaMark(bits) => mark = *bits,
            ConntrackAttribute::CtaProtoInfo(infos) => state = tcp_state(infos),
            // The kernel flags attributes that contain others.
            ConntrackAttribute::Other(nla) => match nla.kind() & NLA_TYPE_MASK {
                COUNTERS_ORIGINAL => traffic.get_or_insert_default().original = volume(nla),
                COUNTERS_REPLY => traffic.get_or_insert_default().reply = volume(nla),
                ID => id = parse_u32_be(&value(nla)).ok(),
                ZONE => {
                    zone = value(nla).first_chunk().map_or(0, |bytes: &[u8; 2]| u16::from_be_bytes(*bytes));
                }
                _ => {}
            },
            _ => {}
        }
    }
    let (protocol, original) = original?;
    let (_, reply) = reply?;
    Some(Flow {
        protocol,
        original,
        reply,
        state,
        seen_reply: status.contains(Status::SeenReply),
        assured: status.contains(Status::Assured),
        dst_nat: status.contains(Status::DstNat),
        src_nat: status.contains(Status::SrcNat),
        timeout_s,
        mark,
        zone,
        traffic,
        id,
    })
}

/// What identifies a flow.
pub(super) fn key(flow: &Flow) -> Vec<ConntrackAttribute> {
    let Tuple { source, destination } = flow.original;
    let mut key = vec![ConntrackAttribute::CtaTupleOrig(vec![
        TupleAttribute::Ip(vec![
            IPTuple::SourceAddress(source.ip()),
            IPTuple::DestinationAddress(destination.ip()),
        ]),
        TupleAttribute::Proto(vec![
            ProtoTuple::Protocol(Protocol::from(flow.protocol)),
            ProtoTuple::SourcePort(source.port()),
            ProtoTuple::DestinationPort(destination.port()),
        ]),
    ])];
    if flow.zone != 0 {
        let zone = DefaultNla::new(ZONE, flow.zone.to_be_bytes().to_vec());
        key.push(ConntrackAttribute::Other(zone));
    }
    if let Some(id) = flow.id {
        key.push(ConntrackAttribute::Other(DefaultNla::new(ID, id.to_be_bytes().to_vec())));
    }
    key
}

/// From the answer to `IPCTNL_MSG_CT_GET_STATS`.
pub(super) fn count(attributes: &[DefaultNla]) -> Count {
    let number = |kind| {
        let nla = attributes.iter().find(|nla| nla.kind() == kind);
        nla.and_then(|nla| parse_u32_be(&value(nla)).ok()).unwrap_or_default()
    };
    Count { entries: number(ENTRIES), max: number(MAX_ENTRIES) }
}

fn tuple(parts: &[TupleAttribute]) -> Option<(u8, Tuple)> {
    let (mut source, mut destination) = (None, None);
    let (mut protocol, mut source_port, mut destination_port) = (None, None, None);
    for part in parts {
        match part {
            TupleAttribute::Ip(addresses) => {
                for address in addresses {
                    match address {
                        IPTuple::SourceAddress(ip) => source = Some(*ip),
                        IPTuple::DestinationAddress(ip) => destination = Some(*ip),
                        _ => {}
                    }
                }
            }
            TupleAttribute::Proto(items) => {
                for item in items {
                    match item {
                        ProtoTuple::Protocol(number) => protocol = Some(u8::from(*number)),
                        ProtoTuple::SourcePort(port) => source_port = Some(*port),
                        ProtoTuple::DestinationPort(port) => destination_port = Some(*port),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    let address = |ip: Option<IpAddr>, port: Option<u16>| Some(SocketAddr::new(ip?, port?));
    let protocol = protocol.filter(|protocol| [TCP, UDP].contains(protocol))?;
    let tuple =
        Tuple { source: address(source, source_port)?, destination: address(destination, destination_port)? };
    Some((protocol, tuple))
}

fn tcp_state(infos: &[ProtoInfo]) -> Option<TcpState> {
    infos.iter().find_map(|info| match info {
        ProtoInfo::TCP(parts) => parts.iter().find_map(|part| match part {
            ProtoInfoTCP::State(number) => Some(TcpState::from(*number)),
            _ => None,
        }),
        _ => None,
    })
}

fn volume(nla: &DefaultNla) -> Volume {
    let value = value(nla);
    let mut volume = Volume::default();
    for nla in NlasIterator::new(&value).flatten() {
        let number = parse_u64_be(nla.value()).unwrap_or_default();
        match nla.kind() {
            PACKETS => volume.packets = number,
            BYTES => volume.bytes = number,
            _ => {}
        }
    }
    volume
}

fn value(nla: &DefaultNla) -> Vec<u8> {
    let mut bytes = vec![0; nla.value_len()];
    nla.emit_value(&mut bytes);
    bytes
}

impl From<u8> for TcpState {
    /// From `enum tcp_conntrack`.
    fn from(number: u8) -> Self {
        match number {
            0 => Self::None,
            1 => Self::SynSent,
            2 => Self::SynReceived,
            3 => Self::Established,
            4 => Self::FinWait,
            5 => Self::CloseWait,
            6 => Self::LastAck,
            7 => Self::TimeWait,
            8 => Self::Close,
            9 => Self::SynSent2,
            other => Self::Other(other),
        }
    }
}

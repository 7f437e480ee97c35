//! Maps of the table, and what `nft list` needs to know to print them.
//!
//! The kernel sees keys and values as bytes. What they mean stands in the map's user data, records of type, length and
//! content that are nft's own (`libnftnl/udata.h`, and `expr_ops.build_udata` in nft's source).
//!
//! The maps of backends are declared by the fields that they stand for, as `typeof meta priority : ip daddr . th dport`.
//! Declared by names of types (`type classid : ipv4_addr . inet_service`), nft 1.1.3 writes user data that nft 1.0.6 ends
//! by a segmentation fault over, with every command; all versions print the present form.

use std::time::Duration;

use crate::model::Family;

/// A map.
#[derive(Clone, Debug)]
pub(in super::super) struct Map {
    pub(in super::super) name: &'static str,
    /// Fields, one after another.
    pub(in super::super) key: Vec<Type>,
    pub(in super::super) data: Vec<Type>,
    /// If rules write it.
    pub(in super::super) remembers: Option<Remembers>,
}

/// What a map is like that rules write.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Remembers {
    /// How long an element stays.
    pub(in super::super) timeout: Duration,
    /// How many there may be.
    pub(in super::super) size: u32,
}

/// A field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Type {
    /// `meta priority`.
    Priority,
    /// `ip daddr`.
    Ipv4,
    /// `ip6 daddr`.
    Ipv6,
    /// `th dport`.
    Port,
    /// `@nh,FROM,BITS` or `@th,FROM,BITS`.
    Header { base: u32, bits_from: u32, bits: u32 },
}

impl Type {
    /// nft's number of the data type.
    const fn number(self) -> u32 {
        match self {
            Self::Priority => 23,
            Self::Ipv4 => 7,
            Self::Ipv6 => 8,
            Self::Port => 13,
            // `integer`.
            Self::Header { .. } => 4,
        }
    }

    /// Bytes in a key or value: whole registers.
    const fn size(self) -> u32 {
        match self {
            Self::Priority | Self::Ipv4 | Self::Port => 4,
            Self::Ipv6 => 16,
            Self::Header { bits, .. } => bits.div_ceil(32) * 4,
        }
    }

    /// Its description for `typeof`: kind of expression, and what is particular to it.
    fn description(self) -> Vec<u8> {
        const PAYLOAD: u32 = 7;
        const META: u32 = 9;
        let (kind, content) = match self {
            Self::Priority => (META, word(0, 2)),
            // Numbers of protocol and field in nft's tables of headers (`proto_ip`, `proto_ip6`, `proto_th`).
            Self::Ipv4 => (PAYLOAD, [word(0, 12), word(1, 12)].concat()),
            Self::Ipv6 => (PAYLOAD, [word(0, 13), word(1, 9)].concat()),
            Self::Port => (PAYLOAD, [word(0, 11), word(1, 2)].concat()),
            // No protocol: base, offset and length say it.
            Self::Header { base, bits_from, bits } => {
                // nft counts layers from the link layer, beginning with 1.
                let base = base + 1;
                (PAYLOAD, [word(0, 0), word(1, 0), word(2, base), word(3, bits_from), word(4, bits)].concat())
            }
        };
        [word(0, kind), record(1, &content)].concat()
    }
}

fn numbers(types: &[Type]) -> u32 {
    /// Six bits for each type of a concatenation.
    const BITS: u32 = 6;
    types.iter().fold(0, |number, field| number << BITS | field.number())
}

/// In the host's byte order, or (zero) in none or the network's.
fn byte_order(types: &[Type]) -> u32 {
    u32::from(types == [Type::Priority])
}

fn description(types: &[Type]) -> Vec<u8> {
    const CONCATENATION: u32 = 13;
    if let [one] = types {
        return one.description();
    }
    let mut fields = Vec::new();
    for (index, field) in types.iter().enumerate() {
        fields.extend(record(index as u8, &field.description()));
    }
    [word(0, CONCATENATION), record(1, &fields)].concat()
}

/// A record of user data.
pub(in super::super) fn record(kind: u8, content: &[u8]) -> Vec<u8> {
    [&[kind, content.len() as u8], content].concat()
}

/// A record with a number.
fn word(kind: u8, value: u32) -> Vec<u8> {
    record(kind, &value.to_ne_bytes())
}

impl Map {
    /// The map that holds backends of a family.
    pub(super) fn backends(name: &'static str, family: Family) -> Self {
        let address = match family {
            Family::V4 => Type::Ipv4,
            Family::V6 => Type::Ipv6,
        };
        let data = vec![address, Type::Port];
        Self { name, key: vec![Type::Priority], data, remembers: None }
    }

    /// nft's number of the key's type; the kernel only keeps it.
    pub(in super::super) fn key_type(&self) -> u32 {
        numbers(&self.key)
    }

    /// nft's number of the data's type.
    pub(in super::super) fn data_type(&self) -> u32 {
        numbers(&self.data)
    }

    /// Bytes in a key.
    pub(in super::super) fn key_size(&self) -> u32 {
        self.key.iter().map(|field| field.size()).sum()
    }

    /// Bytes in a value.
    pub(in super::super) fn data_size(&self) -> u32 {
        self.data.iter().map(|field| field.size()).sum()
    }

    /// What `nft list` reads.
    pub(in super::super) fn user_data(&self) -> Vec<u8> {
        const KEY_BYTE_ORDER: u8 = 0;
        const DATA_BYTE_ORDER: u8 = 1;
        const KEY_TYPEOF: u8 = 3;
        const DATA_TYPEOF: u8 = 4;
        const DATA_INTERVAL: u8 = 6;
        [
            word(KEY_BYTE_ORDER, byte_order(&self.key)),
            word(DATA_BYTE_ORDER, byte_order(&self.data)),
            record(KEY_TYPEOF, &description(&self.key)),
            record(DATA_TYPEOF, &description(&self.data)),
            word(DATA_INTERVAL, 0),
        ]
        .concat()
    }
}

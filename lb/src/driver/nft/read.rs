//! What the kernel says of the table, from its messages. Pure.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use netlink_packet_core::{DecodeError, NlaBuffer, NlasIterator};

use super::{Counter, expression::COUNTER};
use crate::model::Family;

/// An attribute: its number in `include/uapi/linux/netfilter/nf_tables.h`, and its bytes.
type Attribute = (u16, Vec<u8>);

/// What identifies an object, but for a rule: that has its chain's.
type Name = (Kind, Vec<Vec<u8>>);

/// Kinds of objects in a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// A table.
    Table,
    /// A chain.
    Chain,
    /// A rule.
    Rule,
    /// A set or map.
    Set,
    /// A counter, or another named object.
    Object,
    /// A flow table.
    Flowtable,
}

impl Kind {
    /// The attributes that name it, in the order of their weight.
    const fn names(self) -> &'static [u16] {
        match self {
            Self::Table => &[1],
            Self::Chain => &[1, 3],
            Self::Rule | Self::Set | Self::Flowtable => &[1, 2],
            // There may be a counter and, say, a quota of one name.
            Self::Object => &[1, 2, 3],
        }
    }

    /// Attributes that say nothing about what it does: numbers that the kernel gives, positions, counts of uses, values of
    /// counters, padding, and
    ///
    /// * the user data of tables: a comment;
    /// * the user data of sets: how `nft list` prints them. The kernel cannot change it. A map that differs in nothing
    ///   else is kept as it is, with its elements;
    /// * by which means a set is implemented.
    const fn ignored(self) -> &'static [u16] {
        match self {
            Self::Table => &[3, 4, 5, 6],
            Self::Chain => &[2, 6, 8, 9],
            Self::Rule => &[3, 6, 8],
            Self::Set => &[10, 13, 14, 16, 19, 20],
            Self::Object => &[4, 5, 6, 7],
            Self::Flowtable => &[4, 5, 6],
        }
    }
}

/// A table in comparable form: chains, rules, maps and counters by kind and name, the rules of a chain in order. The order
/// of all else is that of their creation and means nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Snapshot {
    objects: BTreeMap<Name, Vec<Vec<Attribute>>>,
    comment: Option<String>,
}

impl Snapshot {
    /// Takes note of what the attributes of a message describe, if it belongs to the table.
    pub(super) fn add(&mut self, table: &str, kind: Kind, payload: &[u8]) -> Result<(), DecodeError> {
        let mut names = vec![Vec::new(); kind.names().len()];
        let mut rest = Vec::new();
        let mut comment = None;
        for attribute in attributes(payload) {
            let attribute = attribute?;
            let (number, value) = (attribute.kind(), attribute.value());
            if let Some(index) = kind.names().iter().position(|name| *name == number) {
                names[index] = value.to_vec();
            }
            if kind == Kind::Table && number == 6 {
                comment = self::comment(value);
            }
            if !kind.ignored().contains(&number) {
                rest.push((number, value.to_vec()));
            }
        }
        if names[0].strip_suffix(&[0]) == Some(table.as_bytes()) {
            if kind == Kind::Table {
                self.comment = comment;
            }
            self.objects.entry((kind, names)).or_default().push(rest);
        }
        Ok(())
    }

    /// Whether there is a table.
    pub(super) fn exists(&self) -> bool {
        self.objects.keys().any(|(kind, _)| *kind == Kind::Table)
    }

    /// Whether both do the same; comments do nothing.
    pub(super) fn same(&self, other: &Self) -> bool {
        self.objects == other.objects
    }

    /// The table's comment.
    pub(super) fn comment(&self) -> Option<&str> {
        self.comment.as_deref()
    }
}

/// The comment in the user data of a table: records of type, length, content, of which type 0 is the comment.
fn comment(mut data: &[u8]) -> Option<String> {
    while let [kind, length, rest @ ..] = data {
        let (content, rest) = rest.split_at_checked(usize::from(*length))?;
        if *kind == 0 {
            return Some(String::from_utf8_lossy(content.strip_suffix(&[0]).unwrap_or(content)).into_owned());
        }
        data = rest;
    }
    None
}

fn attributes(bytes: &[u8]) -> impl Iterator<Item = Result<NlaBuffer<&[u8]>, DecodeError>> {
    NlasIterator::new(bytes)
}

/// The first attribute of this number.
fn attribute(bytes: &[u8], number: u16) -> Result<Option<&[u8]>, DecodeError> {
    for attribute in attributes(bytes) {
        let attribute = attribute?;
        if attribute.kind() == number {
            let start = netlink_packet_core::NLA_HEADER_SIZE;
            return Ok(attribute.into_inner().get(start..start + attribute.value_length()));
        }
    }
    Ok(None)
}

fn required(bytes: &[u8], number: u16) -> Result<&[u8], DecodeError> {
    attribute(bytes, number)?.ok_or_else(|| DecodeError::from(format!("attribute {number} is missing")))
}

/// Elements of a map of backends, from a message.
pub(super) fn elements(
    payload: &[u8],
    family: Family,
    into: &mut Vec<(u32, SocketAddr)>,
) -> Result<(), DecodeError> {
    // `NFTA_SET_ELEM_LIST_ELEMENTS`, absent if there are none.
    let Some(list) = attribute(payload, 3)? else { return Ok(()) };
    for element in attributes(list) {
        let element = element?;
        let element = element.value();
        // `NFTA_SET_ELEM_KEY`, `NFTA_SET_ELEM_DATA`; in both `NFTA_DATA_VALUE`.
        let key = required(required(element, 1)?, 1)?;
        let data = required(required(element, 2)?, 1)?;
        let label = key.try_into().map(u32::from_ne_bytes);
        let label = label.map_err(|_| DecodeError::from(format!("a key of {} bytes", key.len())))?;
        let addr = address_and_port(family, data)
            .ok_or_else(|| DecodeError::from(format!("a value of {} bytes", data.len())))?;
        into.push((label, addr));
    }
    Ok(())
}

fn address_and_port(family: Family, data: &[u8]) -> Option<SocketAddr> {
    let (ip, port): (IpAddr, &[u8]) = match family {
        Family::V4 => {
            let (ip, port) = data.split_first_chunk::<4>()?;
            (Ipv4Addr::from(*ip).into(), port)
        }
        Family::V6 => {
            let (ip, port) = data.split_first_chunk::<16>()?;
            (Ipv6Addr::from(*ip).into(), port)
        }
    };
    // The rest of the register is nothing.
    let [high, low, _, _] = port else { return None };
    Some(SocketAddr::new(ip, u16::from_be_bytes([*high, *low])))
}

/// A named counter of the table, from a message; none if it is of another table, or no counter.
pub(super) fn counter(table: &str, payload: &[u8]) -> Result<Option<Counter>, DecodeError> {
    let name = |number| Ok::<_, DecodeError>(text(required(payload, number)?));
    if name(1)? != table || required(payload, 3)? != COUNTER.to_be_bytes() {
        return Ok(None);
    }
    let data = required(payload, 4)?;
    let value = |number| {
        let value: Result<[u8; 8], _> = required(data, number)?.try_into();
        value.map(u64::from_be_bytes).map_err(|_| DecodeError::from("a counter that has no 8 bytes"))
    };
    Ok(Some(Counter { name: name(2)?, packets: value(2)?, bytes: value(1)? }))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes.strip_suffix(&[0]).unwrap_or(bytes)).into_owned()
}

#[cfg(test)]
mod tests;

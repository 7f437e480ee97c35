//! Messages to the kernel's nf_tables (`net/netfilter/nf_tables_api.c`). Pure: a transaction is bytes until it is sent.

use std::net::{IpAddr, SocketAddr};

use datapath::abi::Label;
use netlink_packet_core::{
    DefaultNla, NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader,
    NetlinkMessage, NetlinkPayload,
};
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
    nftables::{
        ChainAttribute, ChainMessage, DataAttribute, Hook, HookNumber, ListAttribute, NfTablesMessage,
        RuleAttribute, RuleMessage, SetAttribute, SetDescription, SetElementAttribute, SetElementList,
        SetElementMessage, SetFlags, SetMessage, TableAttribute, TableFlags, TableMessage,
    },
    none::ControlMessage,
};

use super::{
    expression::COUNTER,
    ruleset::{self, Chain, Key, Map, Rule, Synproxy, counter, record},
};
use crate::model::Family;

/// `NFNL_SUBSYS_NFTABLES`.
pub(super) const SUBSYSTEM: u8 = 10;

/// `NFTNL_UDATA_TABLE_COMMENT`.
const TABLE_COMMENT: u8 = 0;

/// What a message is about: the transaction as a whole.
pub(super) const TRANSACTION: &str = "the transaction";
/// The table itself.
pub(super) const TABLE: &str = "the table";

/// Elements in one message. The length of their list has 16 bits, and an element with an IPv6 address takes 44 bytes.
const ELEMENTS: usize = 1024;

/// Where the flags are in the header of a message.
const FLAGS: usize = 6;

/// A list of changes that the kernel makes all at once, or not at all.
pub(super) struct Transaction<'a> {
    table: &'a str,
    bytes: Vec<u8>,
    /// What each message is about, by its sequence number.
    subjects: Vec<String>,
    last: usize,
}

/// A transaction, ready to be sent.
pub(super) struct Batch {
    pub(super) bytes: Vec<u8>,
    /// What each message is about, by its sequence number.
    pub(super) subjects: Vec<String>,
    /// Sequence number of the message that the kernel acknowledges, the last one that is a change. Those of the messages
    /// around all changes are not acknowledged before Linux 6.10.
    pub(super) acknowledged: u32,
}

impl<'a> Transaction<'a> {
    pub(super) fn new(table: &'a str) -> Self {
        let mut transaction = Self { table, bytes: Vec::new(), subjects: Vec::new(), last: 0 };
        let begin = frame(ControlMessage::BatchBegin.into());
        transaction.push(begin, 0, TRANSACTION.to_owned());
        transaction
    }

    pub(super) fn finish(mut self) -> Batch {
        let acknowledged = self.subjects.len() as u32 - 1;
        let flags = &mut self.bytes[self.last + FLAGS..][..2];
        let set = u16::from_ne_bytes([flags[0], flags[1]]) | NLM_F_ACK;
        flags.copy_from_slice(&set.to_ne_bytes());
        self.push(frame(ControlMessage::BatchEnd.into()), 0, TRANSACTION.to_owned());
        Batch { bytes: self.bytes, subjects: self.subjects, acknowledged }
    }

    fn push(&mut self, message: NetfilterMessage, flags: u16, subject: String) {
        self.last = self.bytes.len();
        serialize(&mut self.bytes, message, flags, self.subjects.len() as u32);
        self.subjects.push(subject);
    }

    fn change(&mut self, message: NfTablesMessage, flags: u16, subject: String) {
        self.push(inet(message), flags, subject);
    }

    /// Adds the table, or wakes it up if it is dormant.
    fn add_table(&mut self, comment: Option<&str>) {
        self.add_table_of(self.table, comment);
    }

    fn add_table_of(&mut self, name: &str, comment: Option<&str>) {
        let mut attributes =
            vec![TableAttribute::Name(name.to_owned()), TableAttribute::Flags(TableFlags::empty())];
        if let Some(comment) = comment {
            let content = [comment.as_bytes(), &[0]].concat();
            attributes.push(TableAttribute::UserData(record(TABLE_COMMENT, &content)));
        }
        self.change(NfTablesMessage::NewTable(TableMessage { attributes }), NLM_F_CREATE, TABLE.to_owned());
    }

    /// Deletes a table, of whatever name, if it is there.
    pub(super) fn delete_table(&mut self, name: &str) {
        // The first makes the second succeed where there is no table. Linux before 6.3 has no "destroy".
        self.add_table_of(name, None);
        let attributes = vec![TableAttribute::Name(name.to_owned())];
        self.change(NfTablesMessage::DeleteTable(TableMessage { attributes }), 0, TABLE.to_owned());
    }

    fn add_map(&mut self, map: &Map) {
        let id = self.subjects.len() as u32;
        let mut flags = SetFlags::Map;
        let mut attributes = vec![
            SetAttribute::Table(self.table.to_owned()),
            SetAttribute::Name(map.name.to_owned()),
            SetAttribute::KeyType(map.key_type()),
            SetAttribute::KeyLen(map.key_size()),
            SetAttribute::DataType(map.data_type()),
            SetAttribute::DataLen(map.data_size()),
            SetAttribute::Id(id),
            SetAttribute::UserData(map.user_data()),
        ];
        if let Some(remembers) = map.remembers {
            flags |= SetFlags::Timeout | SetFlags::Eval;
            attributes.push(SetAttribute::Timeout(remembers.timeout.as_millis() as u64));
            attributes.push(SetAttribute::Description(vec![SetDescription::Size(remembers.size)]));
        }
        attributes.push(SetAttribute::Flags(flags));
        let subject = format!("map {}", map.name);
        self.change(NfTablesMessage::NewSet(SetMessage { attributes }), NLM_F_CREATE, subject);
    }

    fn add_counter(&mut self, name: &str) {
        // Bytes and packets, both zero.
        let zero = [1, 2].map(|kind| DefaultNla::new(kind, vec![0; 8]));
        let attributes = vec![
            DefaultNla::new(1, terminated(self.table)),
            DefaultNla::new(2, terminated(name)),
            DefaultNla::new(3, COUNTER.to_be_bytes().to_vec()),
            DefaultNla::new(4 | netlink_packet_core::NLA_F_NESTED, emitted(&zero)),
        ];
        self.change(NfTablesMessage::NewObject(attributes), NLM_F_CREATE, format!("counter {name}"));
    }

    fn add_chain(&mut self, chain: &Chain) {
        let mut attributes =
            vec![ChainAttribute::Table(self.table.to_owned()), ChainAttribute::Name(chain.name.to_owned())];
        if let Some(base) = chain.base {
            attributes.extend([
                ChainAttribute::Type(base.kind.to_owned()),
                ChainAttribute::Policy(libc::NF_ACCEPT as u32),
                ChainAttribute::Hook(vec![
                    Hook::Number(HookNumber::Inet(base.hook)),
                    Hook::Priority(base.priority as u32),
                ]),
            ]);
        }
        let subject = format!("chain {}", chain.name);
        self.change(NfTablesMessage::NewChain(ChainMessage { attributes }), NLM_F_CREATE, subject);
    }

    fn flush_chain(&mut self, chain: &Chain) {
        let attributes =
            vec![RuleAttribute::Table(self.table.to_owned()), RuleAttribute::Chain(chain.name.to_owned())];
        let subject = format!("the rules of chain {}", chain.name);
        self.change(NfTablesMessage::DeleteRule(RuleMessage { attributes }), 0, subject);
    }

    fn add_rule(&mut self, rule: Rule) {
        let expressions = rule.parts.into_iter().flatten().map(ListAttribute::from).collect();
        let attributes = vec![
            RuleAttribute::Table(self.table.to_owned()),
            RuleAttribute::Chain(rule.chain.to_owned()),
            RuleAttribute::Expressions(expressions),
        ];
        let subject = format!("rule \"{}\" of chain {}", rule.text, rule.chain);
        self.change(
            NfTablesMessage::NewRule(RuleMessage { attributes }),
            NLM_F_CREATE | NLM_F_APPEND,
            subject,
        );
    }

    /// What makes the table what it should be, whatever parts of it exist, and leaves elements alone but the probes'.
    pub(super) fn create(&mut self, synproxy: Synproxy, comment: Option<&str>) {
        self.add_table(comment);
        for map in ruleset::maps(synproxy) {
            self.add_map(&map);
        }
        for counter in counter::ALL {
            self.add_counter(counter);
        }
        let chains = ruleset::chains(synproxy);
        // All before the first is emptied: rules name chains and maps.
        chains.iter().for_each(|chain| self.add_chain(chain));
        chains.iter().for_each(|chain| self.flush_chain(chain));
        ruleset::rules(synproxy).into_iter().for_each(|rule| self.add_rule(rule));
        self.add_elements(&ruleset::probe_elements());
    }

    /// Puts a new, empty table into the place of whatever has its name.
    pub(super) fn replace(&mut self, synproxy: Synproxy, comment: Option<&str>) {
        self.delete_table(self.table);
        self.create(synproxy, comment);
    }

    pub(super) fn delete_elements(&mut self, keys: &[Key]) {
        for family in Family::ALL {
            let labels: Vec<u32> =
                keys.iter().filter(|(_, f)| *f == family).map(|(label, _)| *label).collect();
            for part in labels.chunks(ELEMENTS) {
                let elements = part.iter().map(|label| vec![key(*label)]);
                let message = NfTablesMessage::DeleteSetElement(self.elements(family, elements));
                self.change(message, 0, subject(family, part[0]));
            }
        }
    }

    pub(super) fn add_elements(&mut self, elements: &[(u32, SocketAddr)]) {
        for family in Family::ALL {
            let of_family: Vec<_> =
                elements.iter().filter(|(_, addr)| Family::of(addr.ip()) == family).collect();
            for part in of_family.chunks(ELEMENTS) {
                let elements = part.iter().map(|(label, addr)| {
                    vec![key(*label), SetElementAttribute::Data(DataAttribute::Value(address_and_port(addr)))]
                });
                let message = NfTablesMessage::NewSetElement(self.elements(family, elements));
                self.change(message, NLM_F_CREATE, subject(family, part[0].0));
            }
        }
    }

    fn elements(
        &self,
        family: Family,
        elements: impl Iterator<Item = Vec<SetElementAttribute>>,
    ) -> SetElementMessage {
        let elements = elements.map(ListAttribute::Element).collect();
        SetElementMessage {
            attributes: vec![
                SetElementList::Table(self.table.to_owned()),
                SetElementList::Set(ruleset::map(family).to_owned()),
                SetElementList::Elements(elements),
            ],
        }
    }
}

fn subject(family: Family, first: u32) -> String {
    format!("elements of map {} from {} on", ruleset::map(family), Label(first))
}

fn key(label: u32) -> SetElementAttribute {
    SetElementAttribute::Key(DataAttribute::Value(label.to_ne_bytes().to_vec()))
}

/// As it lies in registers: each field begins a new one.
fn address_and_port(addr: &SocketAddr) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(20);
    match addr.ip() {
        IpAddr::V4(ip) => bytes.extend(ip.octets()),
        IpAddr::V6(ip) => bytes.extend(ip.octets()),
    }
    bytes.extend(addr.port().to_be_bytes());
    bytes.extend([0, 0]);
    bytes
}

fn terminated(text: &str) -> Vec<u8> {
    [text.as_bytes(), &[0]].concat()
}

fn emitted(attributes: &[DefaultNla]) -> Vec<u8> {
    use netlink_packet_core::Emitable as _;
    let mut bytes = vec![0; attributes.buffer_len()];
    attributes.emit(&mut bytes);
    bytes
}

fn inet(message: NfTablesMessage) -> NetfilterMessage {
    NetfilterMessage::new(NetfilterHeader::new(NetfilterProtoFamily::Inet, 0, 0), message)
}

/// Begin and end of a transaction name the subsystem.
fn frame(message: NetfilterMessageInner) -> NetfilterMessage {
    NetfilterMessage::new(
        NetfilterHeader::new(NetfilterProtoFamily::Unspec, 0, u16::from(SUBSYSTEM)),
        message,
    )
}

fn serialize(bytes: &mut Vec<u8>, message: NetfilterMessage, flags: u16, sequence: u32) {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | flags;
    header.sequence_number = sequence;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::from(message));
    message.finalize();
    let start = bytes.len();
    // The next message begins at a multiple of four.
    bytes.resize((start + message.buffer_len()).next_multiple_of(4), 0);
    message.serialize(&mut bytes[start..]);
}

/// What can be asked for. The answer is a list of messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Request<'a> {
    /// All tables of the family.
    Tables,
    /// All chains of the family: the kernel does not select.
    Chains,
    /// The rules of a table.
    Rules(&'a str),
    /// The sets and maps of all tables; asked for those of one that is gone, the kernel would report an error.
    Sets,
    /// The named objects of a table, counters among them.
    Objects(&'a str),
    /// The flow tables of a table.
    Flowtables(&'a str),
    /// The elements of a map of a table.
    Elements(&'a str, &'a str),
}

impl Request<'_> {
    /// The request as bytes.
    pub(super) fn bytes(self) -> Vec<u8> {
        let table = |table: &str| vec![DefaultNla::new(1, terminated(table))];
        let message = match self {
            Self::Tables => NfTablesMessage::GetTable(TableMessage { attributes: Vec::new() }),
            Self::Chains => NfTablesMessage::GetChain(ChainMessage { attributes: Vec::new() }),
            Self::Rules(name) => {
                let attributes = vec![RuleAttribute::Table(name.to_owned())];
                NfTablesMessage::GetRule(RuleMessage { attributes })
            }
            Self::Sets => NfTablesMessage::GetSet(SetMessage { attributes: Vec::new() }),
            Self::Objects(name) => NfTablesMessage::GetObject(table(name)),
            Self::Flowtables(name) => NfTablesMessage::GetFlowTable(table(name)),
            Self::Elements(name, map) => NfTablesMessage::GetSetElement(SetElementMessage {
                attributes: vec![SetElementList::Table(name.to_owned()), SetElementList::Set(map.to_owned())],
            }),
        };
        let mut bytes = Vec::new();
        serialize(&mut bytes, inet(message), NLM_F_DUMP, 0);
        bytes
    }
}

#[cfg(test)]
mod tests;

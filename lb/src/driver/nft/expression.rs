//! The steps of a rule, as the kernel takes them (`include/uapi/linux/netfilter/nf_tables.h`). Each function stands for
//! a part of nft's language; a rule is a list of such parts.
//!
//! Registers are the kernel's scratch memory for a packet. The kernel compares them byte by byte: values that it loads
//! in the host's byte order are compared in the host's, header fields in the network's.

use netlink_packet_core::DefaultNla;
use netlink_packet_netfilter::nftables::{
    Bitwise, Cmp, DataAttribute, Expressions, Immediate, Lookup, Meta, MetaKey, Operator, Payload, Register,
    Verdict, VerdictAttribute,
};

use crate::model::Family;

/// A part of a rule: a comparison, a statement, a verdict.
pub(super) type Part = Vec<Expressions>;

/// Where values go unless it is said otherwise.
const FIRST: Register = Register::Reg1;

/// `NFT_OBJECT_COUNTER`: a named counter.
pub(super) const COUNTER: u32 = 1;

/// Bits of `ct state`.
pub(super) mod state {
    pub(crate) const INVALID: u32 = 1;
    pub(crate) const ESTABLISHED: u32 = 1 << 1;
    pub(crate) const NEW: u32 = 1 << 3;
    pub(crate) const UNTRACKED: u32 = 1 << 6;
}

/// Bits of `ct status`.
pub(super) mod status {
    pub(crate) const CONFIRMED: u32 = 1 << 3;
    pub(crate) const DNAT: u32 = 1 << 5;
}

/// What a masked value is compared with.
#[derive(Clone, Copy)]
pub(super) enum Is {
    /// `== value`.
    Equal(u32),
    /// `!= value`.
    Not(u32),
}

impl Is {
    const fn operator(self) -> Operator {
        match self {
            Self::Equal(_) => Operator::Equal,
            Self::Not(_) => Operator::NotEqual,
        }
    }

    const fn value(self) -> u32 {
        match self {
            Self::Equal(value) | Self::Not(value) => value,
        }
    }
}

fn value(bytes: &[u8]) -> DataAttribute {
    DataAttribute::Value(bytes.to_vec())
}

fn load(key: MetaKey) -> Expressions {
    Expressions::Meta(vec![Meta::Key(key), Meta::DestinationRegister(FIRST)])
}

fn store(key: MetaKey) -> Expressions {
    Expressions::Meta(vec![Meta::Key(key), Meta::SourceRegister(FIRST)])
}

fn compare(operator: Operator, bytes: &[u8]) -> Expressions {
    Expressions::Cmp(vec![Cmp::SourceRegister(FIRST), Cmp::Op(operator), Cmp::Data(value(bytes))])
}

/// `(value & mask) ^ xor`.
fn mask_and_flip(mask: &[u8], xor: &[u8]) -> Expressions {
    Expressions::Bitwise(vec![
        Bitwise::SourceRegister(FIRST),
        Bitwise::DestinationRegister(FIRST),
        Bitwise::Length(mask.len() as u32),
        Bitwise::Mask(value(mask)),
        Bitwise::Xor(value(xor)),
    ])
}

fn masked(load: Expressions, mask: u32, is: Is) -> Part {
    vec![load, mask_and_flip(&mask.to_ne_bytes(), &[0; 4]), compare(is.operator(), &is.value().to_ne_bytes())]
}

/// An expression that the crate has no type for.
fn other(name: &str, attributes: Vec<DefaultNla>) -> Expressions {
    Expressions::Other { expression_type: name.to_owned(), attributes }
}

/// An attribute with a number in network byte order.
fn number(kind: u16, value: u32) -> DefaultNla {
    DefaultNla::new(kind, value.to_be_bytes().to_vec())
}

fn text(kind: u16, text: &str) -> DefaultNla {
    DefaultNla::new(kind, [text.as_bytes(), &[0]].concat())
}

/// `meta priority VALUE`.
pub(super) fn priority_is(label: u32) -> Part {
    vec![load(MetaKey::Priority), compare(Operator::Equal, &label.to_ne_bytes())]
}

/// `meta priority & MASK == VALUE`, or `!=`.
pub(super) fn priority(mask: u32, is: Is) -> Part {
    masked(load(MetaKey::Priority), mask, is)
}

/// `meta priority set VALUE`.
pub(super) fn set_priority(label: u32) -> Part {
    vec![
        Expressions::Immediate(vec![
            Immediate::DestinationRegister(FIRST),
            Immediate::Data(value(&label.to_ne_bytes())),
        ]),
        store(MetaKey::Priority),
    ]
}

/// `meta priority set meta priority & MASK`.
pub(super) fn mask_priority(mask: u32) -> Part {
    vec![load(MetaKey::Priority), mask_and_flip(&mask.to_ne_bytes(), &[0; 4]), store(MetaKey::Priority)]
}

/// `meta priority set KEY map @MAP`, the key being in the registers.
pub(super) fn set_priority_from(map: &str) -> Part {
    vec![translate(map), store(MetaKey::Priority)]
}

/// `meta mark & MASK == VALUE`, or `!=`.
pub(super) fn mark(mask: u32, is: Is) -> Part {
    masked(load(MetaKey::Mark), mask, is)
}

/// `meta mark set meta mark & MASK`.
pub(super) fn mask_mark(mask: u32) -> Part {
    vec![load(MetaKey::Mark), mask_and_flip(&mask.to_ne_bytes(), &[0; 4]), store(MetaKey::Mark)]
}

/// `meta mark set meta mark | BITS`: what the mask leaves out is set by the exclusive or.
pub(super) fn set_mark_bits(bits: u32) -> Part {
    vec![
        load(MetaKey::Mark),
        mask_and_flip(&(!bits).to_ne_bytes(), &bits.to_ne_bytes()),
        store(MetaKey::Mark),
    ]
}

/// `meta nfproto ipv4`, or `ipv6`.
pub(super) fn family(family: Family) -> Part {
    let number = match family {
        Family::V4 => libc::NFPROTO_IPV4,
        Family::V6 => libc::NFPROTO_IPV6,
    };
    vec![load(MetaKey::Nfproto), compare(Operator::Equal, &[number as u8])]
}

/// `meta l4proto PROTOCOL`, by its IANA number.
pub(super) fn protocol(number: u8) -> Part {
    vec![load(MetaKey::L4Proto), compare(Operator::Equal, &[number])]
}

/// `tcp flags & (syn | ack) == syn`, or `!= syn`.
pub(super) fn syn_without_ack(wanted: bool) -> Part {
    const SYN: u8 = 2;
    const ACK: u8 = 16;
    let operator = if wanted { Operator::Equal } else { Operator::NotEqual };
    vec![header(TRANSPORT, 13, 1, FIRST), mask_and_flip(&[SYN | ACK], &[0]), compare(operator, &[SYN])]
}

/// `NFT_PAYLOAD_NETWORK_HEADER`, `@nh`.
pub(super) const NETWORK: u32 = 1;
/// `NFT_PAYLOAD_TRANSPORT_HEADER`, `@th`.
pub(super) const TRANSPORT: u32 = 2;

/// `@nh,OFFSET,LENGTH` or `@th,OFFSET,LENGTH`, but in bytes.
pub(super) fn header(base: u32, offset: u32, length: u32, register: Register) -> Expressions {
    Expressions::Payload(vec![
        Payload::DestinationRegister(register),
        Payload::Base(base),
        Payload::Offset(offset),
        Payload::Len(length),
    ])
}

fn conntrack(key: u32) -> Expressions {
    other("ct", vec![number(2, key), number(1, FIRST.into())])
}

/// `ct state A,B`: one of these bits.
pub(super) fn ct_state(bits: u32) -> Part {
    masked(conntrack(0), bits, Is::Not(0))
}

/// `ct status & MASK == VALUE`, or `!=`.
pub(super) fn ct_status(mask: u32, is: Is) -> Part {
    masked(conntrack(2), mask, is)
}

/// `fib saddr type != local`.
pub(super) fn source_is_not_local() -> Part {
    const SOURCE: u32 = 1;
    const TYPE: u32 = 3;
    let ask = vec![number(3, SOURCE), number(2, TYPE), number(1, FIRST.into())];
    vec![other("fib", ask), compare(Operator::NotEqual, &u32::from(libc::RTN_LOCAL).to_ne_bytes())]
}

fn translate(map: &str) -> Expressions {
    Expressions::Lookup(vec![
        Lookup::SourceRegister(FIRST),
        Lookup::DestinationRegister(FIRST),
        Lookup::Set(map.to_owned()),
    ])
}

/// `KEY @MAP`, the key being in the registers: goes on if it is there.
pub(super) fn is_in(map: &str) -> Part {
    vec![Expressions::Lookup(vec![Lookup::SourceRegister(FIRST), Lookup::Set(map.to_owned())])]
}

/// What is done to an element of a map by a rule.
#[derive(Clone, Copy)]
pub(super) enum Dynamic {
    /// `update`.
    Update = 1,
    /// `delete`.
    Delete = 2,
}

/// `update @MAP { KEY : meta priority }`, or `delete`, the key being in the registers.
pub(super) fn remember(operation: Dynamic, map: &str) -> Part {
    // Behind the longest key there may be.
    let label = Register::Reg2;
    vec![
        Expressions::Meta(vec![Meta::Key(MetaKey::Priority), Meta::DestinationRegister(label)]),
        other(
            "dynset",
            vec![number(4, FIRST.into()), number(5, label.into()), number(3, operation as u32), text(1, map)],
        ),
    ]
}

/// `dnat ip to meta priority map @MAP`, or `ip6`.
pub(super) fn destination_from(family: Family, map: &str) -> Part {
    const DNAT: u32 = 1;
    // The port lies behind the address.
    let (number_of, port) = match family {
        Family::V4 => (libc::NFPROTO_IPV4, Register::Reg32_01),
        Family::V6 => (libc::NFPROTO_IPV6, Register::Reg2),
    };
    let nat =
        vec![number(1, DNAT), number(2, number_of as u32), number(3, FIRST.into()), number(5, port.into())];
    vec![load(MetaKey::Priority), translate(map), other("nat", nat)]
}

/// `masquerade fully-random`.
pub(super) fn masquerade() -> Part {
    const FULLY_RANDOM: u32 = 1 << 4;
    vec![other("masq", vec![number(1, FULLY_RANDOM)])]
}

/// `synproxy mss MSS wscale SCALE timestamp sack-perm`.
pub(super) fn synproxy(mss: u16, window_scale: u8) -> Part {
    const MSS: u32 = 1;
    const WINDOW_SCALE: u32 = 1 << 1;
    const SACK: u32 = 1 << 2;
    const TIMESTAMP: u32 = 1 << 3;
    let attributes = vec![
        DefaultNla::new(1, mss.to_be_bytes().to_vec()),
        DefaultNla::new(2, vec![window_scale]),
        number(3, MSS | WINDOW_SCALE | SACK | TIMESTAMP),
    ];
    vec![other("synproxy", attributes)]
}

/// `notrack`.
pub(super) fn notrack() -> Part {
    vec![other("notrack", Vec::new())]
}

/// `counter name NAME`.
pub(super) fn count(name: &str) -> Part {
    vec![other("objref", vec![number(1, COUNTER), text(2, name)])]
}

/// `reject`: port unreachable, of either family.
pub(super) fn reject() -> Part {
    const ICMPX_UNREACHABLE: u32 = 2;
    const PORT: u8 = 1;
    vec![other("reject", vec![number(1, ICMPX_UNREACHABLE), DefaultNla::new(2, vec![PORT])])]
}

fn verdict(attributes: Vec<VerdictAttribute>) -> Part {
    vec![Expressions::Immediate(vec![
        Immediate::DestinationRegister(Register::Verdict),
        Immediate::Data(DataAttribute::Verdict(attributes)),
    ])]
}

/// `accept`.
pub(super) fn accept() -> Part {
    verdict(vec![VerdictAttribute::Code(Verdict::Other(libc::NF_ACCEPT as u32))])
}

/// `drop`.
pub(super) fn discard() -> Part {
    verdict(vec![VerdictAttribute::Code(Verdict::Other(libc::NF_DROP as u32))])
}

/// `jump CHAIN`.
pub(super) fn jump(chain: &str) -> Part {
    verdict(vec![VerdictAttribute::Code(Verdict::Jump), VerdictAttribute::Chain(chain.to_owned())])
}

/// `goto CHAIN`.
pub(super) fn goto(chain: &str) -> Part {
    verdict(vec![VerdictAttribute::Code(Verdict::Goto), VerdictAttribute::Chain(chain.to_owned())])
}

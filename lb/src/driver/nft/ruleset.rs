//! What is in `table inet portico`: chains, rules, counters, maps. Pure.
//!
//! Each rule stands here twice: in nft's input language, for the reader and for messages about it, and as what the kernel
//! is sent. Tests compare the two.
//!
//! | chain | hook | does |
//! |---|---|---|
//! | `verdict` | prerouting -110, after conntrack, before NAT | refuses and withholds new flows |
//! | `translate` | prerouting dstnat (nat) | label to backend, once for each connection |
//! | `settle` | prerouting -99, right after NAT | drops what stayed untranslated, ends the life of the label |
//! | `peculiar` | from `settle` | labels that name no backend |
//! | `masquerading` | postrouting srcnat (nat) | hides the client where the mark asks for it |
//! | `early`, `proxy_forward`, `proxy_input`, `proxied`, `resume`, `resumed` | | [`handshake`] |

mod declaration;
mod handshake;

use std::{
    collections::{BTreeSet, HashMap},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use datapath::abi::{Label, MASQUERADE_MARK, TCP, UDP};
use netlink_packet_netfilter::nftables::InetHookNumber;

use crate::model::Family;

use super::expression::{self as part, Is, Part, state, status};

pub(super) use declaration::{Map, record};

/// Name of the table; its family is `inet`.
pub const TABLE: &str = "portico";

/// Named counters of the table.
pub mod counter {
    /// New flows refused with an ICMP error (label `REJECT`).
    pub const REFUSED: &str = "refused";
    /// New flows dropped on purpose (label `DROP`).
    pub const WITHHELD: &str = "withheld";
    /// Labelled packets that conntrack could not assign to a flow; untranslated they would reach the VIP.
    pub const INVALID: &str = "invalid";
    /// First packets of flows whose label has no element.
    pub const UNKNOWN_LABEL: &str = "unknown_label";
    /// Packets that synproxy deals with.
    pub const HANDSHAKES: &str = "handshakes";
    /// New flows whose source was replaced.
    pub const MASQUERADED: &str = "masqueraded";
    /// Probes over IPv4 that were translated.
    pub const PROBE_V4: &str = "probe4";
    /// Probes over IPv6 that were translated.
    pub const PROBE_V6: &str = "probe6";
    /// Probes that were not.
    pub const PROBE_LOST: &str = "probe_lost";
    /// One sentence about a counter, for listings.
    #[must_use]
    pub fn help(name: &str) -> &'static str {
        match name {
            REFUSED => "New flows refused with an ICMP error: there is no usable endpoint.",
            WITHHELD => "New flows dropped because a traffic policy withholds the endpoints.",
            INVALID => "Packets for a frontend that conntrack could not assign to a flow: dropped.",
            UNKNOWN_LABEL => "First packets whose label has no element: dropped.",
            HANDSHAKES => {
                "Packets with SYN cookies, which synproxy opens connections for, and SYNs that it answers."
            }
            MASQUERADED => "New flows whose source was replaced.",
            PROBE_V4 => "The daemon's probes over IPv4 that were translated.",
            PROBE_V6 => "The daemon's probes over IPv6 that were translated.",
            PROBE_LOST => "Probes that were not.",
            _ => "",
        }
    }

    /// All of them.
    pub const ALL: [&str; 9] =
        [REFUSED, WITHHELD, INVALID, UNKNOWN_LABEL, HANDSHAKES, MASQUERADED, PROBE_V4, PROBE_V6, PROBE_LOST];
}

/// The map that holds backends of this family.
#[must_use]
pub const fn map(family: Family) -> &'static str {
    match family {
        Family::V4 => "backends4",
        Family::V6 => "backends6",
    }
}

/// The counter of probes of this family that were translated.
#[must_use]
pub const fn probe_counter(family: Family) -> &'static str {
    match family {
        Family::V4 => counter::PROBE_V4,
        Family::V6 => counter::PROBE_V6,
    }
}

/// Where probes are translated to: documentation addresses (RFC 5737, RFC 3849) and the discard port.
#[must_use]
pub const fn probe_target(family: Family) -> SocketAddr {
    match family {
        Family::V4 => SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 9),
        Family::V6 => SocketAddr::new(IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)), 9),
    }
}

/// A chain.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chain {
    pub(super) name: &'static str,
    /// Where it hooks in; chains without are jumped to.
    pub(super) base: Option<Base>,
}

/// Where a chain hooks in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Base {
    pub(super) kind: &'static str,
    pub(super) hook: InetHookNumber,
    /// Chains of a hook are run in the order of their priorities.
    pub(super) priority: i32,
}

impl Chain {
    const fn filter(name: &'static str, hook: InetHookNumber, priority: i32) -> Self {
        Self { name, base: Some(Base { kind: "filter", hook, priority }) }
    }

    const fn nat(name: &'static str, hook: InetHookNumber, priority: i32) -> Self {
        Self { name, base: Some(Base { kind: "nat", hook, priority }) }
    }

    const fn called(name: &'static str) -> Self {
        Self { name, base: None }
    }
}

/// A rule.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) chain: &'static str,
    /// In nft's input language.
    pub(super) text: String,
    pub(super) parts: Vec<Part>,
}

/// All chains with their hooks. `masquerade`, `dnat`, `snat` and `ct` are keywords and cannot name one.
const CHAINS: [Chain; 5] = [
    Chain::filter("verdict", InetHookNumber::PreRouting, -110),
    Chain::nat("translate", InetHookNumber::PreRouting, libc::NF_IP_PRI_NAT_DST),
    Chain::filter("settle", InetHookNumber::PreRouting, libc::NF_IP_PRI_NAT_DST + 1),
    Chain::nat("masquerading", InetHookNumber::PostRouting, libc::NF_IP_PRI_NAT_SRC),
    Chain::called("peculiar"),
];

/// Whether the kernel's synproxy is to be used; not all kernels have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Synproxy {
    /// It is.
    On,
    /// It cannot be.
    Absent,
}

/// The chains. Each has to be there before the rules are written: rules name chains.
pub(super) fn chains(synproxy: Synproxy) -> Vec<Chain> {
    let mut chains = CHAINS.to_vec();
    if synproxy == Synproxy::On {
        chains.extend(handshake::CHAINS);
    }
    chains
}

/// The maps. Rules name them, too.
pub(super) fn maps(synproxy: Synproxy) -> Vec<Map> {
    let mut maps = Family::ALL.map(|family| Map::backends(map(family), family)).to_vec();
    if synproxy == Synproxy::On {
        maps.push(handshake::map());
    }
    maps
}

/// The rules of all chains, each chain in order.
///
/// They act on labels of this schema only: during an upgrade there is another table, for the labels of another one.
///
/// Most packets have no label, and most that have one open or continue an ordinary flow: each chain looks for them first,
/// and knows labels by masks, which the kernel compares without a call and without turning bytes (`nft_cmp_fast`,
/// `nft_bitwise_fast`), as it does not compare ranges.
pub(super) fn rules(synproxy: Synproxy) -> Vec<Rule> {
    use counter::{HANDSHAKES, INVALID, MASQUERADED, PROBE_LOST, REFUSED, UNKNOWN_LABEL, WITHHELD};
    let (reject, withhold, probe, none) = (Label::REJECT, Label::DROP, Label::PROBE, Label::NONE);
    let (peculiar, schema, ours) = (Label::PECULIAR, Label::SCHEMA, Label::OURS);
    let (bit, others) = (MASQUERADE_MARK, !MASQUERADE_MARK);
    let mut rules = Vec::new();
    let mut rule = |chain, text, parts| rules.push(Rule { chain, text, parts });
    rule(
        "verdict",
        format!("meta priority & {peculiar} == {none} accept"),
        vec![part::priority(peculiar.0, Is::Equal(none.0)), part::accept()],
    );
    rule(
        "settle",
        format!("meta priority & {schema} != {ours} accept"),
        vec![part::priority(schema.0, Is::Not(ours.0)), part::accept()],
    );
    rule(
        "settle",
        format!("meta priority & {peculiar} != {none} jump peculiar"),
        vec![part::priority(peculiar.0, Is::Not(none.0)), part::jump("peculiar")],
    );
    if synproxy == Synproxy::On {
        let all = handshake::rules(INVALID).into_iter().chain(handshake::settle(HANDSHAKES));
        all.chain([handshake::end()]).for_each(|Rule { chain, text, parts }| rule(chain, text, parts));
    }
    rule(
        "verdict",
        format!("ct state new meta priority {reject} counter name {REFUSED} reject"),
        vec![part::ct_state(state::NEW), part::priority_is(reject.0), part::count(REFUSED), part::reject()],
    );
    rule(
        "verdict",
        format!("ct state new meta priority {withhold} counter name {WITHHELD} drop"),
        vec![
            part::ct_state(state::NEW),
            part::priority_is(withhold.0),
            part::count(WITHHELD),
            part::discard(),
        ],
    );
    for (family, keyword, ip) in [(Family::V4, "ipv4", "ip"), (Family::V6, "ipv6", "ip6")] {
        let map = map(family);
        // A mapping to a port is accepted by nft only where the transport protocol is known to have ports. Two rules,
        // because a set of two protocols is looked up as any other set.
        for (name, number) in [("tcp", TCP), ("udp", UDP)] {
            rule(
                "translate",
                format!("meta nfproto {keyword} meta l4proto {name} dnat {ip} to meta priority map @{map}"),
                vec![part::family(family), part::protocol(number), part::destination_from(family, map)],
            );
        }
    }
    // Dropped here, a probe reaches no socket and no wire, and its conntrack entry is never confirmed.
    for (family, keyword) in [(Family::V4, "ipv4"), (Family::V6, "ipv6")] {
        let counter = probe_counter(family);
        rule(
            "peculiar",
            format!(
                "meta priority {probe} meta nfproto {keyword} ct status & dnat == dnat counter name {counter} drop"
            ),
            vec![
                part::priority_is(probe.0),
                part::family(family),
                part::ct_status(status::DNAT, Is::Equal(status::DNAT)),
                part::count(counter),
                part::discard(),
            ],
        );
    }
    rule(
        "peculiar",
        format!("meta priority {probe} counter name {PROBE_LOST} drop"),
        vec![part::priority_is(probe.0), part::count(PROBE_LOST), part::discard()],
    );
    // NAT chains see the first packet of a connection only, which is the one that is not confirmed yet. Its mark is for
    // `masquerading`. `ip_forward` overwrites the priority, nothing does so for IPv6 and local delivery, and qdiscs read
    // it.
    let end = format!("meta priority set {none}");
    rule(
        "settle",
        format!("ct status & (dnat | confirmed) == dnat {end} accept"),
        vec![
            part::ct_status(status::DNAT | status::CONFIRMED, Is::Equal(status::DNAT)),
            part::set_priority(none.0),
            part::accept(),
        ],
    );
    // On any other (a second datagram of an unanswered flow is still "new") nobody would clear the bit.
    let unmark = format!("meta mark set meta mark & {others:#x}");
    rule(
        "settle",
        format!("ct state established {unmark} {end} accept"),
        vec![
            part::ct_state(state::ESTABLISHED),
            part::mask_mark(others),
            part::set_priority(none.0),
            part::accept(),
        ],
    );
    // What conntrack does not track is not translated either.
    rule(
        "settle",
        format!("ct state invalid,untracked counter name {INVALID} drop"),
        vec![part::ct_state(state::INVALID | state::UNTRACKED), part::count(INVALID), part::discard()],
    );
    rule(
        "settle",
        format!("ct state new ct status & dnat == 0 counter name {UNKNOWN_LABEL} drop"),
        vec![
            part::ct_state(state::NEW),
            part::ct_status(status::DNAT, Is::Equal(0)),
            part::count(UNKNOWN_LABEL),
            part::discard(),
        ],
    );
    rule(
        "settle",
        format!("ct status & confirmed == confirmed {unmark}"),
        vec![part::ct_status(status::CONFIRMED, Is::Equal(status::CONFIRMED)), part::mask_mark(others)],
    );
    rule("settle", end, vec![part::set_priority(none.0)]);
    rule(
        "masquerading",
        format!(
            "meta mark & {bit:#x} == {bit:#x} {unmark} counter name {MASQUERADED} masquerade fully-random"
        ),
        vec![
            part::mark(bit, Is::Equal(bit)),
            part::mask_mark(others),
            part::count(MASQUERADED),
            part::masquerade(),
        ],
    );
    rules
}

/// The elements that translate probes.
#[must_use]
pub fn probe_elements() -> [(u32, SocketAddr); 2] {
    Family::ALL.map(|family| (Label::PROBE.0, probe_target(family)))
}

/// What identifies an element.
pub type Key = (u32, Family);

/// What remains to be deleted and added if these elements exist.
#[must_use]
pub fn difference(
    actual: &HashMap<Key, SocketAddr>,
    delete: &[Key],
    add: &[(u32, SocketAddr)],
) -> (Vec<Key>, Vec<(u32, SocketAddr)>) {
    let delete: BTreeSet<Key> = delete.iter().copied().collect();
    let key = |(label, addr): &(u32, SocketAddr)| (*label, Family::of(addr.ip()));
    let stays = |element: &&(u32, SocketAddr)| {
        actual.get(&key(element)) == Some(&element.1) && !delete.contains(&key(element))
    };
    let add: Vec<_> = add.iter().filter(|element| !stays(element)).copied().collect();
    let in_the_way = add.iter().map(key);
    let delete = delete.iter().copied().chain(in_the_way).collect::<BTreeSet<_>>();
    (delete.into_iter().filter(|key| actual.contains_key(key)).collect(), add)
}

#[cfg(test)]
mod tests;

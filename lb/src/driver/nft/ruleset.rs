//! The text of `table inet portico` and of changes to it, in nft's input language. Pure.
//!
//! | chain | hook | does |
//! |---|---|---|
//! | `verdict` | prerouting -110, after conntrack, before NAT | refuses and withholds new flows |
//! | `translate` | prerouting dstnat (nat) | label to backend, once for each connection |
//! | `settle` | prerouting -99, right after NAT | drops what stayed untranslated, ends the life of the label |
//! | `peculiar` | from `settle` | labels that name no backend |
//! | `masquerading` | postrouting srcnat (nat) | hides the client where the mark asks for it |
//! | `early`, `proxy_forward`, `proxy_input`, `proxied`, `resume`, `resumed` | | [`handshake`] |

mod handshake;

use std::{
    collections::{BTreeSet, HashMap},
    fmt::Write as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use datapath::abi::{Label, MASQUERADE_MARK};

use crate::model::Family;

/// Family and name of the table, as nft wants them.
pub const TABLE: &str = "inet portico";

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

/// Chains and where they hook in. `masquerade`, `dnat`, `snat` and `ct` are keywords and cannot name one.
const CHAINS: [(&str, &str); 5] = [
    ("verdict", "type filter hook prerouting priority -110; policy accept;"),
    ("translate", "type nat hook prerouting priority dstnat; policy accept;"),
    ("settle", "type filter hook prerouting priority -99; policy accept;"),
    ("masquerading", "type nat hook postrouting priority srcnat; policy accept;"),
    ("peculiar", ""),
];

/// Whether the kernel's synproxy is to be used; not all kernels have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Synproxy {
    /// It is.
    On,
    /// It cannot be.
    Absent,
}

/// Bits that no backend's id has: what they are in is a verdict or completes a handshake.
const PECULIAR: Label = Label(!(Label::RESERVED - 1));
/// Bits that tell labels from ordinary priorities.
const LABELS: Label = Label(!(Label::FIRST - 1));

/// The rules of all chains, each chain in order.
///
/// Most packets have no label, and most that have one open or continue an ordinary flow: each chain looks for them first,
/// and knows labels by masks, which the kernel compares without a call and without turning bytes (`nft_cmp_fast`,
/// `nft_bitwise_fast`), as it does not compare ranges.
fn rules(synproxy: Synproxy) -> String {
    use counter::{HANDSHAKES, INVALID, MASQUERADED, PROBE_LOST, REFUSED, UNKNOWN_LABEL, WITHHELD};
    let (reject, withhold, probe, none) = (Label::REJECT, Label::DROP, Label::PROBE, Label::NONE);
    let (bit, others) = (MASQUERADE_MARK, !MASQUERADE_MARK);
    let mut text = String::new();
    let mut rule = |chain: &str, rule: &str| {
        let _ = writeln!(text, "add rule {TABLE} {chain} {rule}");
    };
    rule("verdict", &format!("meta priority & {PECULIAR} == {none} accept"));
    rule("settle", &format!("meta priority & {LABELS} == {none} accept"));
    rule("settle", &format!("meta priority & {PECULIAR} != {none} jump peculiar"));
    if synproxy == Synproxy::On {
        handshake::rules(INVALID).iter().for_each(|(chain, text)| rule(chain, text));
        handshake::settle(HANDSHAKES).iter().for_each(|text| rule("peculiar", text));
        rule("masquerading", &handshake::end(LABELS, PECULIAR));
    }
    rule("verdict", &format!("ct state new meta priority {reject} counter name {REFUSED} reject"));
    rule("verdict", &format!("ct state new meta priority {withhold} counter name {WITHHELD} drop"));
    for (family, keyword, ip) in [(Family::V4, "ipv4", "ip"), (Family::V6, "ipv6", "ip6")] {
        let map = map(family);
        // A mapping to a port is accepted by nft only where the transport protocol is known to have ports. Two rules,
        // because a set of two protocols is looked up as any other set.
        for protocol in ["tcp", "udp"] {
            rule(
                "translate",
                &format!(
                    "meta nfproto {keyword} meta l4proto {protocol} dnat {ip} to meta priority map @{map}"
                ),
            );
        }
    }
    // Dropped here, a probe reaches no socket and no wire, and its conntrack entry is never confirmed.
    for (family, keyword) in [(Family::V4, "ipv4"), (Family::V6, "ipv6")] {
        let counter = probe_counter(family);
        rule(
            "peculiar",
            &format!(
                "meta priority {probe} meta nfproto {keyword} ct status & dnat == dnat counter name {counter} drop"
            ),
        );
    }
    rule("peculiar", &format!("meta priority {probe} counter name {PROBE_LOST} drop"));
    // NAT chains see the first packet of a connection only, which is the one that is not confirmed yet. Its mark is for
    // `masquerading`. `ip_forward` overwrites the priority, nothing does so for IPv6 and local delivery, and qdiscs read
    // it.
    let end = format!("meta priority set {none}");
    rule("settle", &format!("ct status & (dnat | confirmed) == dnat {end} accept"));
    // On any other (a second datagram of an unanswered flow is still "new") nobody would clear the bit.
    let unmark = format!("meta mark set meta mark & {others:#x}");
    rule("settle", &format!("ct state established {unmark} {end} accept"));
    // What conntrack does not track is not translated either.
    rule("settle", &format!("ct state invalid,untracked counter name {INVALID} drop"));
    rule("settle", &format!("ct state new ct status & dnat == 0 counter name {UNKNOWN_LABEL} drop"));
    rule("settle", &format!("ct status & confirmed == confirmed {unmark}"));
    rule("settle", &end);
    rule(
        "masquerading",
        &format!(
            "meta mark & {bit:#x} == {bit:#x} {unmark} counter name {MASQUERADED} masquerade fully-random"
        ),
    );
    text
}

/// The transaction that makes the table what it should be, whatever parts of it exist, and leaves elements alone.
#[must_use]
pub fn create(synproxy: Synproxy) -> String {
    let mut text = format!("add table {TABLE}\n");
    for (family, address) in [(Family::V4, "ipv4_addr"), (Family::V6, "ipv6_addr")] {
        let map = map(family);
        let _ = writeln!(text, "add map {TABLE} {map} {{ type classid : {address} . inet_service; }}");
    }
    for counter in counter::ALL {
        let _ = writeln!(text, "add counter {TABLE} {counter}");
    }
    let mut chains = CHAINS.to_vec();
    if synproxy == Synproxy::On {
        chains.extend(handshake::CHAINS);
        let _ = writeln!(text, "add map {TABLE} {} {{ {} }}", handshake::MAP, handshake::map());
    }
    // All before the first is emptied: rules name chains and maps.
    for (chain, hook) in &chains {
        let _ = writeln!(text, "add chain {TABLE} {chain} {{ {hook} }}");
    }
    for (chain, _) in &chains {
        let _ = writeln!(text, "flush chain {TABLE} {chain}");
    }
    text += &rules(synproxy);
    text += &change(&[], &probe_elements());
    text
}

/// The transaction that puts a new table with these elements into the place of whatever has its name.
#[must_use]
pub fn replace(synproxy: Synproxy, elements: &[(u32, SocketAddr)]) -> String {
    // "add" makes "delete" succeed where there is no table; nft before 1.0.7 has no "destroy".
    format!("add table {TABLE}\ndelete table {TABLE}\n{}{}", create(synproxy), change(&[], elements))
}

/// The elements that translate probes.
#[must_use]
pub fn probe_elements() -> [(u32, SocketAddr); 2] {
    Family::ALL.map(|family| (Label::PROBE.0, probe_target(family)))
}

/// The transaction that takes elements out and then puts others in.
#[must_use]
pub fn change(delete: &[Key], add: &[(u32, SocketAddr)]) -> String {
    let mut text = String::with_capacity(40 * add.len() + 16 * delete.len() + 128);
    for family in Family::ALL {
        let labels = delete.iter().filter(|(_, f)| *f == family);
        list(&mut text, "delete", family, labels, |text, (label, _)| {
            let _ = write!(text, "{}", Label(*label));
        });
    }
    for family in Family::ALL {
        let elements = add.iter().filter(|(_, addr)| Family::of(addr.ip()) == family);
        list(&mut text, "add", family, elements, |text, (label, addr)| {
            let _ = write!(text, "{} : {} . {}", Label(*label), addr.ip(), addr.port());
        });
    }
    text
}

fn list<T>(
    text: &mut String,
    verb: &str,
    family: Family,
    items: impl Iterator<Item = T>,
    write: impl Fn(&mut String, T),
) {
    let mut items = items.peekable();
    if items.peek().is_none() {
        return;
    }
    let _ = write!(text, "{verb} element {TABLE} {} {{", map(family));
    for (i, item) in items.enumerate() {
        text.push_str(if i == 0 { " " } else { ",\n" });
        write(text, item);
    }
    text.push_str(" }\n");
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

/// Our table out of a listing of all tables, one string a block (counter, map, chain), sorted: the order of blocks is
/// that of their creation and means nothing. None if there is no such table.
#[must_use]
pub fn blocks(listing: &str) -> Option<Vec<String>> {
    let head = format!("table {TABLE} {{");
    let mut lines = listing.lines().skip_while(|line| *line != head);
    lines.next()?;
    let body: Vec<&str> = lines.take_while(|line| *line != "}").collect();
    let mut blocks: Vec<String> = body
        .split(|line| line.trim().is_empty())
        .filter(|block| !block.is_empty())
        .map(|block| block.join("\n"))
        .collect();
    blocks.sort();
    Some(blocks)
}

/// One element as nft prints it: `1:2 : 10.2.0.2 . 8080`.
#[must_use]
pub fn element(text: &str) -> Option<(u32, SocketAddr)> {
    let (label, addr) = text.trim().split_once(" : ")?;
    let (ip, port) = addr.split_once(" . ")?;
    Some((self::label(label)?, SocketAddr::new(ip.trim().parse().ok()?, port.trim().parse().ok()?)))
}

/// A `classid` as nft prints it: a zero half is left out or not, and two values have names.
fn label(text: &str) -> Option<u32> {
    let half = |text: &str| if text.is_empty() { Some(0) } else { u16::from_str_radix(text, 16).ok() };
    match text.trim() {
        "none" => Some(0),
        "root" => Some(u32::MAX),
        text => {
            let (major, minor) = text.split_once(':')?;
            Some(u32::from(half(major)?) << 16 | u32::from(half(minor)?))
        }
    }
}

#[cfg(test)]
mod tests;

//! Rules that open the connections of clients that have proved their address to XDP by a SYN cookie, by the kernel's
//! synproxy (`net/netfilter/nf_synproxy_core.c`).
//!
//! The packet that brings the cookie carries its label with [`Label::HANDSHAKE`]. Conntrack must not take it for a
//! connection (`early`). What synproxy sends to the backend in its place comes out of the host itself, as a SYN from the
//! client to the frontend, without label or mark; so the label is remembered by addresses and ports for a moment
//! (`verdict`), and given back on the way out (`resume`), where it is translated as any other. From then on conntrack has
//! the connection, and translates sequence numbers too.

use datapath::{
    abi::{Label, MASQUERADE_MARK},
    guard::cookie::{MSS, WINDOW_SCALE},
};

use super::Family;

/// For how long a label is remembered: from one hook of the kernel to another, and for whoever wants to look.
const REMEMBERED: &str = "2s";
/// How many there may be at a time.
const ROOM: u32 = 65_536;

/// Chains and where they hook in, the last one nowhere.
pub(super) const CHAINS: [(&str, &str); 5] = [
    ("early", "type filter hook prerouting priority raw; policy accept;"),
    ("proxy_forward", "type filter hook forward priority -200; policy accept;"),
    ("proxy_input", "type filter hook input priority -200; policy accept;"),
    ("resume", "type nat hook output priority -100; policy accept;"),
    ("resumed", ""),
];

/// Name and definition of the map of a family.
pub(super) fn map(family: Family) -> (&'static str, String) {
    let (name, addr) = match family {
        Family::V4 => ("handshakes4", "ipv4_addr"),
        Family::V6 => ("handshakes6", "ipv6_addr"),
    };
    let definition = format!(
        "type {addr} . inet_service . {addr} . inet_service : classid; flags dynamic,timeout; timeout {REMEMBERED}; \
         size {ROOM};"
    );
    (name, definition)
}

/// Labels of such packets.
pub(super) fn labels() -> String {
    format!("{}-{}", Label(Label::HANDSHAKE | Label::FIRST), Label(2 * Label::HANDSHAKE - 1))
}

fn key(family: Family) -> &'static str {
    match family {
        Family::V4 => "ip saddr . tcp sport . ip daddr . tcp dport",
        Family::V6 => "ip6 saddr . tcp sport . ip6 daddr . tcp dport",
    }
}

const fn keyword(family: Family) -> &'static str {
    match family {
        Family::V4 => "ipv4",
        Family::V6 => "ipv6",
    }
}

/// Chain and rule, those of a chain in order.
pub(super) fn rules() -> Vec<(&'static str, String)> {
    let labels = labels();
    let mut rules = vec![("early", format!("meta priority {labels} notrack"))];
    let mut rule = |chain, rule| rules.push((chain, rule));
    let masquerade = Label(Label::HANDSHAKE | Label::HANDSHAKE_MASQUERADE);
    let last = Label(2 * Label::HANDSHAKE - 1);
    rule("resumed", format!("meta priority {masquerade}-{last} meta mark set meta mark | {MASQUERADE_MARK:#x}"));
    let id = Label(Label::HANDSHAKE_MASQUERADE - 1);
    rule("resumed", format!("meta priority set meta priority & {id}"));
    for family in Family::ALL {
        let ((map, _), key, keyword) = (map(family), key(family), keyword(family));
        let mss = MSS[usize::from(family == Family::V6)];
        // Where there is no room the packet stays untranslated, and is dropped as such.
        rule(
            "verdict",
            format!(
                "meta priority {labels} meta nfproto {keyword} meta l4proto tcp update @{map} {{ {key} : meta priority }}"
            ),
        );
        // IPv4's forwarding has overwritten the label.
        for chain in ["proxy_forward", "proxy_input"] {
            rule(
                chain,
                format!(
                    "ct state untracked meta nfproto {keyword} meta l4proto tcp {key} @{map} synproxy mss {mss} wscale \
                     {WINDOW_SCALE} timestamp sack-perm"
                ),
            );
        }
        // A process could set such a priority itself, but not send from an address of others.
        rule(
            "resume",
            format!(
                "meta nfproto {keyword} meta l4proto tcp tcp flags & (syn | ack) == syn fib saddr type != local meta \
                 priority set {key} map @{map}"
            ),
        );
        let ip = if family == Family::V4 { "ip" } else { "ip6" };
        let backends = family.map();
        rule(
            "resumed",
            format!("meta nfproto {keyword} meta l4proto tcp dnat {ip} to meta priority map @{backends}"),
        );
    }
    rule("resume", format!("meta priority {labels} goto resumed"));
    rules
}

/// Rules at the start of `settle` and `masquerading`.
pub(super) fn settle(counter: &str) -> [String; 2] {
    let [v4, v6] = Family::ALL.map(|family| format!("{} @{}", key(family), map(family).0));
    let labels = labels();
    [v4, v6].map(|remembered| format!("meta priority {labels} meta l4proto tcp {remembered} counter name {counter} accept"))
}

/// The label ends where the packet that it was given back to is about to leave.
pub(super) fn end() -> String {
    let (first, last) = (Label(Label::FIRST), Label(Label::RESERVED - 1));
    format!("meta priority {first}-{last} ct status dnat fib saddr type != local meta priority set {}", Label::NONE)
}

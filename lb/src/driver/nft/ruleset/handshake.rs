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

use super::map as backends_of;
use crate::model::Family;

/// For how long a label is remembered: from one hook of the kernel to another, and for whoever wants to look.
const REMEMBERED: &str = "2s";
/// How many there may be at a time.
const ROOM: u32 = 65_536;

/// Chains and where they hook in, the last ones nowhere.
pub(super) const CHAINS: [(&str, &str); 6] = [
    ("early", "type filter hook prerouting priority raw; policy accept;"),
    ("proxy_forward", "type filter hook forward priority -200; policy accept;"),
    ("proxy_input", "type filter hook input priority -200; policy accept;"),
    ("resume", "type nat hook output priority -100; policy accept;"),
    ("resumed", ""),
    ("proxied", ""),
];

/// The map that labels are remembered in.
pub(super) const MAP: &str = "handshakes";

/// Its definition.
pub(super) fn map() -> String {
    let key = key(Family::V4);
    format!("typeof {key} : meta priority; flags dynamic,timeout; timeout {REMEMBERED}; size {ROOM};")
}

/// Labels of such packets.
pub(super) fn labels() -> String {
    format!("{}-{}", Label(Label::HANDSHAKE | Label::FIRST), Label(2 * Label::HANDSHAKE - 1))
}

/// What a label is remembered by: both IPv4 addresses, or the half of the client's IPv6 address that is the host's, and both
/// ports, as they lie in the headers. nft 1.0.6 breaks off over a longer key of a map that rules write
/// (`netlink_linearize.c`, `netlink_gen_expr`). Two IPv6 clients with one key would have to be there within the
/// microseconds from one hook to the other.
const fn key(family: Family) -> &'static str {
    match family {
        Family::V4 => "@nh,96,64 . @th,0,32",
        Family::V6 => "@nh,128,64 . @th,0,32",
    }
}

const fn ip(family: Family) -> &'static str {
    match family {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    }
}

const fn keyword(family: Family) -> &'static str {
    match family {
        Family::V4 => "ipv4",
        Family::V6 => "ipv6",
    }
}

/// Chain and rule, those of a chain in order; `lost` counts what cannot be translated.
pub(super) fn rules(lost: &str) -> Vec<(&'static str, String)> {
    let labels = labels();
    let (bits, handshake) = (Label(Label::HANDSHAKE | !(2 * Label::HANDSHAKE - 1)), Label(Label::HANDSHAKE));
    let mut rules = vec![("early", format!("meta priority & {bits} == {handshake} notrack"))];
    let mut rule = |chain, rule| rules.push((chain, rule));
    // IPv4's forwarding has overwritten the label.
    for chain in ["proxy_forward", "proxy_input"] {
        rule(chain, "ct state untracked goto proxied".to_owned());
    }
    let masquerade = Label(Label::HANDSHAKE | Label::HANDSHAKE_MASQUERADE);
    let last = Label(2 * Label::HANDSHAKE - 1);
    rule(
        "resumed",
        format!("meta priority {masquerade}-{last} meta mark set meta mark | {MASQUERADE_MARK:#x}"),
    );
    let id = Label(Label::HANDSHAKE_MASQUERADE - 1);
    rule("resumed", format!("meta priority set meta priority & {id}"));
    for family in Family::ALL {
        let (key, keyword) = (key(family), keyword(family));
        let mss = MSS[usize::from(family == Family::V6)];
        // Where there is no room the packet stays untranslated, and is dropped as such.
        rule(
            "verdict",
            format!(
                "meta priority {labels} meta nfproto {keyword} meta l4proto tcp tcp flags & (syn | ack) != syn update \
                 @{MAP} {{ {key} : meta priority }}"
            ),
        );
        rule(
            "proxied",
            format!(
                "meta nfproto {keyword} meta l4proto tcp {key} @{MAP} synproxy mss {mss} wscale {WINDOW_SCALE} \
                 timestamp sack-perm"
            ),
        );
        // Of SYNs there is nothing to remember, and there may be too many of them for the map.
        rule(
            "proxied",
            format!(
                "meta nfproto {keyword} meta l4proto tcp meta mark & {MASQUERADE_MARK:#x} == {MASQUERADE_MARK:#x} tcp \
                 flags & (syn | ack) == syn synproxy mss {mss} wscale {WINDOW_SCALE} timestamp sack-perm"
            ),
        );
        // A process could set such a priority itself, but not send from an address of others.
        rule(
            "resume",
            format!(
                "meta nfproto {keyword} meta l4proto tcp tcp flags & (syn | ack) == syn fib saddr type != local meta \
                 priority set {key} map @{MAP}"
            ),
        );
        let (ip, backends) = (ip(family), backends_of(family));
        // It makes room, and a client may use the same port for another connection.
        rule(
            "resumed",
            format!("meta nfproto {keyword} meta l4proto tcp delete @{MAP} {{ {key} : meta priority }}"),
        );
        rule(
            "resumed",
            format!("meta nfproto {keyword} meta l4proto tcp dnat {ip} to meta priority map @{backends}"),
        );
    }
    rule("resumed", format!("counter name {lost} drop"));
    rule("resume", format!("meta priority {labels} goto resumed"));
    rules
}

/// Rules at the start of `peculiar`: such packets go on untranslated, if their label is remembered.
pub(super) fn settle(counter: &str) -> [String; 3] {
    let labels = labels();
    let [v4, v6] = Family::ALL.map(|family| {
        let (key, keyword) = (key(family), keyword(family));
        format!(
            "meta priority {labels} meta nfproto {keyword} meta l4proto tcp {key} @{MAP} counter name {counter} accept"
        )
    });
    let syn = format!(
        "meta priority {labels} meta l4proto tcp tcp flags & (syn | ack) == syn counter name {counter} accept"
    );
    [v4, v6, syn]
}

/// Rule at the start of `masquerading`: the label ends where the packet that it was given back to is about to leave.
pub(super) fn end(labels: Label, peculiar: Label) -> String {
    let none = Label::NONE;
    format!(
        "meta priority & {labels} != {none} meta priority & {peculiar} == {none} ct status dnat fib saddr type != local \
         meta priority set {none}"
    )
}

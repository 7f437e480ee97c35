//! Rules that open the connections of clients that have proved their address to XDP by a SYN cookie, by the kernel's
//! synproxy (`net/netfilter/nf_synproxy_core.c`).
//!
//! The packet that brings the cookie carries its label with [`Label::HANDSHAKE`]. Conntrack must not take it for a
//! connection (`early`). What synproxy sends to the backend in its place comes out of the host itself, as a SYN from the
//! client to the frontend, without label or mark; so the label is remembered by addresses and ports for a moment
//! (`verdict`), and given back on the way out (`resume`), where it is translated as any other. From then on conntrack has
//! the connection, and translates sequence numbers too.

use std::time::Duration;

use datapath::{
    abi::{Label, MASQUERADE_MARK, TCP},
    guard::cookie::{MSS, WINDOW_SCALE},
};
use netlink_packet_netfilter::nftables::{InetHookNumber, Register};

use super::{
    super::expression::{self as part, Dynamic, Is, Part, state, status},
    Chain, Map, Rule,
    declaration::{Remembers, Type},
    map as backends_of,
};
use crate::model::Family;

/// For how long a label is remembered: from one hook of the kernel to another, and for whoever wants to look.
const REMEMBERED: Duration = Duration::from_secs(2);
/// How many there may be at a time.
const ROOM: u32 = 65_536;

/// Chains and where they hook in, the last ones nowhere.
pub(super) const CHAINS: [Chain; 6] = [
    Chain::filter("early", InetHookNumber::PreRouting, libc::NF_IP_PRI_RAW),
    Chain::filter("proxy_forward", InetHookNumber::Forward, -200),
    Chain::filter("proxy_input", InetHookNumber::LocalIn, -200),
    Chain::nat("resume", InetHookNumber::LocalOut, -100),
    Chain::called("resumed"),
    Chain::called("proxied"),
];

/// The map that labels are remembered in.
pub(super) const MAP: &str = "handshakes";

/// `typeof @nh,96,64 . @th,0,32 : meta priority; flags dynamic,timeout; timeout 2s; size 65536;`
pub(super) fn map() -> Map {
    let key = vec![
        Type::Header { base: part::NETWORK, bits_from: 96, bits: 64 },
        Type::Header { base: part::TRANSPORT, bits_from: 0, bits: 32 },
    ];
    let remembers = Some(Remembers { timeout: REMEMBERED, size: ROOM });
    Map { name: MAP, key, data: vec![Type::Priority], remembers }
}

/// The bits that labels of such packets are known by, and what they are there.
const LABELS: (Label, Label) = (
    Label(!(2 * Label::HANDSHAKE - 1) | Label::HANDSHAKE | Label::SCHEMA.0),
    Label(Label::HANDSHAKE | Label::OURS.0),
);
/// Likewise of those to be masqueraded.
const MASQUERADED: (Label, Label) =
    (Label(LABELS.0.0 | Label::HANDSHAKE_MASQUERADE), Label(LABELS.1.0 | Label::HANDSHAKE_MASQUERADE));

/// A match of the priority, in nft's language.
fn text((bits, value): (Label, Label)) -> String {
    format!("meta priority & {bits} == {value}")
}

/// The same as the kernel is sent it.
fn test((bits, value): (Label, Label)) -> Part {
    part::priority(bits.0, Is::Equal(value.0))
}

/// What a label is remembered by: both IPv4 addresses, or the half of the client's IPv6 address that is the host's, and both
/// ports, as they lie in the headers. nft 1.0.6 breaks off over a longer key of a map that rules write
/// (`netlink_linearize.c`, `netlink_gen_expr`), and somebody may restore a listing with it. Two IPv6 clients with one key
/// would have to be there within the microseconds from one hook to the other.
const fn key(family: Family) -> &'static str {
    match family {
        Family::V4 => "@nh,96,64 . @th,0,32",
        Family::V6 => "@nh,128,64 . @th,0,32",
    }
}

/// The same, put into the registers.
fn load_key(family: Family) -> Part {
    let offset = match family {
        Family::V4 => 12,
        Family::V6 => 16,
    };
    vec![
        part::header(part::NETWORK, offset, 8, Register::Reg1),
        part::header(part::TRANSPORT, 0, 4, Register::Reg32_02),
    ]
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

/// Rules of all chains, those of a chain in order; `lost` counts what cannot be translated.
pub(super) fn rules(lost: &str) -> Vec<Rule> {
    let labels = text(LABELS);
    let mut rules = Vec::new();
    let mut rule = |chain, text, parts| rules.push(Rule { chain, text, parts });
    rule("early", format!("{labels} notrack"), vec![test(LABELS), part::notrack()]);
    // IPv4's forwarding has overwritten the label.
    for chain in ["proxy_forward", "proxy_input"] {
        rule(
            chain,
            "ct state untracked goto proxied".to_owned(),
            vec![part::ct_state(state::UNTRACKED), part::goto("proxied")],
        );
    }
    rule(
        "resumed",
        format!("{} meta mark set meta mark | {MASQUERADE_MARK:#x}", text(MASQUERADED)),
        vec![test(MASQUERADED), part::set_mark_bits(MASQUERADE_MARK)],
    );
    let id = Label(Label::HANDSHAKE_MASQUERADE - 1);
    rule("resumed", format!("meta priority set meta priority & {id}"), vec![part::mask_priority(id.0)]);
    for family in Family::ALL {
        let (key, keyword) = (key(family), keyword(family));
        let tcp = [part::family(family), part::protocol(TCP)].concat();
        let mss = MSS[usize::from(family == Family::V6)];
        // Where there is no room the packet stays untranslated, and is dropped as such.
        rule(
            "verdict",
            format!(
                "{labels} meta nfproto {keyword} meta l4proto tcp tcp flags & (syn | ack) != syn update \
                 @{MAP} {{ {key} : meta priority }}"
            ),
            vec![
                test(LABELS),
                tcp.clone(),
                part::syn_without_ack(false),
                load_key(family),
                part::remember(Dynamic::Update, MAP),
            ],
        );
        rule(
            "proxied",
            format!(
                "meta nfproto {keyword} meta l4proto tcp {key} @{MAP} synproxy mss {mss} wscale {WINDOW_SCALE} \
                 timestamp sack-perm"
            ),
            vec![tcp.clone(), load_key(family), part::is_in(MAP), part::synproxy(mss, WINDOW_SCALE)],
        );
        // Of SYNs there is nothing to remember, and there may be too many of them for the map.
        rule(
            "proxied",
            format!(
                "meta nfproto {keyword} meta l4proto tcp meta mark & {MASQUERADE_MARK:#x} == {MASQUERADE_MARK:#x} tcp \
                 flags & (syn | ack) == syn synproxy mss {mss} wscale {WINDOW_SCALE} timestamp sack-perm"
            ),
            vec![
                tcp.clone(),
                part::mark(MASQUERADE_MARK, Is::Equal(MASQUERADE_MARK)),
                part::syn_without_ack(true),
                part::synproxy(mss, WINDOW_SCALE),
            ],
        );
        // A process could set such a priority itself, but not send from an address of others.
        rule(
            "resume",
            format!(
                "meta nfproto {keyword} meta l4proto tcp tcp flags & (syn | ack) == syn fib saddr type != local meta \
                 priority set {key} map @{MAP}"
            ),
            vec![
                tcp.clone(),
                part::syn_without_ack(true),
                part::source_is_not_local(),
                load_key(family),
                part::set_priority_from(MAP),
            ],
        );
        let (ip, backends) = (ip(family), backends_of(family));
        // It makes room, and a client may use the same port for another connection.
        rule(
            "resumed",
            format!("meta nfproto {keyword} meta l4proto tcp delete @{MAP} {{ {key} : meta priority }}"),
            vec![tcp.clone(), load_key(family), part::remember(Dynamic::Delete, MAP)],
        );
        rule(
            "resumed",
            format!("meta nfproto {keyword} meta l4proto tcp dnat {ip} to meta priority map @{backends}"),
            vec![tcp, part::destination_from(family, backends)],
        );
    }
    rule("resumed", format!("counter name {lost} drop"), vec![part::count(lost), part::discard()]);
    rule("resume", format!("{labels} goto resumed"), vec![test(LABELS), part::goto("resumed")]);
    rules
}

/// Rules at the start of `peculiar`: such packets go on untranslated, if their label is remembered.
pub(super) fn settle(counter: &str) -> [Rule; 3] {
    let labels = text(LABELS);
    let [v4, v6] = Family::ALL.map(|family| {
        let (key, keyword) = (key(family), keyword(family));
        let text = format!(
            "{labels} meta nfproto {keyword} meta l4proto tcp {key} @{MAP} counter name {counter} accept"
        );
        let parts = vec![
            test(LABELS),
            part::family(family),
            part::protocol(TCP),
            load_key(family),
            part::is_in(MAP),
            part::count(counter),
            part::accept(),
        ];
        Rule { chain: "peculiar", text, parts }
    });
    let text =
        format!("{labels} meta l4proto tcp tcp flags & (syn | ack) == syn counter name {counter} accept");
    let parts = vec![
        test(LABELS),
        part::protocol(TCP),
        part::syn_without_ack(true),
        part::count(counter),
        part::accept(),
    ];
    [v4, v6, Rule { chain: "peculiar", text, parts }]
}

/// Rule at the start of `masquerading`: the label ends where the packet that it was given back to is about to leave.
pub(super) fn end() -> Rule {
    let none = Label::NONE;
    let backend = (Label(Label::PECULIAR.0 | Label::SCHEMA.0), Label::OURS);
    Rule {
        chain: "masquerading",
        text: format!("{} ct status dnat fib saddr type != local meta priority set {none}", text(backend)),
        parts: vec![
            test(backend),
            part::ct_status(status::DNAT, Is::Not(0)),
            part::source_is_not_local(),
            part::set_priority(none.0),
        ],
    }
}

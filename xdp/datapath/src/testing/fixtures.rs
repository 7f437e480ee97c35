use std::net::{IpAddr, SocketAddr};

use super::{Extension, Family, Layers, MemoryTables, arp, ethernet};
use crate::{
    abi::{
        Addr, CLASSES, CLUSTER_IP, Choice, Chunk, Counter, Frontend, FrontendKey, LOCAL, Label, MASQUERADE,
        MASQUERADE_MARK, NODE_PORT, POD_NETWORK, REFUSE, RESTRICTED, SERVICE_NETWORK, SMALL_SLOTS, Source,
        SourceRange, TCP, UDP, VIP, WITHHOLD,
    },
    decide::Decision,
};

/// A frame and what must be decided about it.
#[derive(Clone, Debug)]
pub struct Fixture {
    /// Family, protocol and case.
    pub name: String,
    /// From the Ethernet header on.
    pub frame: Vec<u8>,
    /// The decision under [`tables`].
    pub expected: Decision,
}

/// Ports of the VIP, each served in another way, and the `NodePorts`.
#[expect(missing_docs, reason = "the names say it")]
pub mod port {
    pub const CLIENT: u16 = 40_000;
    /// The first backend for clients outside, the second for this host, masqueraded, the third for its pods.
    pub const PLAIN: u16 = 80;
    /// The same with masquerading; from within too.
    pub const MASQUERADED: u16 = 81;
    /// All backends.
    pub const SPREAD: u16 = 82;
    pub const REFUSED: u16 = 83;
    pub const WITHHELD: u16 = 84;
    /// The frontend names a table that does not exist.
    pub const NO_TABLE: u16 = 85;
    /// A table of no slots.
    pub const NO_SLOTS: u16 = 86;
    /// A table whose slots hold no backend.
    pub const EMPTY_SLOTS: u16 = 87;
    /// A small one whose slots hold none.
    pub const EMPTIED: u16 = 94;
    /// A table that ends before its last slot.
    pub const TORN: u16 = 88;
    /// A table whose slots hold a backend that does not exist.
    pub const NO_BACKEND: u16 = 89;
    pub const UNSERVED: u16 = 90;
    /// All backends, each client stays with its own for an hour: that of the first fixture of its family.
    pub const STICKY: u16 = 91;
    /// The same, of a larger table.
    pub const STICKY_LARGER: u16 = 95;
    /// The first backend, for the client alone.
    pub const RESTRICTED: u16 = 92;
    /// There would be nothing to reach anyway.
    pub const RESTRICTED_REFUSED: u16 = 93;
    pub const NODE: u16 = 30_080;
    pub const NODE_REFUSED: u16 = 30_081;
    pub const NODE_WITHHELD: u16 = 30_082;
}

/// Slots of the tables with all backends: a prime, and more than one chunk.
const SLOTS: usize = 211;
/// Id of a backend that does not exist.
const GONE: u32 = 99;

/// Tables of one family start at its first backend's id times this.
const TABLES: u32 = 100;

/// The maps that [`fixtures`] are decided with.
#[must_use]
pub fn tables() -> MemoryTables {
    let mut tables = MemoryTables::default();
    for family in &Family::ALL {
        fill(&mut tables, family);
    }
    tables
}

fn fill(tables: &mut MemoryTables, family: &Family) {
    let ids = family.ids;
    for (id, backend) in ids.iter().zip(family.backends) {
        tables.backends.insert(*id, SocketAddr::new(backend, 8_080).into());
    }
    tables.addresses.insert(family.node.into(), NODE_PORT | LOCAL);
    tables.addresses.insert(family.private.into(), LOCAL);
    tables.addresses.insert(family.cluster_ip.into(), CLUSTER_IP);
    tables.addresses.insert(family.vip.into(), VIP);
    let [services, pods] = family.networks();
    tables.networks.insert(services, SERVICE_NETWORK);
    tables.networks.insert(pods, POD_NETWORK);
    for port in [port::RESTRICTED, port::RESTRICTED_REFUSED] {
        let source = Source { service: port.into(), addr: family.client.into() };
        tables.source_ranges.insert(SourceRange { length: 160, source });
    }

    let first = ids[0] * TABLES;
    let [plain, inside, third, spread, sticky, no_slots, empty_slots, emptied, torn, gone, none] =
        std::array::from_fn(|i| first + i as u32);
    tables.put_table(plain, &[ids[0]; SMALL_SLOTS as usize]);
    tables.put_table(inside, &[ids[1]; 5]);
    tables.put_table(third, &[ids[2]; 5]);
    tables.put_table(spread, &std::array::from_fn::<_, SLOTS, _>(|slot| ids[slot % ids.len()]));
    tables.put_table(
        sticky,
        &std::array::from_fn::<_, { SMALL_SLOTS as usize }, _>(|slot| ids[slot % ids.len()]),
    );
    tables.put_table(no_slots, &[]);
    tables.put_table(empty_slots, &[0; 5]);
    tables.put_table(emptied, &[0; SMALL_SLOTS as usize]);
    tables.put_table(gone, &[GONE; 5]);
    let mut chunk = Chunk([ids[0]; _]);
    chunk.0[0] = u32::MAX;
    tables.tables.insert(torn, vec![chunk]);

    let choice = |table, flags| Choice { table, flags };
    let all = |choice| Frontend { outside: choice, pod: choice, host: choice, ..Frontend::default() };
    let by_class = Frontend {
        flags: CLASSES,
        outside: choice(plain, 0),
        pod: choice(third, 0),
        host: choice(inside, MASQUERADE),
        ..Frontend::default()
    };
    let restricted = |frontend| Frontend { flags: RESTRICTED, ..frontend };
    let vip = [
        (port::PLAIN, by_class),
        (port::MASQUERADED, all(choice(plain, MASQUERADE))),
        (port::SPREAD, all(choice(spread, 0))),
        (port::STICKY, Frontend { affinity: 3_600, ..all(choice(sticky, 0)) }),
        (port::STICKY_LARGER, Frontend { affinity: 3_600, ..all(choice(spread, 0)) }),
        (port::RESTRICTED, restricted(all(choice(plain, 0)))),
        (port::RESTRICTED_REFUSED, restricted(all(choice(0, REFUSE)))),
        (port::REFUSED, all(choice(0, REFUSE))),
        (port::WITHHELD, all(choice(0, WITHHOLD))),
        (port::NO_TABLE, all(choice(none, 0))),
        (port::NO_SLOTS, all(choice(no_slots, 0))),
        (port::EMPTY_SLOTS, all(choice(empty_slots, 0))),
        (port::EMPTIED, all(choice(emptied, 0))),
        (port::TORN, all(choice(torn, 0))),
        (port::NO_BACKEND, all(choice(gone, 0))),
    ]
    .map(|(port, frontend)| (Addr::from(family.vip), port, frontend));
    let node_ports = [
        (port::NODE, Frontend { outside: choice(plain, MASQUERADE), ..by_class }),
        (port::NODE_REFUSED, all(choice(0, REFUSE))),
        (port::NODE_WITHHELD, all(choice(0, WITHHOLD))),
    ]
    .map(|(port, frontend)| (family.any(), port, frontend));
    // An external IP that is an address of the node, and a cluster IP.
    let others = [family.node, family.cluster_ip].map(|addr| (Addr::from(addr), port::PLAIN, by_class));

    for (addr, port, frontend) in vip.into_iter().chain(node_ports).chain(others) {
        for protocol in [TCP, UDP] {
            let key = FrontendKey::new(addr, port.to_be_bytes(), protocol);
            tables.frontends.insert(key, Frontend { service: u32::from(port), ..frontend });
        }
    }
}

/// All frames with their decisions under [`tables`].
#[must_use]
pub fn fixtures() -> Vec<Fixture> {
    let mut all = Vec::new();
    for family in &Family::ALL {
        for protocol in [TCP, UDP] {
            let cases = Cases { family, protocol };
            for (name, frame, expected) in
                [cases.served(), cases.links(), cases.headers(), cases.broken()].into_iter().flatten()
            {
                let transport = if protocol == TCP { "tcp" } else { "udp" };
                all.push(Fixture { name: format!("{} {transport}: {name}", family.name), frame, expected });
            }
        }
    }
    all.extend(not_ip());
    all
}

/// A frame with some bytes overwritten and cut to a length, as far as it has them.
#[must_use]
pub fn mutated(frame: &[u8], edits: &[(usize, u8)], length: usize) -> Vec<u8> {
    let mut frame = frame.to_vec();
    for (offset, value) in edits {
        if let Some(byte) = frame.get_mut(*offset) {
            *byte = *value;
        }
    }
    frame.truncate(length);
    frame
}

type Case = (String, Vec<u8>, Decision);

const PASS: fn(Counter) -> Decision = Decision::pass;
const REJECT: Decision = reject(Counter::Refuse);
const NO_BACKEND: Decision = drop(Counter::NoBackend);

const fn drop(counter: Counter) -> Decision {
    Decision { counter, label: Label::DROP, mark: 0 }
}

const fn reject(counter: Counter) -> Decision {
    Decision { counter, label: Label::REJECT, mark: 0 }
}

const fn forward(id: u32) -> Decision {
    Decision { counter: Counter::Forward, label: Label::backend(id), mark: 0 }
}

const fn masqueraded(id: u32) -> Decision {
    Decision { counter: Counter::Forward, label: Label::backend(id), mark: MASQUERADE_MARK }
}

struct Cases<'a> {
    family: &'a Family,
    protocol: u8,
}

/// Where the network header of an untagged frame begins.
const NETWORK: usize = 14;

impl Cases<'_> {
    fn between(&self, src: IpAddr, dst: IpAddr, port: u16) -> Layers {
        Layers::new(self.protocol, SocketAddr::new(src, port::CLIENT), SocketAddr::new(dst, port))
    }

    /// From the client to the VIP's port for the first backend.
    fn plain(&self) -> Layers {
        self.between(self.family.client, self.family.vip, port::PLAIN)
    }

    /// What frontends do.
    fn served(&self) -> Vec<Case> {
        let Family {
            client, vip, node, private, cluster_ip, unallocated, pod, elsewhere, backends, ids, ..
        } = *self.family;
        let none = PASS(Counter::NoFrontend);
        let mut cases: Vec<Case> = [
            ("VIP", vip, port::PLAIN, forward(ids[0])),
            ("VIP, masqueraded", vip, port::MASQUERADED, masqueraded(ids[0])),
            ("VIP, several backends", vip, port::SPREAD, forward(self.spread())),
            ("VIP, refused", vip, port::REFUSED, REJECT),
            ("VIP, withheld", vip, port::WITHHELD, drop(Counter::Withhold)),
            ("VIP, missing table", vip, port::NO_TABLE, NO_BACKEND),
            ("VIP, table of no slots", vip, port::NO_SLOTS, NO_BACKEND),
            ("VIP, table of empty slots", vip, port::EMPTY_SLOTS, NO_BACKEND),
            ("VIP, small table of empty slots", vip, port::EMPTIED, NO_BACKEND),
            ("VIP, torn table", vip, port::TORN, NO_BACKEND),
            // Not looked up here: `table inet portico` counts and drops a label without an element.
            ("VIP, missing backend", vip, port::NO_BACKEND, forward(GONE)),
            ("VIP, unserved port", vip, port::UNSERVED, PASS(Counter::UnservedVip)),
            ("VIP, port of a NodePort", vip, port::NODE, PASS(Counter::UnservedVip)),
            ("NodePort", node, port::NODE, masqueraded(ids[0])),
            ("NodePort, refused", node, port::NODE_REFUSED, REJECT),
            ("NodePort, withheld", node, port::NODE_WITHHELD, drop(Counter::Withhold)),
            ("NodePort, unserved port", node, port::UNSERVED, none),
            ("NodePort, on a node address without", private, port::NODE, none),
            ("NodePort, on another's address", elsewhere, port::NODE, none),
            ("external IP on a node address", node, port::PLAIN, forward(ids[0])),
            ("backend directly", backends[0], 8_080, none),
            ("VIP, session affinity", vip, port::STICKY, forward(self.sticky())),
            ("VIP, session affinity, larger table", vip, port::STICKY_LARGER, forward(ids[1])),
            ("VIP, from within the source ranges", vip, port::RESTRICTED, forward(ids[0])),
            ("VIP, from within the source ranges, refused", vip, port::RESTRICTED_REFUSED, REJECT),
            ("cluster IP", cluster_ip, port::PLAIN, forward(ids[0])),
            ("cluster IP, unserved port", cluster_ip, port::UNSERVED, reject(Counter::UnservedPort)),
            ("cluster IP, port of a NodePort", cluster_ip, port::NODE, reject(Counter::UnservedPort)),
            ("cluster IP of no Service", unallocated, port::PLAIN, drop(Counter::Unallocated)),
        ]
        .map(|(name, dst, port, expected)| {
            (name.to_owned(), self.between(client, dst, port).frame(), expected)
        })
        .into();
        let denied = drop(Counter::SourceRange);
        let sources = [
            ("a pod", pod, vip, port::PLAIN, forward(ids[2])),
            ("a pod, NodePort", pod, node, port::NODE, forward(ids[2])),
            ("a pod, cluster IP", pod, cluster_ip, port::PLAIN, forward(ids[2])),
            ("this host", node, vip, port::PLAIN, masqueraded(ids[1])),
            ("this host, address without NodePorts", private, vip, port::PLAIN, masqueraded(ids[1])),
            ("outside the source ranges", elsewhere, vip, port::RESTRICTED, denied),
            ("a pod outside the source ranges", pod, vip, port::RESTRICTED, denied),
            ("this host outside the source ranges", node, vip, port::RESTRICTED, denied),
            ("outside the source ranges, refused", elsewhere, vip, port::RESTRICTED_REFUSED, denied),
        ];
        cases.extend(sources.map(|(name, src, dst, port, expected)| {
            (format!("from {name}"), self.between(src, dst, port).frame(), expected)
        }));
        let hairpin = |backend: usize| self.between(backends[backend], vip, port::PLAIN).frame();
        cases.push(("a backend to itself".to_owned(), hairpin(0), masqueraded(ids[0])));
        cases.push(("a backend to another".to_owned(), hairpin(1), forward(ids[0])));
        // Whether a packet opens a connection is for conntrack to know.
        let established = self.plain().established().frame();
        cases.push(("middle of a connection".to_owned(), established, forward(ids[0])));
        // The client's side of a connection that a backend opened, and replies on their way out.
        let reply = self.between(vip, client, port::PLAIN).frame();
        cases.push(("from the VIP".to_owned(), reply, none));
        cases
    }

    /// The backend of [`port::SPREAD`], which changes only with the hash or the layout of a table.
    const fn spread(&self) -> u32 {
        let [first, second, third] = self.family.ids;
        match (self.family.client, self.protocol) {
            (IpAddr::V4(_), _) => second,
            (IpAddr::V6(_), TCP) => first,
            (IpAddr::V6(_), _) => third,
        }
    }

    /// Likewise of [`port::STICKY`], for the first protocol.
    const fn sticky(&self) -> u32 {
        let [first, second, _] = self.family.ids;
        if self.family.client.is_ipv4() { first } else { second }
    }

    /// What comes before the network header.
    fn links(&self) -> Vec<Case> {
        let ours = forward(self.family.ids[0]);
        let (customer, service) = (false, true);
        let tagged = |tags: &[bool]| tags.iter().fold(self.plain(), |layers, tag| layers.tag(*tag)).frame();
        let short = PASS(Counter::Malformed);
        vec![
            ("VLAN".to_owned(), tagged(&[customer]), ours),
            ("802.1ad service tag alone".to_owned(), tagged(&[service]), ours),
            ("QinQ".to_owned(), tagged(&[service, customer]), ours),
            ("QinQ of two customer tags".to_owned(), tagged(&[customer, customer]), ours),
            ("three tags".to_owned(), tagged(&[service, customer, customer]), PASS(Counter::TooDeep)),
            ("no frame at all".to_owned(), Vec::new(), short),
            ("Ethernet header cut short".to_owned(), self.cut(NETWORK - 1), short),
            ("nothing after the Ethernet header".to_owned(), self.cut(NETWORK), short),
            ("VLAN tag cut short".to_owned(), tagged(&[customer])[..NETWORK + 3].to_vec(), short),
            ("second tag cut short".to_owned(), tagged(&[service, customer])[..NETWORK + 7].to_vec(), short),
            (
                "nothing after the tags".to_owned(),
                tagged(&[service, customer])[..NETWORK + 8].to_vec(),
                short,
            ),
        ]
    }

    fn cut(&self, length: usize) -> Vec<u8> {
        mutated(&self.plain().frame(), &[], length)
    }

    const fn header(&self) -> usize {
        match self.family.client {
            IpAddr::V4(_) => 20,
            IpAddr::V6(_) => 40,
        }
    }

    /// Options, extension headers, fragments, other protocols.
    fn headers(&self) -> Vec<Case> {
        let Family { client, cluster_ip, unallocated, .. } = *self.family;
        let ours = forward(self.family.ids[0]);
        let mut cases = vec![
            ("first fragment".to_owned(), self.plain().fragment(0).frame(), ours),
            ("later fragment".to_owned(), self.plain().fragment(1).frame(), PASS(Counter::Fragment)),
            (
                "last possible fragment".to_owned(),
                self.plain().fragment(0x1fff).frame(),
                PASS(Counter::Fragment),
            ),
            ("ICMP error".to_owned(), self.plain().icmp_error().frame(), PASS(Counter::OtherProtocol)),
            (
                "ICMP to a cluster IP".to_owned(),
                self.between(client, cluster_ip, port::PLAIN).icmp_error().frame(),
                reject(Counter::UnservedPort),
            ),
            (
                "ICMP to a cluster IP of no Service".to_owned(),
                self.between(client, unallocated, port::PLAIN).icmp_error().frame(),
                drop(Counter::Unallocated),
            ),
        ];
        if self.family.client.is_ipv4() {
            let options = |words| self.plain().options(words).frame();
            cases.push(("options".to_owned(), options(1), ours));
            cases.push(("all the options there can be".to_owned(), options(10), ours));
            return cases;
        }
        let chain = |extensions: &[Extension]| {
            extensions.iter().fold(self.plain(), |layers, extension| layers.extension(*extension)).frame()
        };
        let each = [
            ("hop-by-hop options", Extension::HopByHop(0)),
            ("long hop-by-hop options", Extension::HopByHop(3)),
            ("routing header", Extension::Routing(2)),
            ("destination options", Extension::Destination(0)),
            ("longest destination options", Extension::Destination(255)),
            ("authentication header", Extension::Authentication(3)),
            ("long authentication header", Extension::Authentication(8)),
        ];
        cases.extend(each.map(|(name, extension)| (name.to_owned(), chain(&[extension]), ours)));
        // The order of RFC 8200 section 4.1.
        let six = [
            Extension::HopByHop(1),
            Extension::Destination(0),
            Extension::Routing(2),
            Extension::Fragment(0),
            Extension::Authentication(3),
            Extension::Destination(1),
        ];
        cases.push(("six extension headers".to_owned(), chain(&six), ours));
        let seven = [six.as_slice(), &[Extension::Destination(0)]].concat();
        cases.push(("seven extension headers".to_owned(), chain(&seven), PASS(Counter::TooDeep)));
        let later = [Extension::HopByHop(0), Extension::Fragment(9)];
        cases.push(("later fragment after options".to_owned(), chain(&later), PASS(Counter::Fragment)));
        cases.extend(six.iter().enumerate().map(|(i, extension)| {
            let frame = chain(&six[..=i]);
            let transport = self.plain().network().len() - self.header();
            let start = chain(&six[..i]).len() - transport;
            (format!("cut short in {extension:?}"), frame[..=start].to_vec(), PASS(Counter::Malformed))
        }));
        cases
    }

    /// Headers cut short or contradictory.
    fn broken(&self) -> Vec<Case> {
        let header = NETWORK + self.header();
        let frame = self.plain().frame();
        let edited = |edits: &[(usize, u8)]| mutated(&frame, edits, frame.len());
        let mut cases = vec![
            ("IP header cut short", self.cut(header - 1)),
            ("nothing after the IP header", self.cut(header)),
            ("ports cut short", self.cut(header + 3)),
            ("IP version 0", edited(&[(NETWORK, frame[NETWORK] & 0x0f)])),
            ("the other IP version", edited(&[(NETWORK, frame[NETWORK] ^ 0x20)])),
        ];
        if self.family.client.is_ipv4() {
            let options = self.plain().options(4).frame();
            cases.extend([
                ("header length 4 words", edited(&[(NETWORK, 0x44)])),
                ("header length 0", edited(&[(NETWORK, 0x40)])),
                ("header length past the end", mutated(&edited(&[(NETWORK, 0x4f)]), &[], header + 8)),
                ("total length 0", edited(&[(NETWORK + 2, 0), (NETWORK + 3, 0)])),
                ("total length in the header", edited(&[(NETWORK + 2, 0), (NETWORK + 3, 19)])),
                ("total length without ports", edited(&[(NETWORK + 2, 0), (NETWORK + 3, 23)])),
                ("options cut short", options[..NETWORK + 20 + 6].to_vec()),
            ]);
        } else {
            let mapped = |addr: usize| {
                let mut frame = frame.clone();
                frame[NETWORK + addr..][..12].copy_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff]);
                frame
            };
            cases.extend([("v4-mapped source", mapped(8)), ("v4-mapped destination", mapped(24))]);
        }
        cases.into_iter().map(|(name, frame)| (name.to_owned(), frame, PASS(Counter::Malformed))).collect()
    }
}

fn not_ip() -> impl Iterator<Item = Fixture> {
    let request = arp(Addr::from(Family::V4.client).v4_bytes(), Addr::from(Family::V4.vip).v4_bytes());
    [
        ("ARP", request),
        ("LLDP", ethernet(0x88cc, &[0; 46])),
        ("IEEE 802.3 length in place of a type", ethernet(46, &[0; 46])),
    ]
    .into_iter()
    .map(|(name, frame)| Fixture { name: name.to_owned(), frame, expected: PASS(Counter::NotIp) })
}

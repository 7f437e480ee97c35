use super::*;

const VIP: &str = "192.0.2.1:53";
const VIP6: &str = "[2001:db8::1]:53";
const NODE: &str = "198.51.100.1:30053";
const NODE6: &str = "[2001:db8:c::1]:30053";
const SERVING: [&str; 2] = ["10.1.0.1:53", "[fd00::1]:53"];
const LOST: [&str; 2] = ["10.1.0.2:53", "[fd00::2]:53"];
const GONE: &str = "10.1.0.9:53";

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn key(text: &str) -> FrontendKey {
    let to = addr(text);
    FrontendKey::new(to.ip().into(), to.port().to_be_bytes(), UDP)
}

fn stale() -> Stale {
    let endpoints: Endpoints = SERVING.into_iter().map(|text| Target::from(addr(text))).collect();
    let frontends = [VIP, VIP6, "0.0.0.0:30053", "[::]:30053"];
    Stale {
        frontends: frontends.into_iter().map(|text| (key(text), Arc::clone(&endpoints))).collect(),
        node_addresses: [NODE, NODE6].into_iter().map(|text| addr(text).ip().into()).collect(),
        gone: BTreeSet::from([addr(GONE)]),
    }
}

#[test]
fn flows() {
    let [lost, lost6] = LOST;
    let [serving, serving6] = SERVING;
    for (to, backend, expected, why) in [
        (VIP, serving, false, "its endpoint serves"),
        (VIP6, serving6, false, "its endpoint serves"),
        (NODE, serving, false, "its endpoint serves"),
        (VIP, lost, true, "its endpoint is none any more"),
        (VIP6, lost6, true, "its endpoint is none any more"),
        (NODE, lost, true, "a NodePort is a frontend on each address of the node"),
        (NODE6, lost6, true, "a NodePort is a frontend on each address of the node"),
        (VIP, "10.1.0.1:54", true, "the endpoint has another port"),
        (VIP, VIP, true, "it was not translated"),
        (NODE6, NODE6, true, "it was not translated"),
        ("192.0.2.1:54", lost, false, "another port of the address is somebody else's"),
        ("198.51.100.7:30053", "198.51.100.7:30053", false, "not an address of the node"),
        ("127.0.0.1:30053", "127.0.0.1:30053", false, "no packet on loopback is translated"),
        ("192.0.2.77:53", GONE, true, "nobody serves its endpoint, whatever it was sent to"),
        (GONE, GONE, false, "somebody sends there directly"),
        (lost, lost, false, "somebody sends there directly"),
    ] {
        assert_eq!(stale().flow(addr(to), addr(backend)), expected, "{to} -> {backend}: {why}");
    }
}

#[test]
fn sockets() {
    let [lost, lost6] = LOST;
    for (to, backend, expected) in [
        (VIP, SERVING[0], false),
        (VIP, lost, true),
        (VIP6, lost6, true),
        (NODE, lost, true),
        ("127.0.0.1:30053", lost, true),
        ("127.0.0.1:30053", SERVING[0], false),
        ("[::1]:30053", lost6, true),
        ("0.0.0.0:30053", lost, true),
        ("[::]:30053", lost6, true),
        ("198.51.100.7:30053", lost, false),
        ("192.0.2.77:53", GONE, true),
        ("192.0.2.77:53", lost, false),
    ] {
        assert_eq!(stale().socket(addr(to), addr(backend)), expected, "{to} -> {backend}");
    }
}

#[test]
fn the_later_of_two_counts() {
    let mut merged = stale();
    let target = Target::from(addr(LOST[0]));
    let by_now =
        Stale { frontends: BTreeMap::from([(key(VIP), Endpoints::from([target]))]), ..Stale::default() };
    merged.merge(by_now);
    assert!(!merged.flow(addr(VIP), addr(LOST[0])));
    assert!(merged.flow(addr(VIP), addr(SERVING[0])));
    assert!(merged.flow(addr(NODE), addr(LOST[0])), "what it is not about stays");
    assert_eq!(merged.touched(), stale().touched());
}

use netlink_packet_core::{DefaultNla, Emitable as _};

use super::*;

fn bytes(attributes: &[(u16, &[u8])]) -> Vec<u8> {
    let attributes: Vec<DefaultNla> =
        attributes.iter().map(|(number, value)| DefaultNla::new(*number, value.to_vec())).collect();
    let mut bytes = vec![0; attributes.as_slice().buffer_len()];
    attributes.as_slice().emit(&mut bytes);
    bytes
}

fn snapshot(messages: &[(Kind, Vec<u8>)]) -> Snapshot {
    let mut snapshot = Snapshot::default();
    for (kind, payload) in messages {
        snapshot.add("portico", *kind, payload).unwrap();
    }
    snapshot
}

fn rule(chain: &[u8], handle: u8, expressions: &[u8]) -> (Kind, Vec<u8>) {
    let handle = [0, 0, 0, 0, 0, 0, 0, handle];
    (Kind::Rule, bytes(&[(1, b"portico\0"), (2, chain), (3, &handle), (4, expressions), (6, &handle)]))
}

#[test]
fn the_order_of_rules_counts_and_no_other() {
    let table = (Kind::Table, bytes(&[(1, b"portico\0"), (2, &[0; 4]), (3, &[0, 0, 0, 9])]));
    let chain = |name: &[u8]| (Kind::Chain, bytes(&[(1, b"portico\0"), (3, name), (6, &[0, 0, 0, 1])]));
    let one = snapshot(&[
        table.clone(),
        chain(b"a\0"),
        chain(b"b\0"),
        rule(b"a\0", 1, b"x"),
        rule(b"a\0", 2, b"y"),
    ]);
    let two = snapshot(&[
        table.clone(),
        chain(b"b\0"),
        chain(b"a\0"),
        rule(b"a\0", 7, b"x"),
        rule(b"a\0", 8, b"y"),
    ]);
    assert!(one.same(&two) && one.exists());
    let swapped = snapshot(&[
        table.clone(),
        chain(b"a\0"),
        chain(b"b\0"),
        rule(b"a\0", 1, b"y"),
        rule(b"a\0", 2, b"x"),
    ]);
    assert!(!one.same(&swapped));
    let elsewhere =
        snapshot(&[table, chain(b"a\0"), chain(b"b\0"), rule(b"a\0", 1, b"x"), rule(b"b\0", 2, b"y")]);
    assert!(!one.same(&elsewhere));
}

#[test]
fn other_tables_are_none_of_ours() {
    let other = (Kind::Table, bytes(&[(1, b"portico2\0"), (2, &[0; 4])]));
    assert!(!snapshot(&[other]).exists());
}

#[test]
fn a_map_is_the_same_however_it_is_printed() {
    let map = |key: u8, description: &[u8], count: u8| {
        let (key, count) = ([0, 0, 0, key], [0, 0, 0, count]);
        (
            Kind::Set,
            bytes(&[(1, b"portico\0"), (2, b"backends4\0"), (5, &key), (13, description), (20, &count)]),
        )
    };
    assert!(snapshot(&[map(4, b"one", 1)]).same(&snapshot(&[map(4, b"another", 2)])));
    assert!(!snapshot(&[map(4, b"one", 1)]).same(&snapshot(&[map(8, b"one", 1)])));
}

#[test]
fn the_comment_is_found_among_user_data() {
    let table = |data: &[u8]| (Kind::Table, bytes(&[(1, b"portico\0"), (6, data)]));
    for (data, comment) in [
        (&b"\x00\x03ab\0"[..], Some("ab")),
        (b"\x07\x01x\x00\x02a\0", Some("a")),
        (b"\x07\x01x", None),
        (b"\x00\x09ab\0", None),
        (b"", None),
    ] {
        assert_eq!(snapshot(&[table(data)]).comment(), comment);
    }
}

#[test]
fn counters_of_other_tables_and_other_objects_are_passed_over() {
    let data = bytes(&[(1, &[0, 0, 0, 0, 0, 0, 0, 200]), (2, &[0, 0, 0, 0, 0, 0, 0, 2])]);
    let message =
        |table: &[u8], kind: u8| bytes(&[(1, table), (2, b"refused\0"), (3, &[0, 0, 0, kind]), (4, &data)]);
    let expected = Counter { name: "refused".to_owned(), packets: 2, bytes: 200 };
    assert_eq!(counter("portico", &message(b"portico\0", 1)).unwrap(), Some(expected));
    assert_eq!(counter("portico", &message(b"other\0", 1)).unwrap(), None);
    assert_eq!(counter("portico", &message(b"portico\0", 2)).unwrap(), None);
    assert!(counter("portico", &bytes(&[(1, b"portico\0")])).is_err());
}

#[test]
fn elements_of_other_types_are_not_understood() {
    let list = |key: &[u8], data: &[u8]| {
        let element = bytes(&[(1, &bytes(&[(1, key)])), (2, &bytes(&[(1, data)]))]);
        bytes(&[(3, &bytes(&[(1, &element)]))])
    };
    let mut found = Vec::new();
    let label = 17_u32.to_ne_bytes();
    elements(&list(&label, &[10, 2, 0, 2, 31, 144, 0, 0]), Family::V4, &mut found).unwrap();
    assert_eq!(found, [(17, "10.2.0.2:8080".parse().unwrap())]);
    for (key, data) in [(&label[..], &[10, 2, 0, 2][..]), (&label[..2], &[10, 2, 0, 2, 31, 144, 0, 0])] {
        assert!(elements(&list(key, data), Family::V4, &mut found).is_err());
    }
    // A map without elements.
    elements(&bytes(&[(1, b"portico\0")]), Family::V4, &mut found).unwrap();
    assert_eq!(found.len(), 1);
}

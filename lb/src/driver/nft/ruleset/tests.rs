use super::*;

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

#[test]
fn elements_are_read_as_nft_prints_them() {
    for (text, label, backend) in [
        (" 1:2 : 10.2.0.2 . 8080", 0x1_0002, "10.2.0.2:8080"),
        ("0:7 : fd02::2 . 80 ", 7, "[fd02::2]:80"),
        ("1: : 10.2.0.2 . 1", 0x1_0000, "10.2.0.2:1"),
        (":a : ::1 . 65535", 10, "[::1]:65535"),
        ("none : 10.2.0.2 . 1", 0, "10.2.0.2:1"),
        ("root : 10.2.0.2 . 1", u32::MAX, "10.2.0.2:1"),
        ("ffff:3 : 192.0.2.1 . 9", 0xffff_0003, "192.0.2.1:9"),
    ] {
        assert_eq!(element(text), Some((label, addr(backend))), "{text}");
    }
    for text in
        ["", "1:2", "1:2 : 10.2.0.2", "1:2 : 10.2.0.2 . http", "x:2 : 10.2.0.2 . 1", "12 : 10.2.0.2 . 1"]
    {
        assert_eq!(element(text), None, "{text}");
    }
}

#[test]
fn a_change_deletes_before_it_adds() {
    let delete = [(1, Family::V6), (0x1_0000, Family::V4), (2, Family::V4)];
    let add = [(3, addr("10.2.0.3:1")), (4, addr("[fd02::4]:2"))];
    assert_eq!(
        change(&delete, &add),
        "delete element inet portico backends4 { 1:0,\n0:2 }\n\
         delete element inet portico backends6 { 0:1 }\n\
         add element inet portico backends4 { 0:3 : 10.2.0.3 . 1 }\n\
         add element inet portico backends6 { 0:4 : fd02::4 . 2 }\n"
    );
    assert_eq!(change(&[], &[]), "");
}

#[test]
fn the_difference_is_what_remains_to_be_done() {
    let actual = HashMap::from([
        ((1, Family::V4), addr("10.2.0.1:1")),
        ((2, Family::V4), addr("10.2.0.2:1")),
        ((2, Family::V6), addr("[fd02::2]:1")),
        ((3, Family::V4), addr("10.2.0.3:1")),
    ]);
    let add = [
        (1, addr("10.2.0.1:1")),
        (2, addr("10.2.0.2:2")),
        (2, addr("[fd02::2]:1")),
        (3, addr("10.2.0.3:1")),
        (4, addr("10.2.0.4:1")),
    ];
    let delete = [(2, Family::V6), (3, Family::V4), (5, Family::V4)];
    let (delete, add) = difference(&actual, &delete, &add);
    assert_eq!(delete, [(2, Family::V4), (2, Family::V6), (3, Family::V4)]);
    assert_eq!(
        add,
        [(2, addr("10.2.0.2:2")), (2, addr("[fd02::2]:1")), (3, addr("10.2.0.3:1")), (4, addr("10.2.0.4:1"))]
    );
}

#[test]
fn blocks_do_not_depend_on_their_order() {
    let one = "table inet other {\n}\ntable inet portico {\n\tcounter a {\n\t}\n\n\tchain b {\n\t\taccept\n\t\tdrop\n\t}\n}\n";
    let two = "table inet portico {\n\tchain b {\n\t\taccept\n\t\tdrop\n\t}\n\n\tcounter a {\n\t}\n}\ntable inet z {\n}\n";
    assert_eq!(blocks(one), blocks(two));
    assert_eq!(blocks(one).unwrap().len(), 2);
    let swapped = two.replace("accept\n\t\tdrop", "drop\n\t\taccept");
    assert_ne!(blocks(one), blocks(&swapped));
    assert_eq!(blocks("table inet portico2 {\n}\n"), None);
    assert_eq!(blocks(""), None);
}

#[test]
fn every_counter_is_declared_once_and_used() {
    let text = create(Synproxy::On);
    for counter in counter::ALL {
        assert_eq!(text.matches(&format!("add counter {TABLE} {counter}\n")).count(), 1);
        assert!(text.contains(&format!("counter name {counter} ")), "{counter}");
    }
}

/// Where they are chosen by hand in rules.
#[test]
fn handshakes_have_labels_that_no_backend_and_no_verdict_has() {
    assert_eq!(handshake::labels(), "4000:10-7fff:ffff");
    for label in [Label::REJECT, Label::DROP, Label::PROBE] {
        assert!(label.0 >= 2 * Label::HANDSHAKE);
    }
    for mark in [0, MASQUERADE_MARK] {
        let label = Label(Label::RESERVED - 1).handshake(mark).0;
        assert!((Label::HANDSHAKE + Label::FIRST..2 * Label::HANDSHAKE).contains(&label), "{label:x}");
    }
    assert!(!create(Synproxy::Absent).contains("synproxy"));
}

use super::*;

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// Each rule of the former text of the ruleset, by chain, as `lb/tests/drivers/nft` compares its listing with ours.
fn reference(text: &str) -> HashMap<&str, Vec<&str>> {
    let mut rules = HashMap::<_, Vec<&str>>::new();
    for line in text.lines() {
        if let Some((chain, rule)) =
            line.strip_prefix("add rule inet portico ").and_then(|rule| rule.split_once(' '))
        {
            rules.entry(chain).or_default().push(rule);
        }
    }
    rules
}

#[test]
fn the_text_of_each_rule_is_that_of_the_reference() {
    for (synproxy, text) in [
        (Synproxy::On, include_str!("../../../../tests/drivers/nft/reference.nft")),
        (Synproxy::Absent, include_str!("../../../../tests/drivers/nft/reference-without-synproxy.nft")),
    ] {
        let written = rules(synproxy);
        let mut ours = HashMap::<_, Vec<&str>>::new();
        for rule in &written {
            ours.entry(rule.chain).or_default().push(&rule.text);
        }
        assert_eq!(ours, reference(text));
    }
}

#[test]
fn rules_are_in_chains_that_are_there() {
    for synproxy in [Synproxy::On, Synproxy::Absent] {
        let chains: Vec<&str> = chains(synproxy).iter().map(|chain| chain.name).collect();
        for rule in rules(synproxy) {
            assert!(chains.contains(&rule.chain), "{rule:?}");
        }
    }
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
fn every_counter_is_used() {
    let rules = rules(Synproxy::On);
    for counter in counter::ALL {
        let named = format!("counter name {counter} ");
        assert!(rules.iter().any(|rule| rule.text.contains(&named)), "{counter}");
    }
}

#[test]
fn rules_without_synproxy_have_none() {
    assert!(!rules(Synproxy::Absent).iter().any(|rule| rule.text.contains("synproxy")));
}

/// As nft 1.0.6 sends it for `typeof meta priority : ip daddr . th dport`, and 1.1.3 too.
#[test]
#[cfg(target_endian = "little")]
fn maps_are_described_as_nft_does() {
    let four = Map::backends(map(Family::V4), Family::V4);
    assert_eq!((four.key_type(), four.key_size(), four.data_type(), four.data_size()), (0x17, 4, 0x1cd, 8));
    let expected = "00 04 01 00 00 00 01 04 00 00 00 00 03 0e 00 04 09 00 00 00 01 06 00 04 02 00 00 00 04 34 00 04 \
                    0d 00 00 00 01 2c 00 14 00 04 07 00 00 00 01 0c 00 04 0c 00 00 00 01 04 0c 00 00 00 01 14 00 04 \
                    07 00 00 00 01 0c 00 04 0b 00 00 00 01 04 02 00 00 00 06 04 00 00 00 00";
    let expected: Vec<u8> = expected.split(' ').map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
    assert_eq!(four.user_data(), expected);
    let six = Map::backends(map(Family::V6), Family::V6);
    assert_eq!((six.data_type(), six.data_size()), (0x20d, 20));
}

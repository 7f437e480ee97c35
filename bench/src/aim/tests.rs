use super::*;
use crate::{
    report::{Cell, Section},
    variants::Variant,
};

fn turn(variant: Variant, flows: u64, round: u64, nanoseconds: f64) -> Vec<(&'static str, Cell)> {
    vec![
        ("family", "V4".into()),
        ("protocol", "TCP".into()),
        ("bytes", 60_u64.into()),
        ("variant", variant.name().into()),
        ("flows", flows.into()),
        ("round", round.into()),
        ("ns_per_packet", nanoseconds.into()),
    ]
}

fn report(name: &'static str, samples: Vec<Vec<(&'static str, Cell)>>) -> Report {
    let mut report = Report::default();
    report.add(Section { name, samples, ..Section::default() });
    report
}

fn aim<'a>(judged: &'a [Judged], what: &str) -> &'a Judged {
    judged.iter().find(|judged| judged.what == what).unwrap()
}

const HOT: &str = "established, 1,000 flows, against bare XDP_REDIRECT";
const NFTABLES: &str = "established, 1,000 flows, against the nftables ruleset";

#[test]
fn nothing_is_concluded_from_nothing() {
    let judged = judge(&Report::default());
    assert!(judged.iter().all(|judged| judged.verdict == Verdict::NotMeasured && judged.measured.is_none()));
}

#[test]
fn turns_are_compared_with_others_of_their_round() {
    let judged = judge(&report(
        "datapath",
        vec![
            turn(Variant::Redirect, 1_000, 1, 95.0),
            turn(Variant::FastPath, 1_000, 1, 100.0),
            turn(Variant::Nftables, 1_000, 1, 550.0),
            // Everything takes twice as long.
            turn(Variant::Redirect, 1_000, 2, 182.0),
            turn(Variant::FastPath, 1_000, 2, 200.0),
            turn(Variant::Nftables, 1_000, 2, 1_000.0),
        ],
    ));
    let hot = aim(&judged, HOT);
    assert_eq!(hot.verdict, Verdict::Met);
    assert_eq!(hot.aim, "at least 90 %");
    assert_eq!(hot.measured.as_deref(), Some("93.0 % (91.0..95.0), IPv4"));
    let nftables = aim(&judged, NFTABLES);
    assert_eq!(nftables.verdict, Verdict::Missed);
    assert_eq!(nftables.measured.as_deref(), Some("5.25 × (5.00..5.50), IPv4"));
    assert_eq!(
        aim(&judged, "established, 100,000 flows, against bare XDP_REDIRECT").verdict,
        Verdict::NotMeasured
    );
}

#[test]
fn other_packets_answer_another_question() {
    let verdict = |column: &'static str, value: u64| {
        let mut samples =
            vec![turn(Variant::Redirect, 1_000, 1, 95.0), turn(Variant::FastPath, 1_000, 1, 100.0)];
        for sample in &mut samples {
            sample.retain(|(name, _)| *name != column);
            sample.push((column, value.into()));
        }
        aim(&judge(&report("datapath", samples)), HOT).verdict
    };
    assert_eq!(verdict("bytes", 60), Verdict::Met);
    assert_eq!(verdict("bytes", 1_500), Verdict::NotMeasured);
    assert_eq!(verdict("fresh_percent", 0), Verdict::Met);
    assert_eq!(verdict("fresh_percent", 10), Verdict::NotMeasured);
}

#[test]
fn growth_takes_ten_thousand_services() {
    let what = "new flows, any number of services, against the nftables ruleset with one";
    let sample = |variant: Variant, services: u64, nanoseconds: f64| {
        vec![
            ("what", Cell::from("new")),
            ("protocol", "tcp".into()),
            ("services", services.into()),
            ("variant", variant.name().into()),
            ("round", 1_u64.into()),
            ("ns_per_packet", nanoseconds.into()),
        ]
    };
    let mut samples = vec![
        sample(Variant::Nftables, 1, 3_000.0),
        sample(Variant::FastPath, 1, 2_000.0),
        sample(Variant::FastPath, 1_000, 2_500.0),
    ];
    assert_eq!(aim(&judge(&report("growth", samples.clone())), what).verdict, Verdict::NotMeasured);
    samples.push(sample(Variant::FastPath, 10_000, 4_000.0));
    let judged = judge(&report("growth", samples));
    let judged = aim(&judged, what);
    assert_eq!(judged.verdict, Verdict::Missed);
    assert_eq!(judged.measured.as_deref(), Some("0.750 ×, TCP, 10000 services"));
}

#[test]
fn noise_counts_only_where_it_is_said_to() {
    let range = Range { median: 1.1, min: 0.99, max: 1.2, count: 3 };
    assert!(Need::AtMostWithinNoise(1.0).met(range));
    assert!(!Need::AtMost(1.0).met(range));
    assert!(Need::AtLeast(1.1).met(range));
    assert!(!Need::MoreThan(1.1).met(range));
    assert!(!Need::Under(1.1).met(range));
}

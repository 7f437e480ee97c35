use hdrhistogram::Histogram;
use roxmltree::{Document, ParsingOptions};

use super::*;
use crate::{
    report::{Plot, Section},
    stats::Range,
};

const NASTY: &str = "<script>alert('&amp;')</script> \"x\" & y";

fn report() -> Report {
    let mut table = Table::new(NASTY, &["variant", "flows", "Mpps per core", "ratio"])
        .plot(Plot::bars("Mpps per core").ratio("ratio", "bare XDP_REDIRECT").panels("flows"))
        .plot(Plot::lines("flows", "Mpps per core"));
    for (flows, speed) in [(1_u64, 5.0), (1_000, 4.0)] {
        for variant in ["bare XDP_REDIRECT", NASTY] {
            let range = Range::of(vec![speed, speed + 0.2]);
            table.row([variant.into(), flows.into(), range.into(), 1.0.into()]);
        }
        table.row(["not measured".into(), flows.into(), Cell::None, Cell::None]);
    }
    let mut values = Histogram::new_with_bounds(1, 1_000_000_000, 3).unwrap();
    (1..1_000).for_each(|n| values.record(n * n).unwrap());
    let mut report = Report::default();
    report.add(Section {
        name: "datapath",
        tables: vec![table],
        notes: vec![NASTY.to_owned()],
        samples: vec![vec![("variant", NASTY.into()), ("ns", 1.0.into())]],
        histograms: vec![(format!("latency/{NASTY}/full"), values)],
    });
    report.conditions.command = format!("portico-bench {NASTY}");
    report
}

fn parsed(page: &str) -> Document<'_> {
    Document::parse_with_options(page, ParsingOptions { allow_dtd: true, ..ParsingOptions::default() })
        .unwrap()
}

#[test]
fn what_was_measured_is_text_and_never_markup() {
    let page = report().page();
    let document = parsed(&page);
    assert!(
        !document.descendants().any(|node| node.has_tag_name(("http://www.w3.org/1999/xhtml", "script")))
    );
    for place in ["text", "summary", "li", "code", "title"] {
        let mut texts = document.descendants().filter(|node| node.tag_name().name() == place);
        assert!(texts.any(|node| node.text().is_some_and(|text| text.contains(NASTY))), "{place}");
    }
}

#[test]
fn the_page_needs_nothing_else() {
    let page = report().page();
    for node in parsed(&page).descendants() {
        assert!(!["script", "link", "img", "iframe"].contains(&node.tag_name().name()));
        if let Some(href) = node.attribute("href") {
            let target = href.strip_prefix('#').unwrap();
            assert!(page.contains(&format!("id=\"{target}\"")), "{target}");
        }
    }
    assert!(!page.contains("url(") && !page.contains("@import"));
}

#[test]
fn each_drawing_has_a_name() {
    let page = report().page();
    let document = parsed(&page);
    let drawings: Vec<_> = document.descendants().filter(|node| node.tag_name().name() == "svg").collect();
    assert!(drawings.len() >= 4, "topology, bars of two panels, lines");
    assert!(drawings.iter().all(|svg| svg.attribute("aria-label").is_some_and(|label| !label.is_empty())));
}

#[test]
fn the_same_page_comes_from_json() {
    let report = report();
    let json = serde_json::to_string(&report).unwrap();
    let again: Report = serde_json::from_str(&json).unwrap();
    assert_eq!(again.page(), report.page());
    assert_eq!(again.to_string(), report.to_string());
}

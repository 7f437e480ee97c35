use hdrhistogram::Histogram;

use super::*;
use crate::stats::Range;

fn texts(markup: &Markup) -> Vec<String> {
    let wrapped = format!("<figure>{}</figure>", markup.0);
    let document = roxmltree::Document::parse(&wrapped).unwrap();
    let texts = document.descendants().filter(|node| node.has_tag_name("text"));
    texts
        .map(|text| text.descendants().filter(|node| node.is_text()).filter_map(|node| node.text()).collect())
        .collect()
}

fn has(markup: &Markup, text: &str) -> bool {
    texts(markup).iter().any(|found| found == text)
}

#[test]
fn bars_are_named_by_texts_before_their_figure() {
    let mut table = Table::new("stalls", &["variant", "event", "connections", "ms", "more"])
        .plot(Plot::bars("ms").less_is_better());
    table.row(["a".into(), "added".into(), 5_u64.into(), Range::of(vec![1.0, 3.0]).into(), "x".into()]);
    table.row(["a".into(), "gone".into(), 5_u64.into(), Cell::None, "x".into()]);
    let [figure] = of_table(&table).try_into().ok().unwrap();
    assert!(has(&figure.drawing, "a, added"));
    assert!(!has(&figure.drawing, "a, gone"), "what was not measured is not drawn as nothing");
    assert_eq!(figure.title, "stalls");
    assert_eq!(figure.caption, "Less is better. Bars: medians; whiskers: lowest and highest.");
}

#[test]
fn bars_without_texts_are_named_by_their_first_figure() {
    let mut table = Table::new("t", &["services", "ms"]).plot(Plot::bars("ms"));
    table.row([10_u64.into(), 2.0.into()]);
    assert!(has(&of_table(&table)[0].drawing, "10"));
}

#[test]
fn lines_without_texts_are_named_by_their_column() {
    let mut table = Table::new("t", &["backends", "slots", "ms"]).plot(Plot::lines("backends", "ms"));
    table.row([9_u64.into(), 1_931_u64.into(), 2.0.into()]);
    table.row([100_u64.into(), 16_381_u64.into(), 3.0.into()]);
    let drawing = &of_table(&table)[0].drawing;
    assert_eq!(texts(drawing).iter().filter(|text| *text == "ms").count(), 2, "at the axis and at the line");
}

#[test]
fn ratios_stand_behind_bars() {
    let mut table =
        Table::new("t", &["variant", "Mpps", "ratio"]).plot(Plot::bars("Mpps").ratio("ratio", "bare"));
    table.row(["bare".into(), 4.0.into(), 1.0.into()]);
    table.row(["other".into(), 3.0.into(), 0.75.into()]);
    let figure = &of_table(&table)[0];
    assert!(has(&figure.drawing, "3.000.75 ×"));
    assert!(has(&figure.drawing, "bare = 1"));
}

#[test]
fn panels_part_rows_and_lines_join_them() {
    let mut table = Table::new("new flows", &["variant", "protocol", "services", "k/s"])
        .plot(Plot::lines("services", "k/s").panels("protocol"));
    for protocol in ["TCP", "UDP"] {
        for services in [1_u64, 1_000] {
            table.row(["a".into(), protocol.into(), services.into(), 3.0.into()]);
        }
    }
    let figures = of_table(&table);
    let titles: Vec<_> = figures.iter().map(|figure| figure.title.as_str()).collect();
    assert_eq!(titles, ["new flows: protocol TCP", "new flows: protocol UDP"]);
    assert_eq!(texts(&figures[0].drawing).iter().filter(|text| *text == "a").count(), 1);
    assert!(has(&figures[0].drawing, "1,000"));
}

#[test]
fn plots_of_missing_columns_draw_nothing() {
    let mut table = Table::new("t", &["a", "b"]).plot(Plot::bars("gone")).plot(Plot::lines("gone", "b"));
    assert!(of_table(&table).is_empty());
    table.row(["x".into(), 1.0.into()]);
    // Without its x the figure is still worth a bar.
    assert_eq!(of_table(&table).len(), 1);
}

#[test]
fn distributions_that_differ_in_variant_share_a_chart() {
    let distribution = |name: &str, values: &[u64]| {
        let mut histogram = Histogram::new_with_bounds(1, 1_000_000_000, 3).unwrap();
        values.iter().for_each(|value| histogram.record(*value).unwrap());
        Distribution { name: name.to_owned(), values: histogram }
    };
    let all = [
        distribution("latency/a/100 packets per second", &[1_000; 100]),
        distribution("latency/b/100 packets per second", &[500_000; 100]),
        distribution("latency/b/200 packets per second", &[0, 7]),
        distribution("latency/c/200 packets per second", &[]),
    ];
    let figures = of_distributions(&all);
    assert_eq!(figures.len(), 2);
    assert_eq!(figures[0].title, "latency, 100 packets per second");
    assert!(figures[0].caption.starts_with("Percentiles of 100 values."));
    for text in ["a", "b", "99 %", "50 %", "10 µs"] {
        assert!(has(&figures[0].drawing, text), "{text} in {:?}", texts(&figures[0].drawing));
    }
    assert!(!has(&figures[1].drawing, "c"));
}

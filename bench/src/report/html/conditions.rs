//! Where, when and how figures were taken.

use maud::{Markup, html};

use crate::{
    conditions::DEBUGGING,
    report::{Report, svg::topology, table::digits},
};

/// How much slower a loop that touches no memory may become before that is worth a warning.
const STEADY: f64 = 1.25;

/// Why these figures are to be taken with care; nothing on a quiet machine.
pub(super) fn cautions(report: &Report) -> Markup {
    let mut cautions = Vec::new();
    if let Some(spread) = report.calibration().filter(|spread| *spread > STEADY) {
        let spread = digits(spread);
        cautions
            .push(format!("the CPU was up to {spread} times as slow as at its fastest (calibrating loop)"));
    }
    if report.host.busy(&report.load_after) {
        let (before, after) = (report.host.load_before(), &report.load_after);
        cautions.push(format!("other work ran beside it (load average {before} before, {after} after)"));
    }
    if report.conditions.versions.iter().any(|version| version == DEBUGGING) {
        cautions.push("this program was built for debugging".to_owned());
    }
    html! {
        @if !cautions.is_empty() {
            p class="caution" role="note" { strong { "Take with care: " } (cautions.join("; ")) "." }
        }
    }
}

pub(super) fn section(report: &Report) -> Markup {
    let Report { host, conditions, load_after, .. } = report;
    html! {
        section id="conditions" {
            h2 { "Conditions" }
            figure {
                (topology::draw())
                figcaption { "Where packets go in the sections that send them." }
            }
            dl {
                @for (name, value) in host.facts() {
                    div { dt { (name) } dd { (value) } }
                }
                div { dt { "Load average after" } dd { (load_after) } }
                @if let Some(spread) = report.calibration() {
                    div { dt { "Calibrating loop, slowest by fastest" } dd { (digits(spread)) } }
                }
                div {
                    dt { "Versions" }
                    dd { (host.filters()) @for version in &conditions.versions { "; " (version) } }
                }
                div {
                    dt { "Settings" }
                    dd {
                        @for (n, setting) in conditions.settings.iter().enumerate() {
                            @if n > 0 { ", " }
                            span class=(if setting.default { "default" } else { "chosen" }) {
                                (setting.name) " " (setting.value)
                            }
                        }
                        @if conditions.settings.iter().any(|setting| !setting.default) {
                            " (set by hand: " strong { "bold" } ")"
                        }
                    }
                }
            }
            h3 { "To repeat it" }
            pre { code { (conditions.command) } }
        }
    }
}

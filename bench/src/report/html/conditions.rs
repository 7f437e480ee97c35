//! Where, when and how figures were taken.

use maud::{Markup, html};

use crate::report::{Report, svg::topology};

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
                    div { dt { "Calibrating loop, slowest by fastest" } dd { (format!("{spread:.2}")) } }
                }
                div {
                    dt { "Versions" }
                    dd { (host.nft()) @for version in &conditions.versions { "; " (version) } }
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

//! What is asked, and what was measured.

use maud::{Markup, html};

use crate::{
    aim::{Judged, Verdict},
    report::svg::Scale,
};

/// Of a gauge.
const WIDTH: f64 = 150.0;
const HEIGHT: f64 = 22.0;

/// The figures to begin with; none that was not measured.
pub(super) fn cards(judged: &[Judged]) -> Markup {
    let shown = || judged.iter().filter(|judged| judged.headline && judged.figure.is_some());
    html! {
        @if shown().next().is_some() {
            section class="cards" aria-label="Headline figures" {
                @for judged in shown() {
                    div class={ "card " (class(judged.verdict)) } {
                        p class="big" { (judged.figure.as_deref().unwrap_or_default()) }
                        p { (judged.what) }
                        p class="aim" { (sign(judged.verdict)) " aim: " (judged.aim) }
                    }
                }
            }
        }
    }
}

pub(super) fn section(judged: &[Judged]) -> Markup {
    let count = |verdict: Verdict| judged.iter().filter(|judged| judged.verdict == verdict).count();
    html! {
        section id="aims" {
            h2 { "Aims" }
            p {
                (count(Verdict::Met)) " met, " (count(Verdict::Missed)) " missed, "
                (count(Verdict::NotMeasured)) " not measured in this run."
            }
            div class="scroll" {
                table class="aims" {
                    thead {
                        tr {
                            th scope="col" { "what" }
                            th scope="col" { "aim" }
                            th scope="col" { "measured" }
                            th scope="col" { "against the aim" }
                            th scope="col" { "verdict" }
                        }
                    }
                    tbody {
                        @for judged in judged {
                            tr class=(class(judged.verdict)) {
                                th scope="row" { (judged.what) }
                                td { (judged.aim) }
                                td {
                                    @match &judged.measured {
                                        Some(measured) => (measured),
                                        None => span class="range" { "section " (judged.from) },
                                    }
                                }
                                td { (gauge(judged)) }
                                td class="verdict" { (sign(judged.verdict)) " " (words(judged.verdict)) }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// A bar to the figure, whiskers for its range, and a mark at the aim.
fn gauge(judged: &Judged) -> Markup {
    let Some(range) = judged.range else { return html! {} };
    let scale = Scale::from_zero(range.max.max(judged.bound * 1.2), (1.0, WIDTH - 1.0));
    let at = |value: f64| format!("{:.1}", scale.at(value));
    html! {
        svg class="gauge" viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } width=(WIDTH) height=(HEIGHT) role="img"
            aria-label={ (judged.measured.as_deref().unwrap_or_default()) ", aim: " (judged.aim) } {
            rect class="track" x="1" y="7" width=(WIDTH - 2.0) height="8" rx="2" {}
            rect class="bar" x="1" y="7" width=(format!("{:.1}", scale.at(range.median) - 1.0)) height="8" rx="2" {}
            @if range.count > 1 { path class="whisker" d={ "M" (at(range.min)) " 11H" (at(range.max)) } {} }
            path class="bound" d={ "M" (at(judged.bound)) " 2V20" } {}
        }
    }
}

const fn class(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Met => "met",
        Verdict::Missed => "missed",
        Verdict::NotMeasured => "open",
    }
}

/// Colours alone do not tell everyone.
const fn sign(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Met => "✓",
        Verdict::Missed => "✗",
        Verdict::NotMeasured => "–",
    }
}

const fn words(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Met => "met",
        Verdict::Missed => "not met",
        Verdict::NotMeasured => "not measured",
    }
}

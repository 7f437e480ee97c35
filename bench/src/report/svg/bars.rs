//! Lying bars with the ranges of their figures.

use maud::{Markup, html};

use super::{Scale, WIDTH, plain, px};
use crate::{report::table::digits, stats::Range};

/// Room for names, and for figures behind the longest bar.
const NAMES: f64 = 250.0;
const FIGURES: f64 = 150.0;
/// From one bar to the next, and how much of it is bar.
const PITCH: f64 = 26.0;
const THICK: f64 = 14.0;
const TOP: f64 = 22.0;
const BOTTOM: f64 = 44.0;
/// Half the height of a whisker's end.
const CAP: f64 = 4.0;

pub(crate) struct Bars {
    /// For those who hear it.
    pub(crate) title: String,
    pub(crate) unit: String,
    pub(crate) bars: Vec<Bar>,
    /// A figure to compare all others with, and its name.
    pub(crate) reference: Option<(f64, String)>,
}

pub(crate) struct Bar {
    pub(crate) label: String,
    pub(crate) class: String,
    pub(crate) range: Range,
    /// Behind the figure.
    pub(crate) note: String,
}

impl Bars {
    pub(crate) fn draw(&self) -> Markup {
        let height = TOP + PITCH * self.bars.len() as f64 + BOTTOM;
        let floor = height - BOTTOM;
        let largest = self.bars.iter().map(|bar| bar.range.max).fold(0.0, f64::max);
        let scale = Scale::from_zero(largest, (NAMES, WIDTH - FIGURES));
        html! {
            svg viewBox={ "0 0 " (px(WIDTH)) " " (px(height)) } role="img" aria-label=(self.title) {
                @for tick in scale.ticks() {
                    @let x = px(scale.at(tick));
                    line class="grid" x1=(x) x2=(x) y1=(px(TOP)) y2=(px(floor)) {}
                    text class="tick" x=(x) y=(px(floor + 16.0)) text-anchor="middle" { (plain(tick)) }
                }
                @let middle = f64::midpoint(NAMES, WIDTH - FIGURES);
                text class="axis" x=(px(middle)) y=(px(floor + 36.0)) text-anchor="middle" { (self.unit) }
                @for (n, bar) in self.bars.iter().enumerate() {
                    (bar.draw(scale, TOP + PITCH * (n as f64 + 0.5)))
                }
                line class="base" x1=(px(NAMES)) x2=(px(NAMES)) y1=(px(TOP)) y2=(px(floor)) {}
                @if let Some((value, name)) = &self.reference {
                    @let x = px(scale.at(*value));
                    line class="reference" x1=(x) x2=(x) y1=(px(TOP - 6.0)) y2=(px(floor)) {}
                    text class="tick" x=(x) y=(px(TOP - 10.0)) text-anchor="middle" { (name) " = 1" }
                }
            }
        }
    }
}

impl Bar {
    fn draw(&self, scale: Scale, middle: f64) -> Markup {
        let Self { label, class, range, note } = self;
        let [zero, end, low, high] = [0.0, range.median, range.min, range.max].map(|value| scale.at(value));
        let [above, below] = [middle - CAP, middle + CAP].map(px);
        html! {
            g class=(class) {
                title { (label) ": " (digits(range.median)) " (" (digits(range.min)) ".." (digits(range.max)) ")" }
                text class="name" x=(px(NAMES - 10.0)) y=(px(middle + 4.5)) text-anchor="end" { (label) }
                rect class="bar" x=(px(zero)) width=(px((end - zero).max(0.5))) y=(px(middle - THICK / 2.0))
                    height=(px(THICK)) rx="2" {}
                @if range.count > 1 {
                    path class="whisker" d={
                        "M" (px(low)) " " (above) "V" (below) "M" (px(low)) " " (px(middle)) "H" (px(high))
                        "M" (px(high)) " " (above) "V" (below)
                    } {}
                }
                text class="figure" x=(px(high.max(end) + 8.0)) y=(px(middle + 4.5)) {
                    (digits(range.median))
                    @if !note.is_empty() { tspan class="ratio" dx="9" { (note) } }
                }
            }
        }
    }
}

//! Charts, as markup within a page whose style sheet gives them colours.
//!
//! Written by hand, since a library's SVG holds its colours, and could not turn dark with the page.

mod bars;
mod chart;
pub(super) mod palette;
mod scale;
pub(super) mod topology;

pub(super) use self::{
    bars::{Bar, Bars},
    chart::{Axis, Chart, Line, Point, X, Y},
    scale::Scale,
};
use super::table::digits;

/// Units of all drawings, which scale with the page.
pub(super) const WIDTH: f64 = 880.0;

/// A place, as exactly as anyone sees it.
fn px(place: f64) -> String {
    let text = format!("{place:.1}");
    text.strip_suffix(".0").map_or_else(|| text.clone(), str::to_owned)
}

/// A figure at an axis.
pub(super) fn plain(value: f64) -> String {
    match value.abs() {
        v if v >= 1e6 => format!("{} M", trimmed(value / 1e6)),
        v if v >= 1e4 => format!("{} k", trimmed(value / 1e3)),
        v if v >= 1e3 => format!("{},{:03}", (value / 1e3).trunc(), value.abs() % 1e3),
        _ => trimmed(value),
    }
}

/// Microseconds at an axis.
pub(super) fn microseconds(value: f64) -> String {
    match value {
        v if v >= 1e6 => format!("{} s", trimmed(v / 1e6)),
        v if v >= 1e3 => format!("{} ms", trimmed(v / 1e3)),
        v => format!("{} µs", trimmed(v)),
    }
}

fn trimmed(value: f64) -> String {
    let text = digits(value);
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_speak_in_short_figures() {
        let spoken = [0.0, 0.25, 1.5, 20.0, 1_000.0, 1_500.0, 10_000.0, 2_500_000.0].map(plain);
        assert_eq!(spoken, ["0", "0.25", "1.5", "20", "1,000", "1,500", "10 k", "2.5 M"]);
        assert_eq!([0.5, 20.0, 5_000.0, 1e6].map(microseconds), ["0.5 µs", "20 µs", "5 ms", "1 s"]);
        assert_eq!(px(12.04), "12");
        assert_eq!(px(0.25), "0.2");
    }
}

//! Lines over an axis, each with its name at its end.

use maud::{Markup, html};

use super::{Scale, WIDTH, px, scale::spread};

const HEIGHT: f64 = 380.0;
const LEFT: f64 = 72.0;
/// Room for the lines' names.
const RIGHT: f64 = 216.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 50.0;
/// Between two names.
const LINE: f64 = 16.0;
/// Half the width of a whisker's end.
const CAP: f64 = 4.0;
/// Between lines through the same x, so that their whiskers do not hide each other.
const DODGE: f64 = 3.5;
/// Where the drawing ends.
pub(crate) const X: (f64, f64) = (LEFT, WIDTH - RIGHT);
pub(crate) const Y: (f64, f64) = (HEIGHT - BOTTOM, TOP);

pub(crate) struct Chart {
    /// For those who hear it.
    pub(crate) title: String,
    pub(crate) x: Axis,
    pub(crate) y: Axis,
    pub(crate) lines: Vec<Line>,
}

pub(crate) struct Axis {
    pub(crate) name: String,
    pub(crate) scale: Scale,
    /// Where to write what.
    pub(crate) ticks: Vec<(f64, String)>,
}

pub(crate) struct Line {
    pub(crate) label: String,
    pub(crate) class: String,
    /// From left to right.
    pub(crate) points: Vec<Point>,
    /// Whether each point is a measurement of its own.
    pub(crate) dots: bool,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Point {
    pub(crate) x: f64,
    pub(crate) y: f64,
    /// What else was found there.
    pub(crate) range: Option<(f64, f64)>,
}

impl Axis {
    pub(crate) fn new(name: &str, scale: Scale, write: impl Fn(f64) -> String) -> Self {
        let ticks = scale.ticks().into_iter().map(|tick| (tick, write(tick))).collect();
        Self { name: name.to_owned(), scale, ticks }
    }
}

impl Chart {
    pub(crate) fn draw(&self) -> Markup {
        let Self { title, x, y, lines } = self;
        let (left, right, bottom) = (X.0, X.1, Y.0);
        let ends: Vec<f64> =
            lines.iter().map(|line| line.points.last().map_or(bottom, |end| y.scale.at(end.y))).collect();
        let names = spread(&ends, LINE, (TOP + 4.0, bottom));
        html! {
            svg viewBox={ "0 0 " (px(WIDTH)) " " (px(HEIGHT)) } role="img" aria-label=(title) {
                @for (tick, text) in &y.ticks {
                    @let at = y.scale.at(*tick);
                    line class="grid" x1=(px(left)) x2=(px(right)) y1=(px(at)) y2=(px(at)) {}
                    text class="tick" x=(px(left - 8.0)) y=(px(at + 4.0)) text-anchor="end" { (text) }
                }
                @for (tick, text) in &x.ticks {
                    @let at = px(x.scale.at(*tick));
                    line class="grid" x1=(at) x2=(at) y1=(px(TOP)) y2=(px(bottom)) {}
                    text class="tick" x=(at) y=(px(bottom + 17.0)) text-anchor="middle" { (text) }
                }
                line class="base" x1=(px(left)) x2=(px(right)) y1=(px(bottom)) y2=(px(bottom)) {}
                @let (middle, height) = (f64::midpoint(left, right), f64::midpoint(TOP, bottom));
                text class="axis" x=(px(middle)) y=(px(bottom + 40.0)) text-anchor="middle" { (x.name) }
                text class="axis" transform={ "translate(14 " (px(height)) ") rotate(-90)" } text-anchor="middle" {
                    (y.name)
                }
                @for (n, ((line, end), name)) in lines.iter().zip(ends).zip(names).enumerate() {
                    @let aside = DODGE * (n as f64 - (lines.len() as f64 - 1.0) / 2.0);
                    (self.line(line, if line.dots { aside } else { 0.0 }, end, name))
                }
            }
        }
    }

    /// Drawn somewhat aside of where it should be, with its end at one height and its name at another.
    fn line(&self, line: &Line, aside: f64, end: f64, name: f64) -> Markup {
        let Line { label, class, points, dots } = line;
        let (x, y) = (self.x.scale, self.y.scale);
        let last = points.last().map_or(X.1, |point| x.at(point.x) + aside);
        html! {
            g class={ "series " (class) } {
                title { (label) }
                path class="lead" d={ "M" (px(last + 5.0)) " " (px(end)) "L" (px(X.1 + 8.0)) " " (px(name)) "h6" } {}
                path class="line" d=(path(points, x, y, aside)) {}
                @for point in points.iter().filter(|_| *dots) {
                    @let at = x.at(point.x) + aside;
                    @if let Some((low, high)) = point.range {
                        @let (low, high) = (px(y.at(low)), px(y.at(high)));
                        @let (before, after) = (px(at - CAP), px(at + CAP));
                        path class="whisker" d={
                            "M" (before) " " (low) "H" (after) "M" (px(at)) " " (low) "V" (high)
                            "M" (before) " " (high) "H" (after)
                        } {}
                    }
                    circle class="dot" cx=(px(at)) cy=(px(y.at(point.y))) r="3.5" {}
                }
                text class="name" x=(px(X.1 + 18.0)) y=(px(name + 4.0)) { (label) }
            }
        }
    }
}

fn path(points: &[Point], x: Scale, y: Scale, aside: f64) -> String {
    let commands = points.iter().enumerate().map(|(n, point)| {
        let command = if n == 0 { 'M' } else { 'L' };
        format!("{command}{} {}", px(x.at(point.x) + aside), px(y.at(point.y)))
    });
    commands.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_go_through_their_points() {
        let points = [(0.0, 0.0), (5.0, 10.0)].map(|(x, y)| Point { x, y, range: None });
        let (x, y) = (Scale::from_zero(10.0, (0.0, 100.0)), Scale::from_zero(10.0, (50.0, 0.0)));
        assert_eq!(path(&points, x, y, 0.0), "M0 50L50 0");
        assert_eq!(path(&[], x, y, 0.0), "");
    }
}

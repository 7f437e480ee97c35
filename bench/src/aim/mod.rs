//! What the figures are meant to reach, and whether they do.
//!
//! An aim finds its figure in the sections' tables or samples by the names of their columns. Where a run has no such
//! figure, the aim counts as not measured: nothing is concluded from fewer flows or services.

mod find;

use serde::Serialize;

use crate::{
    report::{Report, Table, digits},
    stats::Range,
};

/// What is asked of a figure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Need {
    AtLeast(f64),
    MoreThan(f64),
    AtMost(f64),
    Under(f64),
    /// As above, as far as the ranges of the figures can tell.
    AtLeastWithinNoise(f64),
    AtMostWithinNoise(f64),
}

/// A figure that answers an aim.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Found {
    pub(crate) range: Range,
    /// With what it was found, if there are several.
    pub(crate) at: String,
}

struct Aim {
    what: &'static str,
    need: Need,
    unit: Unit,
    /// The section that measures it.
    from: &'static str,
    /// None if this run did not.
    find: fn(&Report) -> Option<Found>,
    /// Whether it is one of those to begin with.
    headline: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    Percent,
    Times,
    Plain(&'static str),
}

/// An aim, and what a run says about it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Judged {
    pub(crate) what: &'static str,
    pub(crate) aim: String,
    pub(crate) measured: Option<String>,
    pub(crate) verdict: Verdict,
    /// The section that measures it.
    pub(crate) from: &'static str,
    /// In the aim's unit; for percentages and ratios, 1 is the whole.
    pub(crate) range: Option<Range>,
    pub(crate) bound: f64,
    #[serde(skip)]
    pub(crate) headline: bool,
    /// The figure alone.
    #[serde(skip)]
    pub(crate) figure: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Verdict {
    Met,
    Missed,
    NotMeasured,
}

impl Need {
    const fn bound(self) -> f64 {
        match self {
            Self::AtLeast(bound)
            | Self::MoreThan(bound)
            | Self::AtMost(bound)
            | Self::Under(bound)
            | Self::AtLeastWithinNoise(bound)
            | Self::AtMostWithinNoise(bound) => bound,
        }
    }

    fn met(self, range: Range) -> bool {
        match self {
            Self::AtLeast(bound) => range.median >= bound,
            Self::MoreThan(bound) => range.median > bound,
            Self::AtMost(bound) => range.median <= bound,
            Self::Under(bound) => range.median < bound,
            Self::AtLeastWithinNoise(bound) => range.max >= bound,
            Self::AtMostWithinNoise(bound) => range.min <= bound,
        }
    }

    const fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::AtLeast(_) => ("at least ", ""),
            Self::MoreThan(_) => ("more than ", ""),
            Self::AtMost(_) => ("at most ", ""),
            Self::Under(_) => ("under ", ""),
            Self::AtLeastWithinNoise(_) => ("at least ", ", within noise"),
            Self::AtMostWithinNoise(_) => ("at most ", ", within noise"),
        }
    }
}

impl Unit {
    fn value(self, value: f64) -> f64 {
        if self == Self::Percent { value * 100.0 } else { value }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Percent => " %",
            Self::Times => " ×",
            Self::Plain(name) => name,
        }
    }

    /// An aim's bound, which nobody measured to three digits.
    fn bound(self, bound: f64) -> String {
        format!("{}{}", (self.value(bound) * 1e3).round() / 1e3, self.name())
    }

    fn figure(self, value: f64) -> String {
        format!("{}{}", digits(self.value(value)), self.name())
    }

    fn measured(self, Found { range, at }: &Found) -> String {
        let [low, high] = [range.min, range.max].map(|value| digits(self.value(value)));
        let spread = if range.count > 1 { format!(" ({low}..{high})") } else { String::new() };
        let at = if at.is_empty() { String::new() } else { format!(", {at}") };
        format!("{}{spread}{at}", self.figure(range.median))
    }
}

impl Aim {
    fn judge(&self, report: &Report) -> Judged {
        let found = (self.find)(report);
        let (before, after) = self.need.words();
        let bound = self.need.bound();
        Judged {
            what: self.what,
            aim: format!("{before}{}{after}", self.unit.bound(bound)),
            measured: found.as_ref().map(|found| self.unit.measured(found)),
            verdict: match &found {
                None => Verdict::NotMeasured,
                Some(found) if self.need.met(found.range) => Verdict::Met,
                Some(_) => Verdict::Missed,
            },
            from: self.from,
            range: found.as_ref().map(|found| found.range),
            bound,
            headline: self.headline,
            figure: found.map(|found| self.unit.figure(found.range.median)),
        }
    }
}

impl Verdict {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Met => "met",
            Self::Missed => "MISSED",
            Self::NotMeasured => "not measured",
        }
    }
}

/// All aims, judged by a report.
pub(crate) fn judge(report: &Report) -> Vec<Judged> {
    find::AIMS.iter().map(|aim| aim.judge(report)).collect()
}

/// As a table.
pub(crate) fn table(judged: &[Judged]) -> Table {
    let mut table = Table::new("aims", &["what", "aim", "measured", ""]);
    for Judged { what, aim, measured, verdict, .. } in judged {
        table.row([(*what).into(), aim.clone().into(), measured.clone().into(), verdict.name().into()]);
    }
    table
}

#[cfg(test)]
mod tests;

//! Figures, and what becomes of them: text, JSON, CSV, percentiles and a page to look at.
//!
//! Sections fill a [`Section`] each. A [`Report`] holds all that the outputs need, so that every one of them can be made
//! again from its JSON.

mod csv;
mod figure;
mod files;
mod histogram;
mod html;
mod plot;
mod svg;
mod table;
mod text;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use self::histogram::Distribution;
pub(crate) use self::{
    files::PAGE,
    plot::Plot,
    table::{Cell, Record, Table, digits},
};
use crate::{
    conditions::Conditions,
    host::{Host, load},
    stats::Range,
};

/// What belongs together, as it is measured.
#[derive(Debug, Default)]
pub(crate) struct Section {
    pub(crate) name: &'static str,
    pub(crate) tables: Vec<Table>,
    pub(crate) notes: Vec<String>,
    /// Single measurements, for the CSV file.
    pub(crate) samples: Vec<Vec<(&'static str, Cell)>>,
    /// Distributions in nanoseconds, named `section/variant/circumstances`: lines that differ in the variant only are
    /// drawn together.
    pub(crate) histograms: Vec<(String, Histogram<u64>)>,
}

/// All figures of a run.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Report {
    host: Host,
    conditions: Conditions,
    /// The load average after the last section.
    load_after: String,
    sections: Vec<Chapter>,
}

/// A section, as it is kept.
#[derive(Debug, Serialize, Deserialize)]
struct Chapter {
    name: String,
    tables: Vec<Table>,
    notes: Vec<String>,
    samples: Table,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    histograms: Vec<Distribution>,
}

impl Report {
    pub(crate) const fn new(host: Host, conditions: Conditions) -> Self {
        Self { host, conditions, load_after: String::new(), sections: Vec::new() }
    }

    pub(crate) fn add(&mut self, section: Section) {
        let Section { name, tables, notes, samples, histograms } = section;
        let (name, samples) = (name.to_owned(), Table::of_samples(samples));
        let named = histograms.into_iter().map(|(name, values)| Distribution { name, values });
        self.sections.push(Chapter { name, tables, notes, samples, histograms: named.collect() });
    }

    /// What a section measured: its tables, and its samples as one more.
    pub(crate) fn tables(&self, section: &str) -> impl Iterator<Item = &Table> {
        let sections = self.sections.iter().filter(move |chapter| chapter.name == section);
        sections.flat_map(|chapter| chapter.tables.iter().chain([&chapter.samples]))
    }

    /// How much longer the calibrating loop took at its slowest than at its fastest.
    fn calibration(&self) -> Option<f64> {
        let tables = self.sections.iter().map(|section| &section.samples);
        let loops = tables.flat_map(Table::records).filter_map(|turn| turn.number("calibration_ns"));
        Range::of(loops.collect()).map(|range| range.max / range.min)
    }

    /// Takes down what the machine was doing at the end.
    pub(crate) fn finish(&mut self) {
        self.load_after = load();
    }
}

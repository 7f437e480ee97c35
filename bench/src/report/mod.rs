//! Figures, and what becomes of them: text, JSON, CSV, percentiles and a page to look at.
//!
//! Sections fill a [`Section`] each. A [`Report`] holds all that the outputs need, so that every one of them can be made
//! again from its JSON.

mod csv;
mod files;
mod histogram;
mod plot;
mod table;
mod text;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use self::histogram::Distribution;
pub(crate) use self::{
    files::{JSON, PAGE},
    plot::Plot,
    table::{Cell, Table},
};
use crate::host::{Host, load};

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
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    host: Host,
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
    pub(crate) const fn new(host: Host) -> Self {
        Self { host, load_after: String::new(), sections: Vec::new() }
    }

    pub(crate) fn add(&mut self, section: Section) {
        let Section { name, tables, notes, samples, histograms } = section;
        let (name, samples) = (name.to_owned(), Table::of_samples(samples));
        let named = histograms.into_iter().map(|(name, values)| Distribution { name, values });
        self.sections.push(Chapter { name, tables, notes, samples, histograms: named.collect() });
    }

    /// Takes down what the machine was doing at the end.
    pub(crate) fn finish(&mut self) {
        self.load_after = load();
    }
}

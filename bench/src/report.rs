//! Figures as text and as JSON.

use std::fmt;

use comfy_table::{CellAlignment, presets::NOTHING};
use serde::Serialize;

use crate::{
    host::{Host, load},
    stats::Range,
};

/// All figures of a run.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    host: Host,
    /// The load average after the last section.
    load_after: String,
    sections: Vec<Section>,
}

/// What belongs together.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Section {
    pub(crate) name: &'static str,
    pub(crate) tables: Vec<Table>,
    pub(crate) notes: Vec<String>,
    /// Single measurements, for the CSV file.
    #[serde(skip)]
    pub(crate) samples: Vec<Vec<(&'static str, Cell)>>,
    /// Distributions in ns, by what was measured, the variant and the load: `latency/Portico, fast path/100000 pps`.
    #[serde(skip)]
    pub(crate) histograms: Vec<(String, hdrhistogram::Histogram<u64>)>,
}

/// A table; its first column names the row.
#[derive(Debug, Serialize)]
pub(crate) struct Table {
    title: String,
    columns: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
}

/// A figure, in the unit that the head of its column says.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub(crate) enum Cell {
    /// No figure.
    Text(String),
    /// A whole number.
    Count(u64),
    /// A single measurement.
    Value(f64),
    /// Several.
    Range(Range),
    /// Not measured.
    None,
}

impl Report {
    pub(crate) const fn new(host: Host) -> Self {
        Self { host, load_after: String::new(), sections: Vec::new() }
    }

    pub(crate) fn add(&mut self, section: Section) {
        self.sections.push(section);
    }

    /// Takes down what the machine was doing at the end.
    pub(crate) fn finish(&mut self) {
        self.load_after = load();
    }
}

impl Table {
    pub(crate) fn new(title: impl Into<String>, columns: &[&'static str]) -> Self {
        Self { title: title.into(), columns: columns.to_vec(), rows: Vec::new() }
    }

    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.rows.push(cells.into_iter().collect());
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<u64> for Cell {
    fn from(count: u64) -> Self {
        Self::Count(count)
    }
}

impl From<u32> for Cell {
    fn from(count: u32) -> Self {
        Self::Count(count.into())
    }
}

impl From<f64> for Cell {
    fn from(value: f64) -> Self {
        Self::Value(value)
    }
}

impl<T: Into<Self>> From<Option<T>> for Cell {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::None, Into::into)
    }
}

impl From<Range> for Cell {
    fn from(range: Range) -> Self {
        Self::Range(range)
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Count(count) => count.fmt(f),
            Self::Value(value) => f.write_str(&digits(*value)),
            Self::Range(Range { median, min, max, .. }) => {
                write!(f, "{} ({}..{})", digits(*median), digits(*min), digits(*max))
            }
            Self::None => f.write_str("-"),
        }
    }
}

/// Three digits that mean something.
fn digits(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        v if v >= 1.0 || v == 0.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}, after it {}", self.host, self.load_after)?;
        for section in &self.sections {
            writeln!(f, "\n== {} ==", section.name)?;
            for table in &section.tables {
                writeln!(f, "\n{table}")?;
            }
            for note in &section.notes {
                writeln!(f, "{note}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.title)?;
        let mut table = comfy_table::Table::new();
        table.load_style(NOTHING).set_header(&self.columns);
        for row in &self.rows {
            table.add_row(row.iter().map(ToString::to_string));
        }
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        writeln!(f, "{}", table.trim_fmt())
    }
}

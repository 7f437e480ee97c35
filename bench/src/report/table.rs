//! Tables of figures.

use std::fmt;

use comfy_table::{
    CellAlignment, TableStyle,
    presets::{ASCII_MARKDOWN, NOTHING},
};
use serde::{Deserialize, Serialize};

use super::plot::Plot;
use crate::stats::Range;

/// A table; its first columns name the row.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Table {
    pub(super) title: String,
    pub(super) columns: Vec<String>,
    pub(super) rows: Vec<Vec<Cell>>,
    /// How the page draws it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) plots: Vec<Plot>,
}

/// A figure, in the unit that the head of its column says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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

impl Table {
    pub(crate) fn new(title: impl Into<String>, columns: &[&'static str]) -> Self {
        let columns = columns.iter().map(|column| (*column).to_owned()).collect();
        Self { title: title.into(), columns, ..Self::default() }
    }

    /// Has the page draw it too; may be called several times.
    pub(crate) fn plot(mut self, plot: Plot) -> Self {
        self.plots.push(plot);
        self
    }

    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// Of rows that name their cells; columns in order of their first appearance.
    pub(super) fn of_samples(samples: Vec<Vec<(&'static str, Cell)>>) -> Self {
        let mut columns: Vec<String> = Vec::new();
        for (name, _) in samples.iter().flatten() {
            if !columns.iter().any(|column| column == name) {
                columns.push((*name).to_owned());
            }
        }
        let rows = samples.into_iter().map(|sample| {
            let cell = |column: &String| sample.iter().find(|(name, _)| name == column);
            columns.iter().map(|column| cell(column).map_or(Cell::None, |(_, cell)| cell.clone())).collect()
        });
        Self { rows: rows.collect(), columns, ..Self::default() }
    }

    pub(super) fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column == name)
    }

    /// Its rows, to be asked by name.
    pub(crate) fn records(&self) -> impl Iterator<Item = Record<'_>> {
        self.rows.iter().map(|cells| Record { table: self, cells })
    }

    /// As Markdown has tables.
    pub(super) fn markdown(&self) -> String {
        self.laid_out(ASCII_MARKDOWN).to_string()
    }

    fn laid_out(&self, style: TableStyle) -> comfy_table::Table {
        let mut table = comfy_table::Table::new();
        table.load_style(style).set_header(&self.columns);
        for row in &self.rows {
            table.add_row(row.iter().map(ToString::to_string));
        }
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        table
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.title)?;
        writeln!(f, "{}", self.laid_out(NOTHING).trim_fmt())
    }
}

/// A row of a table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Record<'a> {
    table: &'a Table,
    cells: &'a [Cell],
}

impl<'a> Record<'a> {
    pub(crate) fn cell(self, column: &str) -> Option<&'a Cell> {
        self.cells.get(self.table.column(column)?)
    }

    pub(crate) fn text(self, column: &str) -> Option<&'a str> {
        match self.cell(column)? {
            Cell::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn range(self, column: &str) -> Option<Range> {
        self.cell(column)?.range()
    }

    pub(crate) fn number(self, column: &str) -> Option<f64> {
        Some(self.range(column)?.median)
    }
}

impl Cell {
    /// A figure as a range, of one value if it is no other.
    pub(crate) fn range(&self) -> Option<Range> {
        match self {
            Self::Count(count) => Range::of(vec![*count as f64]),
            Self::Value(value) => Range::of(vec![*value]),
            Self::Range(range) => Some(*range),
            Self::Text(_) | Self::None => None,
        }
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

/// What divides by nothing is no figure, and JSON could not hold it.
impl From<f64> for Cell {
    fn from(value: f64) -> Self {
        if value.is_finite() { Self::Value(value) } else { Self::None }
    }
}

impl<T: Into<Self>> From<Option<T>> for Cell {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::None, Into::into)
    }
}

impl From<Range> for Cell {
    fn from(range: Range) -> Self {
        let finite = [range.median, range.min, range.max].into_iter().all(f64::is_finite);
        if finite { Self::Range(range) } else { Self::None }
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
pub(crate) fn digits(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        v if v >= 1.0 || v == 0.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

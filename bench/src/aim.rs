//! What the figures are meant to stay below.

use crate::report::{Cell, Table};

/// Planning and writing everything, in seconds.
pub(crate) const COLD: f64 = 5.0;
/// One endpoint more or less, in milliseconds.
pub(crate) const ENDPOINT: f64 = 20.0;
/// The daemon and the nft maps, in MB (2^20 bytes).
pub(crate) const MEMORY: f64 = 200.0;

/// A table of aims.
pub(crate) fn table() -> Table {
    Table::new("aims", &["what", "aim", "measured", ""])
}

/// Adds an aim to it.
pub(crate) fn row(table: &mut Table, what: impl Into<Cell>, unit: &str, aim: f64, measured: f64) {
    let verdict = if measured < aim { "met" } else { "MISSED" };
    table.row([what.into(), format!("under {aim} {unit}").into(), measured.into(), verdict.into()]);
}

//! What the figures are meant to stay below.

use crate::{
    report::{Cell, Table},
    stats::Range,
};

/// Planning and writing everything, in seconds.
pub(crate) const COLD: f64 = 5.0;
/// One endpoint more or less, in milliseconds.
pub(crate) const ENDPOINT: f64 = 20.0;
/// The daemon and the nft maps, in MB (2^20 bytes).
pub(crate) const MEMORY: f64 = 200.0;

/// New flows a second, by those of the nftables ruleset with one service.
pub(crate) const NEW: f64 = 1.0;
/// New flows a second with [`MANY`] services, by those of the nftables ruleset with as many.
pub(crate) const NEW_MANY: f64 = 1.3;
/// Services that count as many.
pub(crate) const MANY: u32 = 10_000;
/// Cost of a packet with many services, by that with one: what is taken for noise.
pub(crate) const NOISE: f64 = 1.05;

/// A table of aims.
pub(crate) fn table() -> Table {
    Table::new("aims", &["what", "aim", "measured", ""])
}

/// Adds an aim to it.
pub(crate) fn row(table: &mut Table, what: impl Into<Cell>, unit: &str, aim: f64, measured: f64) {
    let verdict = if measured < aim { "met" } else { "MISSED" };
    table.row([what.into(), format!("under {aim} {unit}").into(), measured.into(), verdict.into()]);
}

/// Adds an aim that is a ratio, to be reached or to be kept below.
pub(crate) fn ratio(table: &mut Table, what: impl Into<Cell>, reach: bool, aim: f64, measured: Range) {
    let (word, met) =
        if reach { ("at least", measured.median >= aim) } else { ("at most", measured.median <= aim) };
    let verdict = if met { "met" } else { "MISSED" };
    table.row([what.into(), format!("{word} {aim}").into(), measured.into(), verdict.into()]);
}

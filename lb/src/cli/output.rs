//! One renderer for everything that is listed.

use std::io::{self, Write as _};

use clap::ValueEnum;
use comfy_table::{ContentArrangement, Table, presets::NOTHING};
use serde::Serialize;

/// Output formats.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// For people
    #[default]
    Table,
    /// For programs
    Json,
    /// For both
    Yaml,
}

/// Something with a row in a table.
pub(super) trait Row: Serialize {
    /// Titles of the columns.
    const COLUMNS: &'static [&'static str];

    /// The cells of one row.
    fn cells(&self) -> Vec<String>;
}

pub(super) fn list<T: Row>(format: Format, rows: &[T]) -> anyhow::Result<()> {
    match format {
        Format::Json => json(rows),
        Format::Yaml => yaml(rows),
        Format::Table => {
            let rows = rows.iter().map(Row::cells).collect();
            Ok(writeln!(io::stdout().lock(), "{}", table(T::COLUMNS, rows))?)
        }
    }
}

pub(super) fn json<T: Serialize + ?Sized>(value: &T) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    serde_json::to_writer_pretty(&mut out, value)?;
    Ok(writeln!(out)?)
}

pub(super) fn yaml<T: Serialize + ?Sized>(value: &T) -> anyhow::Result<()> {
    Ok(write!(io::stdout().lock(), "{}", serde_saphyr::to_string(&value)?)?)
}

/// One thing: for people a line for each of its names that has a value.
pub(super) fn pairs<T: Serialize>(
    format: Format,
    value: &T,
    pairs: &[(&str, Option<String>)],
) -> anyhow::Result<()> {
    match format {
        Format::Json => json(value),
        Format::Yaml => yaml(value),
        Format::Table => {
            let mut out = io::stdout().lock();
            for (name, value) in pairs {
                if let Some(value) = value {
                    writeln!(out, "{name:<12}{value}")?;
                }
            }
            Ok(())
        }
    }
}

pub(super) fn table(columns: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(columns.iter().map(|title| title.to_uppercase()).collect::<Vec<_>>());
    table.add_rows(rows);
    if let Some(last) = table.column_count().checked_sub(1) {
        for index in 0..last {
            if let Some(column) = table.column_mut(index) {
                column.set_padding((0, 2));
            }
        }
        if let Some(column) = table.column_mut(last) {
            column.set_padding((0, 0));
        }
    }
    table.trim_fmt()
}

//! One renderer for everything that is listed.

use std::io::{self, StdoutLock, Write};

use clap::ValueEnum;
use comfy_table::{ContentArrangement, Table, presets::NOTHING};
use serde::Serialize;

use crate::text;

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

/// Standard output. Whoever read it may have had enough, as `head` has: that is no failure, and what the command does
/// besides goes on. A full disk is one.
pub(super) struct Output {
    out: StdoutLock<'static>,
}

impl Output {
    pub(super) fn lock() -> Self {
        Self { out: io::stdout().lock() }
    }
}

impl Write for Output {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        unless_closed(self.out.write(text), text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        unless_closed(self.out.flush(), ())
    }
}

/// No error if it is that nobody reads.
pub(super) fn unless_closed<T>(outcome: io::Result<T>, done: T) -> io::Result<T> {
    match outcome {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(done),
        outcome => outcome,
    }
}

/// Prints a line.
pub(super) fn print(line: &str) -> io::Result<()> {
    writeln!(Output::lock(), "{line}")
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
            Ok(writeln!(Output::lock(), "{}", table(T::COLUMNS, rows))?)
        }
    }
}

pub(super) fn json<T: Serialize + ?Sized>(value: &T) -> anyhow::Result<()> {
    Ok(writeln!(Output::lock(), "{}", serde_json::to_string_pretty(value)?)?)
}

pub(super) fn yaml<T: Serialize + ?Sized>(value: &T) -> anyhow::Result<()> {
    Ok(write!(Output::lock(), "{}", serde_saphyr::to_string(&value)?)?)
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
            let mut out = Output::lock();
            for (name, value) in pairs {
                if let Some(value) = value {
                    writeln!(out, "{name:<12}{}", text::clean(value))?;
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
    let cells = |row: Vec<String>| row.iter().map(|cell| text::clean(cell)).collect::<Vec<_>>();
    table.add_rows(rows.into_iter().map(cells));
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

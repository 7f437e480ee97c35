//! Tables for other programs to read, as RFC 4180 has them.

use anyhow::Context as _;

use super::table::{Cell, Table};

/// What a range becomes.
const PARTS: [&str; 4] = ["median", "min", "max", "count"];

/// A line for each row. A column with ranges becomes four; what was not measured is empty. Numbers are not rounded.
pub(super) fn of(table: &Table) -> anyhow::Result<String> {
    let ranges: Vec<bool> = (0..table.columns.len())
        .map(|column| table.rows.iter().any(|row| matches!(row.get(column), Some(Cell::Range(_)))))
        .collect();
    let mut writer = csv::Writer::from_writer(Vec::new());
    let head = table.columns.iter().zip(&ranges).flat_map(|(name, range)| match range {
        true => PARTS.iter().map(|part| format!("{name} {part}")).collect(),
        false => vec![name.clone()],
    });
    writer.write_record(head)?;
    for row in &table.rows {
        let fields = ranges.iter().enumerate().flat_map(|(column, range)| {
            let cell = row.get(column).unwrap_or(&Cell::None);
            if *range { parts(cell).to_vec() } else { vec![field(cell)] }
        });
        writer.write_record(fields)?;
    }
    let bytes = writer.into_inner().context("cannot write CSV")?;
    Ok(String::from_utf8(bytes)?)
}

fn field(cell: &Cell) -> String {
    match cell {
        Cell::Text(text) => text.clone(),
        Cell::Count(count) => count.to_string(),
        Cell::Value(value) => value.to_string(),
        Cell::Range(range) => range.median.to_string(),
        Cell::None => String::new(),
    }
}

fn parts(cell: &Cell) -> [String; 4] {
    match (cell, cell.range()) {
        (_, Some(range)) => {
            let [median, min, max] = [range.median, range.min, range.max].map(|value| value.to_string());
            [median, min, max, range.count.to_string()]
        }
        (other, None) => [field(other), String::new(), String::new(), String::new()],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::Range;

    #[test]
    fn what_separates_is_quoted() {
        let mut table = Table::new("", &["variant", "said \"so\"", "lines"]);
        table.row(["Portico, fast path".into(), Cell::None, "one\ntwo".into()]);
        assert_eq!(
            of(&table).unwrap(),
            "variant,\"said \"\"so\"\"\",lines\n\"Portico, fast path\",,\"one\ntwo\"\n"
        );
    }

    #[test]
    fn ranges_are_spelled_out() {
        let mut table = Table::new("", &["variant", "ns", "lost"]);
        table.row(["a".into(), Range::of(vec![1.0, 4.5, 2.0]).into(), 3_u64.into()]);
        table.row(["b".into(), Cell::None, 0.25.into()]);
        table.row(["c".into(), 7.0.into(), Cell::None]);
        assert_eq!(
            of(&table).unwrap(),
            "variant,ns median,ns min,ns max,ns count,lost\na,2,1,4.5,3,3\nb,,,,,0.25\nc,7,7,7,1,\n"
        );
    }

    #[test]
    fn samples_share_their_columns() {
        let samples = vec![
            vec![("variant", "a".into()), ("ns", 1.5.into())],
            vec![("flows", 3_u64.into()), ("variant", "b".into())],
        ];
        assert_eq!(of(&Table::of_samples(samples)).unwrap(), "variant,ns,flows\na,1.5,\nb,,3\n");
    }
}

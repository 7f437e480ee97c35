//! Text for the terminal, and for documents.

use std::fmt;

use super::Report;

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

impl Report {
    /// Headings, tables and notes for a document to take from.
    pub(super) fn markdown(&self) -> String {
        let sections = self.sections.iter().map(|section| {
            let tables =
                section.tables.iter().map(|table| format!("### {}\n\n{}\n\n", table.title, table.markdown()));
            let notes = section.notes.iter().map(|note| format!("- {note}\n"));
            format!("## {}\n\n{}{}\n", section.name, tables.collect::<String>(), notes.collect::<String>())
        });
        format!("{}, after it {}.\n\n{}", self.host, self.load_after, sections.collect::<String>())
    }
}

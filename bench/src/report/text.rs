//! Text for the terminal, and for documents.

use std::fmt;

use super::Report;
use crate::aim;

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
        write!(f, "\n{}", aim::table(&aim::judge(self)))
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
        let (host, load) = (&self.host, &self.load_after);
        let aims = aim::table(&aim::judge(self)).markdown();
        let command = &self.conditions.command;
        let sections = sections.collect::<String>();
        format!("{host}, after it {load}.\n\n    {command}\n\n## Aims\n\n{aims}\n\n{sections}")
    }
}

//! A directory with all outputs.

use std::{collections::BTreeSet, fs, path::Path};

use anyhow::Context as _;

use serde::Serialize;

use super::{Report, csv};
use crate::aim;

/// Where each run leaves its figures for the outputs to be made again.
const JSON: &str = "report.json";
pub(crate) const PAGE: &str = "report.html";

/// What the JSON holds beyond a report; it is found out anew when that is read.
#[derive(Serialize)]
struct Judged<'a> {
    aims: Vec<aim::Judged>,
    #[serde(flatten)]
    report: &'a Report,
}

impl Report {
    /// Makes the directory if it is not there. Files of the same names are overwritten, others are left alone.
    pub(crate) fn write(&self, dir: &Path) -> anyhow::Result<()> {
        for (name, content) in self.files()? {
            let path = dir.join(name);
            let parent = path.parent().unwrap_or(dir);
            fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
            fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(())
    }

    /// What was written by [`Self::write`].
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        serde_json::from_str(&text).with_context(|| format!("{} is no report", path.display()))
    }

    /// Paths in the directory, and what is to be there.
    fn files(&self) -> anyhow::Result<Vec<(String, String)>> {
        let mut files = vec![
            (PAGE.to_owned(), self.page()),
            ("report.txt".to_owned(), self.to_string()),
            ("report.md".to_owned(), self.markdown()),
            (
                JSON.to_owned(),
                serde_json::to_string_pretty(&Judged { aims: aim::judge(self), report: self })?,
            ),
        ];
        let mut names = Names::default();
        for section in &self.sections {
            if !section.samples.rows.is_empty() {
                let name = names.unused(&format!("csv/{}-samples", section.name), "csv");
                files.push((name, csv::of(&section.samples)?));
            }
            for table in &section.tables {
                let name = names.unused(&format!("csv/{}-{}", section.name, slug(&table.title)), "csv");
                files.push((name, csv::of(table)?));
            }
            for distribution in &section.histograms {
                let name = names.unused(&format!("hgrm/{}", slug(&distribution.name)), "hgrm");
                files.push((name, distribution.percentiles()?));
            }
        }
        Ok(files)
    }
}

/// Names of files so far.
#[derive(Default)]
struct Names(BTreeSet<String>);

impl Names {
    fn unused(&mut self, stem: &str, extension: &str) -> String {
        let mut name = format!("{stem}.{extension}");
        let mut number = 2;
        while !self.0.insert(name.clone()) {
            name = format!("{stem}-{number}.{extension}");
            number += 1;
        }
        name
    }
}

/// A title as part of a file's name, or of an address in the page.
pub(super) fn slug(title: &str) -> String {
    let lower = title.to_lowercase();
    let words = lower.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn titles_become_names_of_files() {
        let mut names = Names::default();
        let stem = slug("V4 TCP, frames of 60 bytes; 1/2 \"flows\"");
        assert_eq!(stem, "v4-tcp-frames-of-60-bytes-1-2-flows");
        assert_eq!(names.unused("a", "csv"), "a.csv");
        assert_eq!(names.unused("a", "csv"), "a-2.csv");
        assert_eq!(names.unused("a", "csv"), "a-3.csv");
    }
}

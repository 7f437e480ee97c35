//! What was run, and how to run it again.

use std::{env, path::Path, process::Command};

use clap::{ArgMatches, parser::ValueSource};
use serde::{Deserialize, Serialize};

/// Among the versions of a build whose own figures mean nothing.
pub(crate) const DEBUGGING: &str = "portico-bench built for debugging";

/// The words and programs of a run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Conditions {
    /// For a shell.
    pub(crate) command: String,
    pub(crate) settings: Vec<Setting>,
    /// Programs, as they name themselves.
    pub(crate) versions: Vec<String>,
}

/// An option of the command line.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Setting {
    pub(crate) name: String,
    pub(crate) value: String,
    /// Whether nobody asked for it.
    pub(crate) default: bool,
}

impl Conditions {
    pub(crate) fn look(command: &clap::Command, matches: &ArgMatches, portico: Option<&Path>) -> Self {
        let mut words: Vec<String> = env::args().map(|word| quoted(&word)).collect();
        if let Some(name) = words.first_mut() {
            env!("CARGO_PKG_NAME").clone_into(name);
        }
        let portico = portico.and_then(|path| {
            let output = Command::new(path).arg("--version").output().ok()?;
            Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
        });
        let compiler = format!("compiled by {}", env!("PORTICO_BENCH_RUSTC"));
        let build =
            if cfg!(debug_assertions) { "portico-bench built for debugging" } else { "release build" };
        Self {
            command: words.join(" "),
            settings: settings(command, matches),
            versions: portico.into_iter().chain([compiler, build.to_owned()]).collect(),
        }
    }
}

/// All options that have a value, whoever gave it; those of one section alone only if somebody did.
fn settings(command: &clap::Command, matches: &ArgMatches) -> Vec<Setting> {
    let settings = command.get_arguments().filter(|option| !option.is_hide_set()).filter_map(|option| {
        let id = option.get_id().as_str();
        let values = matches.try_get_raw(id).ok()??;
        let values: Vec<_> = values.map(|value| value.to_string_lossy()).collect();
        let default = matches.value_source(id) == Some(ValueSource::DefaultValue);
        if default && option.get_help_heading().is_some() {
            return None;
        }
        Some(Setting { name: id.replace('_', "-"), value: values.join(","), default })
    });
    settings.collect()
}

/// As a shell reads it back.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=+:,./@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_can_be_pasted() {
        assert_eq!(quoted("--flows=1,1000"), "--flows=1,1000");
        assert_eq!(quoted("my dir"), "'my dir'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
        assert_eq!(quoted(""), "''");
    }
}

//! What is wrong with a configuration, or without effect.

use std::fmt;

use crate::text;

/// Something that was set and is not honoured.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Note {
    /// The flag, or the file and the path in its document.
    pub object: String,
    /// One line.
    pub reason: String,
}

/// Something wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mistake {
    /// The file or the flag.
    pub place: String,
    /// The path in the document, if it is about one.
    pub path: String,
    /// One line.
    pub problem: String,
}

impl Mistake {
    /// One at the same place with another path.
    pub(super) fn below(&self, key: &str) -> Self {
        let path = match (self.path.as_str(), key.starts_with('[')) {
            ("", _) => key.to_owned(),
            (path, true) => format!("{path}{key}"),
            (path, false) => format!("{path}.{key}"),
        };
        Self { place: self.place.clone(), path, problem: String::new() }
    }

    /// This one, for a reason.
    pub(super) fn because(&self, problem: String) -> Self {
        Self { problem, ..self.clone() }
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [&self.place, &self.path, &self.problem].into_iter().filter(|part| !part.is_empty());
        // Keys of the file and file names are in it.
        f.write_str(&text::line(parts.map(String::as_str).collect::<Vec<_>>().join(": ")))
    }
}

/// All mistakes, a line for each.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub struct Mistakes(pub Vec<Mistake>);

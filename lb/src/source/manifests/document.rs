//! The text of a manifest file to documents. Pure.

use std::{hash::Hasher as _, sync::Arc};

use super::object::{Key, Object};

/// How a file is written, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// One document.
    Json,
    /// Any number of documents.
    Yaml,
}

/// The most objects, and the most documents, that are read from one file: as many as the kernel's maps have room for
/// services and tables. Each takes some hundred bytes of memory, however few it takes in the file.
pub(super) const OBJECTS: usize = 262_144;

/// An object of a file.
pub(super) type Entry = (Key, Arc<Object>);

/// A document within a file.
pub(super) struct Document<'a> {
    /// First line of `text`, from 1.
    pub(super) first: usize,
    /// First line that is neither blank nor a comment, from 1.
    pub(super) line: usize,
    pub(super) hash: u64,
    pub(super) text: &'a str,
}

/// Splits at the lines that begin with `---`, which YAML allows nowhere within a document, not even in a block scalar.
/// So a mistake in one document cannot spill over into the next, as it would with one parser for all.
pub(super) fn split(text: &str) -> Vec<Document<'_>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut documents = Vec::new();
    let (mut start, mut first, mut begin, mut marked) = (0, 1, None, false);
    let mut offset = 0;
    for (line, number) in text.split_inclusive('\n').zip(1..) {
        let marker = line.strip_prefix("---");
        let marker = marker.filter(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']));
        if marker.is_some() {
            let begun = begin.take();
            if let Some(line) = begun {
                let text = text.get(start..offset).unwrap_or_default();
                documents.push(Document { first, line, hash: hash(text), text });
                if documents.len() > OBJECTS {
                    return documents;
                }
            }
            // An empty document is none, and must not be part of the next.
            if begun.is_some() || marked {
                (start, first) = (offset, number);
            }
            marked = true;
        }
        // Directives and comments ahead of the marker belong to the document behind it.
        let rest = marker.unwrap_or(line).trim();
        if begin.is_none()
            && !rest.is_empty()
            && !rest.starts_with('#')
            && !line.starts_with('%')
            && rest != "..."
        {
            begin = Some(number);
        }
        offset += line.len();
    }
    if let Some(line) = begin {
        let text = text.get(start..).unwrap_or_default();
        documents.push(Document { first, line, hash: hash(text), text });
    }
    documents
}

pub(super) fn hash(text: &str) -> u64 {
    // Keyed with zeros, so the same in every run; whoever can write the files can make collisions, in their own files.
    let mut hasher = std::hash::DefaultHasher::new();
    hasher.write(text.as_bytes());
    hasher.finish()
}

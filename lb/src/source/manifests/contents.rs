//! What a manifest file holds: its documents, and their objects. Pure.

use std::collections::HashMap;

use super::{
    document::{Document, Entry, Format, OBJECTS, hash, split},
    reader::{self, Page, Room},
};
use crate::{convert::Selector, text::Lines};

/// What a file holds.
#[derive(Debug, Default)]
pub(super) struct Contents {
    /// Objects, with the line, from 1, at which their document begins.
    pub(super) objects: Vec<(usize, Entry)>,
    /// One line each, which names the line in the file.
    pub(super) problems: Lines,
    /// Whether there may be objects in the file that could not be made out.
    pub(super) incomplete: bool,
    /// Documents that had nothing wrong, by [`hash`]: of a large file, only what changed is parsed again.
    pub(super) clean: Clean,
}

/// Entries of documents, by [`hash`] of their text.
pub(super) type Clean = HashMap<u64, Vec<Entry>>;

/// Reads a file. `clean` is what reading its previous version left in [`Contents::clean`]; `name` is put ahead of the
/// reasons why an object was rejected.
pub(super) fn read(name: &str, text: &str, format: Format, selector: &Selector, clean: &Clean) -> Contents {
    let documents = match format {
        Format::Json => vec![Document { first: 1, line: 1, hash: hash(text), text }],
        Format::Yaml => split(text),
    };
    let mut contents = Contents::default();
    if documents.len() > OBJECTS {
        contents.problems.push(format!("more than {OBJECTS} documents in one file"));
        contents.incomplete = true;
        return contents;
    }
    // Whether the file may end within its last object.
    let mut cut = false;
    let dirty: Vec<_> = documents.iter().filter(|d| !clean.contains_key(&d.hash)).collect();
    let room = Room::new();
    let parse = |document: &Document<'_>| reader::parse(name, document, format, selector, &room);
    let mut parsed = parse_all(&dirty, parse).into_iter();
    for document in &documents {
        let entries = match clean.get(&document.hash) {
            Some(entries) => {
                contents.clean.insert(document.hash, entries.clone());
                entries.clone()
            }
            None => {
                let page = parsed.next().unwrap_or_default();
                contents.incomplete |= page.incomplete;
                if page.problems.is_empty()
                    && page.entries.iter().all(|(_, object)| object.rejected().is_none())
                {
                    contents.clean.insert(document.hash, page.entries.clone());
                }
                contents.problems.append(page.problems);
                page.entries
            }
        };
        cut = format == Format::Yaml && entries.last().is_some_and(|(_, object)| !object.is_sound());
        contents.objects.extend(entries.into_iter().map(|entry| (document.line, entry)));
    }
    contents.incomplete |= cut;
    contents
}

/// Fewest documents for which a thread is worth its while.
const BATCH: usize = 64;

/// Parses documents, in their order. YAML takes 60 to 90 ns a byte, hence the threads.
fn parse_all(documents: &[&Document<'_>], parse: impl Fn(&Document<'_>) -> Page + Sync) -> Vec<Page> {
    let parse = |batch: &[&Document<'_>]| batch.iter().map(|d| parse(d)).collect::<Vec<_>>();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let batch = documents.len().div_ceil(threads).max(BATCH);
    if documents.len() <= batch {
        return parse(documents);
    }
    std::thread::scope(|scope| {
        let parse = &parse;
        let batches = documents.chunks(batch).map(|batch| {
            let thread = std::thread::Builder::new().spawn_scoped(scope, move || parse(batch));
            (batch, thread)
        });
        let batches: Vec<_> = batches.collect();
        let pages = batches.into_iter().flat_map(|(batch, thread)| match thread {
            Ok(thread) => thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            Err(_) => parse(batch),
        });
        pages.collect()
    })
}

#[cfg(test)]
mod tests;

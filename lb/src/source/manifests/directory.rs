//! The directory on disk: reads what changed into a [`Tree`]. Blocking.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{self, Read as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use super::{contents, document::Format, tree::Tree};
use crate::{convert::Selector, model::change::Event};

/// Larger files are refused, unread: some 40,000 Services with their slices fit, and there may be several files.
const MAX_BYTES: u64 = 64 << 20;
/// The kernel stamps files by a clock that moves in steps of up to 10 ms. A file that changed this recently may change
/// once more and have the same stamp.
const YOUNG: Duration = Duration::from_millis(100);

/// What tells one state of a file from another: device, inode, size, modification and status change time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    identity: Identity,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// Device and inode.
pub(super) type Identity = (u64, u64);

impl Stamp {
    fn of(metadata: &fs::Metadata) -> Self {
        Self {
            identity: (metadata.dev(), metadata.ino()),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    fn is_young(&self) -> bool {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let (seconds, nanoseconds) = self.changed;
        let changed = Duration::new(seconds.try_into().unwrap_or(0), nanoseconds.try_into().unwrap_or(0));
        now.saturating_sub(changed) < YOUNG
    }
}

/// A directory of manifests.
pub(super) struct Directory {
    path: PathBuf,
    selector: Selector,
    tree: Tree,
    /// Of each file as it was last read, unless it was too young for that to mean anything.
    stamps: BTreeMap<String, Stamp>,
}

impl Directory {
    pub(super) fn new(path: PathBuf, selector: Selector) -> Self {
        Self { path, selector, tree: Tree::default(), stamps: BTreeMap::new() }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Device and inode of what is at the path now.
    pub(super) fn identity(&self) -> io::Result<Identity> {
        fs::metadata(&self.path).map(|m| Stamp::of(&m).identity)
    }

    /// Sets or withdraws what is wrong with the directory itself.
    pub(super) fn trouble(&mut self, problem: Option<String>) {
        self.tree.trouble(&self.path.display().to_string(), problem);
    }

    /// All there is, as the first events.
    pub(super) fn first(&mut self) -> Vec<Event> {
        let Self { path, tree, .. } = self;
        tree.first(|name| place(path, name))
    }

    /// What changed since the last events.
    pub(super) fn changes(&mut self) -> Vec<Event> {
        let Self { path, tree, .. } = self;
        tree.changes(|name| place(path, name))
    }

    /// Reads the files in `dirty`, and all others that do not look as they did when they were last read.
    ///
    /// # Errors
    /// If the directory cannot be read; then nothing has changed.
    pub(super) fn scan(&mut self, dirty: &BTreeSet<String>) -> io::Result<()> {
        let mut present = BTreeMap::new();
        for entry in fs::read_dir(&self.path)? {
            let name = entry?.file_name();
            // A name that is not UTF-8 could neither be shown nor compared with the one in a notification.
            if let Some(name) = name.to_str()
                && let Some(format) = format(name)
            {
                present.insert(name.to_owned(), format);
            }
        }
        for (name, format) in &present {
            self.look(name, *format, dirty.contains(name));
        }
        let gone: Vec<_> = self.tree.files().filter(|f| !present.contains_key(*f)).cloned().collect();
        for name in gone {
            self.tree.remove(&name);
            self.stamps.remove(&name);
        }
        Ok(())
    }

    fn look(&mut self, name: &str, format: Format, dirty: bool) {
        let path = self.path.join(name);
        match fs::metadata(&path) {
            // A directory that is named like a file is none of ours; opening a pipe would wait for its writer.
            Ok(metadata) if !metadata.is_file() => {
                self.tree.remove(name);
                self.stamps.remove(name);
            }
            Ok(metadata) => {
                let stamp = Stamp::of(&metadata);
                if !dirty && self.stamps.get(name) == Some(&stamp) {
                    return;
                }
                self.stamps.remove(name);
                let young = stamp.is_young();
                match self.load(name, &path, format, stamp) {
                    Ok(()) if !young => {
                        self.stamps.insert(name.to_owned(), stamp);
                    }
                    Ok(()) => {}
                    Err(error) => self.tree.fail(name, format!("cannot be read: {error}")),
                }
            }
            Err(error) => self.tree.fail(name, format!("cannot be read: {error}")),
        }
    }

    fn load(&mut self, name: &str, path: &Path, format: Format, stamp: Stamp) -> io::Result<()> {
        if stamp.size > MAX_BYTES {
            return Err(too_large());
        }
        let text = read(path)?;
        if text.trim().is_empty() {
            self.tree.blank(name);
        } else {
            let contents = contents::read(name, &text, format, &self.selector, &self.tree.take_clean(name));
            self.tree.put(name, contents);
        }
        Ok(())
    }
}

fn too_large() -> io::Error {
    io::Error::new(
        io::ErrorKind::FileTooLarge,
        format!("it is larger than {} MiB, the most that a file may have", MAX_BYTES >> 20),
    )
}

/// The text of a file that may have grown, or become something else, since somebody looked.
fn read(path: &Path) -> io::Result<String> {
    // A pipe without writer is not waited for.
    let file = fs::File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    let mut text = String::new();
    if file.take(MAX_BYTES + 1).read_to_string(&mut text)? as u64 > MAX_BYTES {
        return Err(too_large());
    }
    Ok(text)
}

fn place(directory: &Path, name: &str) -> String {
    directory.join(name).display().to_string()
}

/// How a file is written, if it is one to be read. Hidden files are what editors and `ConfigMap` mounts work with.
fn format(name: &str) -> Option<Format> {
    let (stem, extension) = name.rsplit_once('.')?;
    if stem.is_empty() || name.starts_with('.') {
        return None;
    }
    match extension {
        "yaml" | "yml" => Some(Format::Yaml),
        "json" => Some(Format::Json),
        _ => None,
    }
}

//! Notifications of changes in a directory.

use std::{
    collections::BTreeSet,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use notify::{
    EventKind, RecommendedWatcher, RecursiveMode, Watcher as _,
    event::{AccessKind, AccessMode, ModifyKind},
};
use tokio::sync::Notify;

/// What was notified and not yet dealt with. Its size is bounded by the number of names in the directory.
#[derive(Debug, Default)]
pub(super) struct Pending {
    names: Mutex<Names>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Names {
    dirty: BTreeSet<String>,
    /// Written to, and not closed since.
    writing: BTreeSet<String>,
    /// The directory itself was moved or deleted.
    moved: bool,
}

impl Pending {
    /// Completes when something was notified since it last did.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Makes [`Self::changed`] complete.
    pub(super) fn poke(&self) {
        self.changed.notify_one();
    }

    /// Whether some file is open for writing.
    pub(super) fn is_writing(&self) -> bool {
        !self.names().writing.is_empty()
    }

    /// The names of the files that changed.
    pub(super) fn take(&self) -> BTreeSet<String> {
        let mut names = self.names();
        names.writing.clear();
        std::mem::take(&mut names.dirty)
    }

    /// Whether the directory itself was moved or deleted since this was last asked. There may be another in its place,
    /// and even the inode number may be the same.
    pub(super) fn take_moved(&self) -> bool {
        std::mem::take(&mut self.names().moved)
    }

    fn names(&self) -> MutexGuard<'_, Names> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, directory: &Path, event: &notify::Event) {
        let writing = match event.kind {
            EventKind::Access(AccessKind::Close(AccessMode::Write)) => false,
            // Reading; most of all our own.
            EventKind::Access(_) => return,
            EventKind::Modify(ModifyKind::Data(_)) => true,
            _ => false,
        };
        let mut names = self.names();
        names.moved |= matches!(event.kind, EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(_)))
            && event.paths.iter().any(|p| p == directory);
        for name in event.paths.iter().filter_map(|p| p.file_name()?.to_str()) {
            names.dirty.insert(name.to_owned());
            if writing {
                names.writing.insert(name.to_owned());
            } else {
                names.writing.remove(name);
            }
        }
        drop(names);
        self.poke();
    }
}

/// Notifies a [`Pending`] until it is dropped.
pub(super) struct Watch {
    _watcher: RecommendedWatcher,
}

impl Watch {
    pub(super) fn new(directory: &Path, pending: &Arc<Pending>) -> notify::Result<Self> {
        let pending = Arc::clone(pending);
        // As in the notifications.
        let directory = std::path::absolute(directory).map_err(notify::Error::io)?;
        let itself = directory.clone();
        let mut watcher =
            notify::recommended_watcher(move |event: notify::Result<notify::Event>| match event {
                Ok(event) => pending.note(&itself, &event),
                // A look at everything finds out what was missed.
                Err(_) => pending.poke(),
            })?;
        watcher.watch(&directory, RecursiveMode::NonRecursive)?;
        Ok(Self { _watcher: watcher })
    }
}

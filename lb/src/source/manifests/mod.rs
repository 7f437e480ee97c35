//! Objects from the manifest files in a directory, followed as they change.
//!
//! Read are `*.yaml`, `*.yml` and `*.json` that are not hidden: v1 Service and Node, discovery.k8s.io/v1 EndpointSlice,
//! networking.k8s.io/v1 ServiceCIDR, and lists of them, as `kubectl get -o yaml` prints them. Other kinds are skipped.
//! What was good stays until something good replaces it, or
//! until it is deleted: a file that cannot be parsed, in whole or in one document, an empty file, an unreadable file and
//! a vanished directory remove nothing; neither does a file larger than 64 MiB. Between a writer's steps a file may look like anything, so a change is read
//! once the directory has been quiet for [`SETTLE`].

mod contents;
mod directory;
mod document;
mod object;
mod reader;
mod tree;
mod watch;

use std::{collections::BTreeSet, io, path::PathBuf, sync::Arc, time::Duration};

use tokio::{
    sync::mpsc::Sender,
    time::{Instant, timeout, timeout_at},
};

use self::{
    directory::{Directory, Identity},
    watch::{Pending, Watch},
};
use crate::{convert::Selector, model::change::Event};

/// Quiet after which a change counts as finished.
const SETTLE: Duration = Duration::from_millis(50);
/// Likewise while a file is open for writing.
const WRITING: Duration = Duration::from_millis(500);
/// Longest wait for quiet, so that a file that is written all the time does not hold up the others.
const IMPATIENT: Duration = Duration::from_secs(1);
/// Time between looks at the directory that nothing gave cause for: notifications do not cross a symbolic link out of
/// the directory, network file systems have none, and queues overflow.
const RESCAN: Duration = Duration::from_secs(5);
/// Likewise while notifications do not work at all, or while the directory is missing.
const POLL: Duration = Duration::from_millis(500);

/// Why a directory cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It was not there, or could not be read, at the start.
    #[error("cannot read manifests in {path}")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Follows the manifests in `path`, and of them the Services and slices that `selector` selects, until the receiver of `events` is gone.
///
/// # Errors
/// If the directory cannot be read at the start. All that goes wrong later is told as [`Event::Trouble`].
pub async fn run(path: PathBuf, selector: Selector, events: Sender<Event>) -> Result<(), Error> {
    let pending = Arc::new(Pending::default());
    let mut state = State { directory: Directory::new(path.clone(), selector), watch: None, seen: None };
    let mut dirty = BTreeSet::new();
    let mut first = true;
    loop {
        let pending_there = Arc::clone(&pending);
        let scan = tokio::task::spawn_blocking(move || {
            let outcome = state.scan(&dirty, first, &pending_there);
            (state, outcome)
        });
        let outcome;
        (state, outcome) = match scan.await {
            Ok(done) => done,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            // The runtime is shutting down.
            Err(_) => return Ok(()),
        };
        for event in outcome.map_err(|source| Error::Directory { path: path.clone(), source })? {
            if events.send(event).await.is_err() {
                return Ok(());
            }
        }
        first = false;
        dirty = tokio::select! {
            dirty = settled(&pending, if state.watch.is_some() { RESCAN } else { POLL }) => dirty,
            () = events.closed() => return Ok(()),
        };
    }
}

/// Waits for changes and then for quiet, or until a look is due anyway. Returns the names of the changed files.
async fn settled(pending: &Pending, due: Duration) -> BTreeSet<String> {
    if timeout(due, pending.changed()).await.is_ok() {
        let start = Instant::now();
        loop {
            let quiet = if pending.is_writing() { WRITING } else { SETTLE };
            let until = (Instant::now() + quiet).min(start + IMPATIENT);
            if timeout_at(until, pending.changed()).await.is_err() {
                break;
            }
        }
    }
    pending.take()
}

struct State {
    directory: Directory,
    /// None if notifications do not work.
    watch: Option<Watch>,
    /// Which directory was at the path at the last look.
    seen: Option<Identity>,
}

impl State {
    /// Takes a look. Only the first may fail.
    fn scan(
        &mut self,
        dirty: &BTreeSet<String>,
        first: bool,
        pending: &Arc<Pending>,
    ) -> io::Result<Vec<Event>> {
        // The watch comes before the look, so that what changes in between is seen by one of them.
        let watched = self.follow(pending);
        let scanned = match &watched {
            Ok(Look::Now(_)) => self.directory.scan(dirty),
            Ok(Look::Later) if first => self.directory.scan(dirty),
            Ok(Look::Later) => return Ok(Vec::new()),
            Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
        };
        if first {
            scanned?;
            return Ok(self.directory.first());
        }
        self.directory.trouble(match (scanned, watched) {
            (Err(error), _) => {
                self.watch = None;
                Some(format!("cannot be read, so what was last seen in it counts: {error}"))
            }
            (Ok(()), Ok(Look::Now(problem))) => problem,
            (Ok(()), _) => None,
        });
        Ok(self.directory.changes())
    }

    /// Sees to it that the directory that is at the path now is the one that is watched.
    fn follow(&mut self, pending: &Arc<Pending>) -> io::Result<Look> {
        let identity = self.directory.identity()?;
        let replaced = self.seen.replace(identity) != Some(identity) || pending.take_moved();
        if self.watch.is_some() && !replaced {
            return Ok(Look::Now(None));
        }
        let watch = Watch::new(self.directory.path(), pending);
        let problem =
            watch.as_ref().err().map(|e| format!("changes are looked for every {POLL:?} only: {e}"));
        self.watch = watch.ok();
        if replaced {
            // Whoever put it there may be busy filling it.
            pending.poke();
            return Ok(Look::Later);
        }
        Ok(Look::Now(problem))
    }
}

/// When to look at the directory.
enum Look {
    /// Now; and what is wrong with watching it.
    Now(Option<String>),
    /// When it has settled.
    Later,
}

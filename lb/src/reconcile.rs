//! The one interpreter of the plan's steps, and the reader of what the kernel holds.

mod flags;
mod sweep;

pub use sweep::Sweeps;

use std::{
    collections::BTreeSet,
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use tracing::{debug, info, warn};

use crate::{
    driver::{
        maps::{self, Maps},
        nft::{self, Family, Nft},
    },
    error::chain,
    plan::{Actual, Dirty, Found, Index, NodeFacts, Planner, Step, Touched, maglev},
};
use sweep::Sweeper;

/// Why a step was not performed, or the kernel not read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A BPF map.
    #[error(transparent)]
    Maps(#[from] maps::Error),
    /// The nft table.
    #[error(transparent)]
    Nft(#[from] nft::Error),
    /// The thread that looks for stale flows.
    #[error("cannot start a thread")]
    Thread(#[from] io::Error),
}

/// Everything in the kernel that the plan is about.
#[derive(Debug)]
pub struct Kernel {
    /// The BPF maps.
    pub maps: Maps,
    /// The nft table.
    pub nft: Nft,
}

impl Kernel {
    /// What is there.
    ///
    /// # Errors
    ///
    /// A map or the table cannot be read.
    pub fn load(&self) -> Result<Actual, Error> {
        Ok(Actual {
            frontends: self.maps.frontends.load()?,
            backends: self.maps.backends.load()?,
            services: self.maps.services.load()?,
            tables: self.maps.maglev.load()?,
            flags: flags::load(&self.maps)?,
            translations: self.nft.load()?,
        })
    }

    /// Performs a step.
    ///
    /// # Errors
    ///
    /// The kernel refuses; some of its items may have been written.
    pub fn apply(&self, step: &Step) -> Result<(), Error> {
        let maps = &self.maps;
        match step {
            Step::AddTranslations(list) => self.nft.add(list)?,
            Step::PutBackends(list) => maps.backends.put(list)?,
            Step::PutServices(list) => maps.services.put(list)?,
            Step::PutTables(list) => maps.maglev.put(
                list.iter().map(|(id, spec)| (*id, maglev::chunks(&maglev::build(spec), spec).collect())),
            )?,
            Step::PutFrontends(list) => maps.frontends.put(list)?,
            Step::PutFlags(list) => flags::put(maps, list)?,
            Step::DeleteFrontends(list) => maps.frontends.delete(list)?,
            Step::DeleteFlags(list) => flags::delete(maps, list)?,
            Step::DeleteTables(list) => maps.maglev.delete(list)?,
            Step::DeleteServices(list) => maps.services.delete(list)?,
            Step::DeleteBackends(list) => maps.backends.delete(list)?,
            Step::DeleteTranslations(list) => {
                let labels: Vec<(u32, Family)> =
                    list.iter().map(|(label, addr)| (*label, Family::of(addr.ip()))).collect();
                self.nft.delete(&labels)?;
            }
        }
        Ok(())
    }
}

/// The outcome of the latest writes.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// Rounds in which something was written.
    pub rounds: u64,
    /// Entries written or deleted.
    pub entries: u64,
    /// How long the latest round took, planning included.
    pub latest: Duration,
    /// What failed in the latest round, if anything did.
    pub error: Option<String>,
    /// What came of looking for stale UDP flows and sockets.
    pub sweeps: Sweeps,
    /// Steps that failed to write, in all rounds.
    pub failed_writes: u64,
    /// Steps that failed to delete, likewise.
    pub failed_deletions: u64,
}

/// Least time between two rounds that nothing but time gave cause for.
const PAUSE: Duration = Duration::from_millis(100);

/// Keeps the kernel as the objects want it.
#[derive(Debug)]
pub struct Reconciler {
    kernel: Kernel,
    planner: Planner,
    start: Instant,
    progress: Progress,
    sweeper: Sweeper,
    /// What to look for in flows and sockets once a round of writes is over.
    touched: Touched,
    /// UDP endpoints that no Service uses and that still serve; and until all objects could be read all backends of the
    /// former process.
    waiting: BTreeSet<SocketAddr>,
    /// There may be UDP flows to any frontend that began while nobody translated them.
    untranslated: bool,
    /// Programs of another version serve.
    stands_by: bool,
}

/// Wait before what failed is tried again.
const RETRY: Duration = Duration::from_secs(1);

impl Reconciler {
    /// Adopts what the kernel holds, and the ids that another version gave to backends, if it serves.
    ///
    /// # Errors
    ///
    /// A map or the table cannot be read, or a thread not be started.
    pub fn adopt(kernel: Kernel, inherited: &[(u32, SocketAddr)]) -> Result<Self, Error> {
        let mut planner = Planner::new();
        let actual = kernel.load()?;
        if !actual.frontends.is_empty() {
            info!(
                frontends = actual.frontends.len(),
                backends = actual.backends.len(),
                "adopting the state of a former process"
            );
        }
        let backends = actual.backends.iter().map(|(_, backend)| SocketAddr::from(*backend));
        let waiting = backends.chain(inherited.iter().map(|(_, addr)| *addr)).collect();
        planner.adopt(actual, Duration::ZERO);
        planner.inherit(inherited, Duration::ZERO);
        planner.keep();
        Ok(Self {
            sweeper: Sweeper::start(Arc::clone(&kernel.maps.sockets))?,
            kernel,
            planner,
            start: Instant::now(),
            progress: Progress::default(),
            touched: Touched::default(),
            waiting,
            // Nobody knows what happened to the table before.
            untranslated: true,
            stands_by: false,
        })
    }

    /// What the kernel holds, for reading.
    #[must_use]
    pub fn kernel(&self) -> &Kernel {
        &self.kernel
    }

    /// Only fills tables, as long as programs of another version serve: deletes nothing, and leaves flows and sockets alone,
    /// which go where the other version's tables say.
    pub fn stand_by(&mut self) {
        self.stands_by = true;
        self.planner.set_adds_only(true);
    }

    /// Has the say from now on. Flows and sockets may be to endpoints that are gone since the other version last looked.
    /// They are looked for with the next [`Reconciler::sync`].
    pub fn take_charge(&mut self) {
        self.stands_by = false;
        self.planner.set_adds_only(false);
        self.untranslated = true;
    }

    /// See [`Nft::settle`].
    ///
    /// # Errors
    ///
    /// The table cannot be read or written.
    pub fn settle_table(&mut self) -> Result<(), Error> {
        self.kernel.nft.settle().map_err(Into::into)
    }

    /// What is planned.
    #[must_use]
    pub fn planner(&self) -> &Planner {
        &self.planner
    }

    /// How writing went.
    #[must_use]
    pub fn progress(&self) -> Progress {
        Progress { sweeps: self.sweeper.sweeps(), ..self.progress.clone() }
    }

    /// See [`Planner::let_go`].
    pub fn let_go(&mut self) {
        self.planner.let_go();
    }

    /// Plans for what changed and writes all that can be written now.
    pub fn sync(&mut self, index: &Index, facts: &NodeFacts, dirty: &Dirty) {
        let began = Instant::now();
        self.planner.plan(index, facts, dirty, self.now());
        self.sweeper.refresh(|stale| self.planner.stale(&stale.touched()));
        self.write(began);
        self.sweep(index);
    }

    /// Has the conntrack entries of UDP flows deleted, and UDP sockets destroyed, that would go wrong for ever: those to
    /// endpoints that their service port lost, and flows to frontends that are not translated.
    fn sweep(&mut self, index: &Index) {
        if !self.planner.has_plan() || self.stands_by {
            return;
        }
        self.touched.merge(self.planner.take_touched());
        if std::mem::take(&mut self.untranslated) {
            self.touched.frontends.extend(self.planner.udp_frontends());
        }
        // What is kept for objects that could not be read is used by nobody.
        if self.planner.kept() == 0 {
            self.waiting.append(&mut self.touched.orphans);
            self.waiting.retain(|backend| !self.planner.is_used(*backend));
            let serving = index.serving(&self.waiting);
            self.touched.orphans = std::mem::replace(&mut self.waiting, serving);
            self.touched.orphans.retain(|backend| !self.waiting.contains(backend));
        }
        self.sweeper.add(self.planner.stale(&self.touched));
        // As long as something could not be written there may be more: it is looked for again when that is done.
        if self.progress.error.is_none() {
            self.touched = Touched::default();
        }
    }

    /// Takes up again what waited for a quarantine to end, or for room, or failed before.
    pub fn resume(&mut self, index: &Index, facts: &NodeFacts) {
        self.planner.retry();
        self.sync(index, facts, &Dirty::default());
    }

    /// Makes sure of the nft table's chains and rules; if they had to be mended, of its elements, too.
    ///
    /// # Errors
    ///
    /// The table can be neither read nor written.
    pub fn repair(&mut self, index: &Index) -> Result<nft::Ensured, Error> {
        let ensured = self.kernel.nft.ensure()?;
        if ensured != nft::Ensured::Kept {
            self.untranslated = true;
            self.repair_translations(index)?;
        }
        Ok(ensured)
    }

    /// Makes sure of the elements of the nft table, and returns how many were not as they should be. Unlike rules there
    /// can be very many of them to list.
    ///
    /// # Errors
    ///
    /// The table cannot be read.
    pub fn repair_translations(&mut self, index: &Index) -> Result<usize, Error> {
        let began = Instant::now();
        let translations = self.kernel.nft.load()?;
        let before = self.planner.pending();
        self.planner.found(Found::Translations(translations), self.now());
        let wrong = self.planner.pending().saturating_sub(before);
        self.write(began);
        self.sweep(index);
        Ok(wrong)
    }

    /// Compares what the kernel holds with what was written, and mends the difference.
    ///
    /// # Errors
    ///
    /// A map or the table cannot be read.
    pub fn verify(&mut self) -> Result<(), Error> {
        let Actual { frontends, backends, services, tables, flags, translations } = self.kernel.load()?;
        let now = self.now();
        for found in [
            Found::Backends(backends),
            Found::Translations(translations),
            Found::Services(services),
            Found::Tables(tables),
            Found::Frontends(frontends),
            Found::Flags(flags),
        ] {
            self.planner.found(found, now);
        }
        self.write(Instant::now());
        Ok(())
    }

    /// How long until there is something to do without any change.
    #[must_use]
    pub fn wake_in(&self) -> Option<Duration> {
        let quarantine = self.planner.wake_at().map(|at| at.saturating_sub(self.now()));
        let retry = self.progress.error.is_some().then_some(RETRY);
        quarantine.into_iter().chain(retry).min().map(|wait| wait.max(PAUSE))
    }

    fn write(&mut self, began: Instant) {
        let mut entries = 0;
        let mut error = None;
        while let Some(step) = self.planner.next(self.now()) {
            match self.kernel.apply(&step) {
                Ok(()) => {
                    debug!(step = step.name(), entries = step.len(), "written");
                    entries += step.len() as u64;
                    self.touched.frontends.extend(self.planner.opened_by(&step));
                    self.planner.done(&step, self.now());
                }
                Err(reason) => {
                    let reason = chain(&reason);
                    warn!(
                        step = step.name(),
                        entries = step.len(),
                        reason,
                        "not written, will be tried again"
                    );
                    self.planner.failed(&step);
                    let progress = &mut self.progress;
                    let failed = if step.deletes() {
                        &mut progress.failed_deletions
                    } else {
                        &mut progress.failed_writes
                    };
                    *failed += 1;
                    error = Some(reason);
                }
            }
        }
        self.progress.error = error;
        if entries > 0 {
            self.progress.rounds += 1;
            self.progress.entries += entries;
            self.progress.latest = began.elapsed();
            info!(
                entries,
                milliseconds = self.progress.latest.as_millis() as u64,
                "kernel brought up to date"
            );
        }
    }

    fn now(&self) -> Duration {
        self.start.elapsed()
    }
}

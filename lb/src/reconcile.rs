//! The one interpreter of the plan's steps, and the reader of what the kernel holds.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    time::{Duration, Instant},
};

use datapath::abi::UDP;

use tracing::{debug, info, warn};

use crate::{
    driver::{
        conntrack::{self, Conntrack, Flow},
        maps::{self, Maps},
        nft::{self, Family, Nft},
    },
    plan::{Actual, Dirty, Found, Index, NodeFacts, Planner, Step, maglev},
};

/// Why a step was not performed, or the kernel not read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A BPF map.
    #[error(transparent)]
    Maps(#[from] maps::Error),
    /// The nft table.
    #[error(transparent)]
    Nft(#[from] nft::Error),
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
            node_addresses: self.maps.node_addresses.load()?,
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
            Step::PutTables(list) => maps
                .maglev
                .put(list.iter().map(|(id, spec)| (*id, maglev::chunks(&maglev::build(spec)).collect())))?,
            Step::PutFrontends(list) => maps.frontends.put(list)?,
            Step::PutNodeAddresses(list) => maps.node_addresses.put(list)?,
            Step::DeleteFrontends(list) => maps.frontends.delete(list)?,
            Step::DeleteNodeAddresses(list) => maps.node_addresses.delete(list)?,
            Step::DeleteTables(list) => maps.maglev.delete(list)?,
            Step::DeleteServices(list) => maps.services.delete(list)?,
            Step::DeleteBackends(list) => maps.backends.delete(list)?,
            Step::DeleteTranslations(list) => {
                let labels: Vec<(u32, Family)> =
                    list.iter().map(|(label, addr)| (*label, Family::of(addr))).collect();
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
    /// Steps that failed to write, in all rounds.
    pub failed_writes: u64,
    /// Steps that failed to delete, likewise.
    pub failed_deletions: u64,
}

/// How conntrack was looked through for flows to forget.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Forgotten {
    /// How long it took, for both families.
    pub took: Duration,
    /// IPv4 flows that were deleted.
    pub ipv4: u64,
    /// IPv6 flows that were deleted.
    pub ipv6: u64,
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
    /// Backends that are not used any more and may have UDP flows in conntrack.
    unused: BTreeSet<SocketAddr>,
    /// There may be UDP flows to frontends in conntrack that began while nobody translated them.
    untranslated: bool,
    /// Flows could not be forgotten.
    remembered: bool,
    forgotten: Option<Forgotten>,
}

/// Wait before what failed is tried again.
const RETRY: Duration = Duration::from_secs(1);

impl Reconciler {
    /// Adopts what the kernel holds.
    ///
    /// # Errors
    ///
    /// A map or the table cannot be read.
    pub fn adopt(kernel: Kernel) -> Result<Self, Error> {
        let mut planner = Planner::new();
        let actual = kernel.load()?;
        if !actual.frontends.is_empty() {
            info!(
                frontends = actual.frontends.len(),
                backends = actual.backends.len(),
                "adopting the state of a former process"
            );
        }
        planner.adopt(actual, Duration::ZERO);
        planner.keep();
        Ok(Self {
            kernel,
            planner,
            start: Instant::now(),
            progress: Progress::default(),
            unused: BTreeSet::new(),
            // Nobody knows what happened to the table before.
            untranslated: true,
            remembered: false,
            forgotten: None,
        })
    }

    /// What the kernel holds, for reading.
    #[must_use]
    pub fn kernel(&self) -> &Kernel {
        &self.kernel
    }

    /// What is planned.
    #[must_use]
    pub fn planner(&self) -> &Planner {
        &self.planner
    }

    /// How writing went.
    #[must_use]
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// How forgetting flows went, if it was done since the last call.
    pub fn take_forgotten(&mut self) -> Option<Forgotten> {
        self.forgotten.take()
    }

    /// See [`Planner::let_go`].
    pub fn let_go(&mut self) {
        self.planner.let_go();
    }

    /// Plans for what changed and writes all that can be written now.
    pub fn sync(&mut self, index: &Index, facts: &NodeFacts, dirty: &Dirty) {
        let began = Instant::now();
        self.planner.plan(index, facts, dirty, self.now());
        self.write(began);
        self.forget_flows(index);
    }

    /// Deletes the conntrack entries of UDP flows that would go wrong for ever, because a UDP client does not notice and
    /// its datagrams keep the entry alive: those to backends that went away, and those to frontends that are not
    /// translated, as NAT chains see only the first packet of a flow. TCP is left alone, and so is an endpoint that is
    /// terminating and still serves.
    fn forget_flows(&mut self, index: &Index) {
        if !self.planner.has_plan() {
            return;
        }
        self.unused.extend(self.planner.take_unused());
        self.unused.retain(|backend| !self.planner.is_used(*backend));
        let serving = index.serving(&self.unused);
        let gone: BTreeSet<SocketAddr> = self.unused.difference(&serving).copied().collect();
        self.remembered = false;
        if gone.is_empty() && !self.untranslated {
            return;
        }
        let untranslated = self.untranslated;
        let stale = |flow: &Flow| match flow.dst_nat {
            true => gone.contains(&flow.reply.source),
            false => untranslated && self.planner.is_frontend(flow.original.destination, UDP),
        };
        let began = Instant::now();
        match delete_udp_flows(stale) {
            Ok([ipv4, ipv6]) => {
                self.unused = serving;
                self.untranslated = false;
                self.forgotten = Some(Forgotten { took: began.elapsed(), ipv4, ipv6 });
                let deleted = ipv4 + ipv6;
                if deleted > 0 {
                    info!(deleted, "UDP flows to endpoints that are gone, or not translated, are forgotten");
                }
            }
            Err(error) => {
                self.remembered = true;
                warn!(reason = chain(&error), "cannot forget UDP flows, will be tried again");
            }
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
        self.forget_flows(index);
        Ok(wrong)
    }

    /// Compares what the kernel holds with what was written, and mends the difference.
    ///
    /// # Errors
    ///
    /// A map or the table cannot be read.
    pub fn verify(&mut self) -> Result<(), Error> {
        let Actual { frontends, backends, services, tables, node_addresses, translations } =
            self.kernel.load()?;
        let now = self.now();
        for found in [
            Found::Backends(backends),
            Found::Translations(translations),
            Found::Services(services),
            Found::Tables(tables),
            Found::Frontends(frontends),
            Found::NodeAddresses(node_addresses),
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
        let retry = (self.progress.error.is_some() || self.remembered).then_some(RETRY);
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
                    self.untranslated |= opens_udp(&step);
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

/// Whether a step makes datagrams be translated that were not.
fn opens_udp(step: &Step) -> bool {
    match step {
        Step::PutFrontends(list) => list.iter().any(|(key, _)| key.protocol == UDP),
        Step::PutNodeAddresses(_) => true,
        _ => false,
    }
}

/// Returns how many, IPv4 and IPv6.
fn delete_udp_flows(stale: impl Fn(&Flow) -> bool) -> Result<[u64; 2], conntrack::Error> {
    let mut conntrack = Conntrack::open()?;
    let mut deleted = [0; 2];
    for flow in &conntrack.flows(|flow| flow.protocol == UDP && stale(flow))? {
        let family = usize::from(flow.original.destination.is_ipv6());
        deleted[family] += u64::from(conntrack.delete(flow)?);
    }
    Ok(deleted)
}

/// An error with its sources, on one line.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let sources = std::iter::successors(error.source(), |error| error.source());
    sources.fold(error.to_string(), |mut text, source| {
        let source = source.to_string();
        if !text.ends_with(&source) {
            text.push_str(": ");
            text.push_str(&source);
        }
        text
    })
}

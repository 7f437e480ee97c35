//! The daemon: one loop that takes in what changed and brings the kernel up to date.
//!
//! Everything it sets up outlives it. Losing it at any point stops changes from being followed and nothing else.

mod attachments;
pub mod cleanup;
mod interfaces;
mod namespace;
mod objects;
mod serve;
mod settings;
mod start;
mod status;
mod takeover;
mod tell;
mod translation;
mod upkeep;

pub use crate::driver::namespace_cookie as cookie;
pub use interfaces::detach_all;
pub use namespace::describe;
pub use settings::restore;

use std::{
    collections::BTreeSet,
    fs,
    future::pending,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    time::{MissedTickBehavior, interval, sleep, sleep_until},
};
use tracing::{debug, info, warn};

use crate::{
    config::Options,
    driver::{
        link::{self, Links},
        nft,
        objects::Objects,
        pins::{Lock, PinDir},
    },
    error::chain,
    model::{Service, link::Snapshot},
    plan::{Dirty, Index, NodeFacts, Rejection, facts},
    reconcile::Reconciler,
    view::Report,
};
use interfaces::Interfaces;
use serve::{Round, Serving};
use settings::Settings;
use status::{Claim, Requests};
use takeover::Takeover;
use translation::Watchman;

/// Time between looks at attachments and pins, of which nobody tells: what is taken away is back in twice that.
const WATCH: Duration = Duration::from_secs(1);
/// Time between looks at the nft table that nothing gave cause for.
const INSPECT: Duration = Duration::from_secs(5);
/// Time between full comparisons of what the kernel holds with the plan.
const VERIFY: Duration = Duration::from_secs(300);
/// One change of the interfaces or of the nft ruleset brings several messages, and many changes come together.
const FLURRY: Duration = Duration::from_millis(20);
/// After looking at what changed, the wait before the next look in units of the time it took: somebody may change routes
/// or rules all the time, and there may be very many.
const LOOKING_SHARE: u32 = 10;
/// For how long a former process may take to end.
const TAKE_OVER: Duration = Duration::from_secs(2);
/// Events that wait to be taken in.
const QUEUE: usize = 1_024;

/// Runs until told to stop. The data path stays as it is then.
///
/// # Errors
///
/// Something essential cannot be set up; what this call set up has been removed again.
pub async fn run(options: Options) -> anyhow::Result<()> {
    if let Some(adjustment) = options.oom_score_adj
        && let Err(error) = fs::write("/proc/self/oom_score_adj", adjustment.to_string())
    {
        let needed = "CAP_SYS_RESOURCE, to lower it";
        warn!(oom_score_adj = adjustment, %error, needed, "cannot set oom_score_adj, by which the kernel chooses what to end when memory runs out");
    }
    let existed = PinDir::find(&options.pin_dir).is_some_and(|pins| pins.exists());
    let pins = PinDir::prepare(&options.pin_dir)?;
    let (_lock, claim) = match take_over(&pins).await {
        Ok(taken) => taken,
        Err(error) => {
            if !existed && pins.lock().is_ok() {
                pins.remove()?;
            }
            return Err(error);
        }
    };
    let mut synced = false;
    let outcome = match Daemon::start(options, pins.clone()).await {
        Ok(mut daemon) => {
            let outcome = daemon.run(claim).await;
            synced = daemon.synced;
            outcome
        }
        Err(error) => Err(error),
    };
    if outcome.is_err() && !existed && !synced {
        // It never served anything, so nobody misses it. What could not be set up cannot be removed either, which is
        // no reason to leave the pins.
        cleanup::remove(&pins).await;
        if let Err(error) = pins.remove() {
            warn!(reason = chain(&error), "pins are left behind");
        }
    }
    outcome
}

/// Claims the pin directory and the network namespace. A former process that was killed holds on to them until the
/// kernel is done with it.
async fn take_over(pins: &PinDir) -> anyhow::Result<(Lock, Claim)> {
    let began = Instant::now();
    loop {
        match pins.lock().map_err(Into::into).and_then(|lock| Ok((lock, status::claim()?))) {
            Err(_) if began.elapsed() < TAKE_OVER => sleep(Duration::from_millis(50)).await,
            outcome => return outcome,
        }
    }
}

struct Daemon {
    options: Options,
    objects: Objects,
    pins: PinDir,
    links: Links,
    /// None while the subscription is broken; likewise the next.
    link_watch: Option<link::Watch>,
    nft_watch: Option<nft::Watch>,
    snapshot: Snapshot,
    interfaces: Interfaces,
    settings: Settings,
    cgroup: PathBuf,
    cgroup_dir: fs::File,
    watch: attachments::Watch,
    /// Whether source ranges are enforced for sockets; none: as a former process left it.
    guarded: Option<bool>,
    index: Index,
    dirty: Dirty,
    reconciler: Reconciler,
    rejections: BTreeSet<Rejection>,
    translation: Watchman,
    serving: Serving,
    started: Instant,
    synced: bool,
    takeover: Takeover,
}

impl Daemon {
    async fn run(&mut self, claim: Claim) -> anyhow::Result<()> {
        let (sender, mut events) = mpsc::channel(QUEUE);
        let mut source = tokio::spawn(objects::follow(self.options.clone(), sender));
        let mut requests = Requests::new();
        tokio::spawn(status::serve(claim, requests.sender()));
        self.serving.ready(&self.options, &requests.sender())?;
        self.serving.translation(self.translation.report());
        self.watch_over_all();
        let (mut links_due, mut links_rest) = (None, tokio::time::Instant::now());
        let (mut nft_due, mut nft_rest) = (None, tokio::time::Instant::now());
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut watch = interval(WATCH);
        let mut inspect = interval(INSPECT);
        let mut verify = interval(VERIFY);
        for timer in [&mut watch, &mut inspect, &mut verify] {
            timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
            timer.reset();
        }
        let mut batch = Vec::new();
        let mut due = None;
        info!(node = self.options.node_name, pins = %self.pins.name().display(), "running");
        loop {
            let wake = self.reconciler.wake_in().filter(|_| self.synced);
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                count = events.recv_many(&mut batch, QUEUE) => {
                    if count == 0 {
                        // The source ended; its task says why.
                        return (&mut source).await.context("the source of objects broke down")?;
                    }
                    batch.drain(..).for_each(|event| self.index.apply(event));
                    self.serving.noticed(&mut self.index, &self.options.node_name);
                    due.get_or_insert_with(|| self.next_round());
                }
                () = at(due) => {
                    due = None;
                    self.sync();
                }
                () = async { match wake { Some(wait) => sleep(wait).await, None => pending().await } } => {
                    let facts = self.facts();
                    self.reconciler.resume(&self.index, &facts);
                    self.wrote();
                    self.replace_former();
                }
                changed = watched(&mut self.link_watch, |watch| watch.changed()) => {
                    if let Err(error) = changed {
                        warn!(reason = chain(&error), "no longer told of changes to interfaces, will look for them");
                        self.link_watch = None;
                    }
                    links_due.get_or_insert_with(|| links_rest.max(tokio::time::Instant::now() + FLURRY));
                }
                () = at(links_due) => {
                    links_due = None;
                    let began = tokio::time::Instant::now();
                    if self.look_at_links().await {
                        due.get_or_insert_with(|| self.next_round());
                    }
                    links_rest = tokio::time::Instant::now() + LOOKING_SHARE * began.elapsed();
                }
                commit = watched(&mut self.nft_watch, |watch| watch.changed()) => {
                    match commit {
                        Ok(commit) => {
                            let process = commit.process.as_deref().unwrap_or("unknown");
                            debug!(process, "the nft ruleset was changed");
                        }
                        Err(error) => {
                            let reason = chain(&error);
                            warn!(reason, "no longer told of changes to the nft ruleset, will look for them");
                            self.nft_watch = None;
                        }
                    }
                    self.translation.alarm();
                    // At once after a quiet time: until then nothing may be translated.
                    nft_due.get_or_insert_with(|| nft_rest.max(tokio::time::Instant::now()));
                }
                () = at(nft_due) => {
                    nft_due = None;
                    let began = tokio::time::Instant::now();
                    self.inspect();
                    nft_rest = tokio::time::Instant::now() + LOOKING_SHARE * began.elapsed();
                }
                _ = watch.tick() => {
                    self.replace_broken();
                    self.mend_attachments();
                }
                _ = inspect.tick() => {
                    if self.link_watch.is_none() {
                        self.link_watch = Links::watch().ok();
                        links_due.get_or_insert(links_rest);
                    }
                    if self.nft_watch.is_none() {
                        self.nft_watch = self.reconciler.kernel().nft.watch().ok();
                        self.translation.alarm();
                    }
                    self.replace_former();
                    self.tidy_up();
                    self.settle_in();
                    self.inspect();
                }
                _ = verify.tick() => {
                    if let Err(error) = self.reconciler.verify() {
                        warn!(reason = chain(&error), "cannot compare the kernel with the plan");
                    }
                    self.sweep_traffic();
                }
                Some(reply) = requests.next() => {
                    // The requester may have gone away.
                    let _ = reply.send(self.report());
                }
            }
        }
        source.abort();
        // What lost its pin in the last second would end with this process.
        self.mend_attachments();
        info!("stopped; the data path stays as it is");
        Ok(())
    }

    /// When changes had time to gather; before the first state is complete there is nothing to wait for.
    fn next_round(&self) -> tokio::time::Instant {
        let now = tokio::time::Instant::now();
        if self.synced { now + self.options.min_sync_period } else { now }
    }

    fn sync(&mut self) {
        self.dirty.merge(self.index.take_dirty());
        if !self.index.synced() {
            return;
        }
        // A file that is broken when the daemon starts may hold what the former process served.
        if !self.index.unreadable() {
            self.reconciler.let_go();
        }
        let facts = self.facts();
        let dirty = std::mem::take(&mut self.dirty);
        let began = Instant::now();
        let guard = self.restricts();
        // Before the first frontend that needs it, after the last; one that is kept may need it, too.
        if guard {
            self.guard(true);
        }
        self.reconciler.sync(&self.index, &facts, &dirty);
        if !guard && self.reconciler.progress().error.is_none() && self.reconciler.planner().kept() == 0 {
            self.guard(false);
        }
        self.serving.round(Round {
            index: &self.index,
            facts: &facts,
            dirty: &dirty,
            options: &self.options,
            took: began.elapsed(),
            full: !self.synced || dirty.node,
        });
        self.wrote();
        self.log_rejections();
        if !self.synced {
            self.synced = true;
            info!(
                services = self.reconciler.planner().services().count(),
                rejected = self.index.rejections().count(),
                "in sync"
            );
        }
        self.replace_former();
    }

    /// Whether some Service may be reached from some sources only.
    fn restricts(&self) -> bool {
        self.index.services().any(|(_, service): (_, &Service)| !service.source_ranges.is_empty())
    }

    fn wrote(&mut self) {
        self.serving.wrote(&self.reconciler.progress());
    }

    fn inspect(&mut self) {
        self.translation.inspect(&mut self.reconciler, &self.index);
        self.serving.translation(self.translation.report());
    }

    /// Each rejection once, when it first appears.
    fn log_rejections(&mut self) {
        let now: BTreeSet<Rejection> =
            self.index.rejections().chain(self.reconciler.planner().rejections()).collect();
        let new: Vec<&Rejection> = now.difference(&self.rejections).collect();
        for Rejection { kind, object, reason } in &new {
            warn!(kind, object, reason, "not served");
        }
        self.serving.rejected(&new, &now);
        self.rejections = now;
    }

    fn report(&self) -> Report {
        tell::report(tell::Parts {
            options: &self.options,
            pins: &self.pins,
            started: self.started,
            synced: self.synced,
            former: self.takeover.former(),
            reconciler: &self.reconciler,
            index: &self.index,
            interfaces: &self.interfaces,
            cgroup: &self.cgroup,
            watch: &self.watch,
            missing: self.missing(),
            translation: &self.translation,
            facts: &self.facts(),
            settings: &self.settings,
        })
    }

    fn facts(&self) -> NodeFacts {
        facts::of(&self.options, self.index.node(&self.options.node_name), &self.index, &self.snapshot)
    }
}

async fn at(due: Option<tokio::time::Instant>) {
    match due {
        Some(at) => sleep_until(at).await,
        None => pending().await,
    }
}

/// The next change that a subscription tells of; waits for ever without one.
async fn watched<'a, W, T, F: Future<Output = T>>(
    watch: &'a mut Option<W>,
    changed: impl FnOnce(&'a mut W) -> F,
) -> T {
    match watch {
        Some(watch) => changed(watch).await,
        None => pending().await,
    }
}

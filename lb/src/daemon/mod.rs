//! The daemon: one loop that takes in what changed and brings the kernel up to date.
//!
//! Everything it sets up outlives it. Losing it at any point stops changes from being followed and nothing else.

pub mod cleanup;
mod interfaces;
mod metrics;
mod namespace;
mod node_port;
mod report;
mod settings;
mod status;

pub use interfaces::{XdpChoice, detach_all};
pub use namespace::{cookie, describe};
pub use node_port::NodePortAddresses;
pub use report::{CounterReport, InterfaceReport, Report, Translations, Trouble, XdpReport};
pub use settings::{SysctlReport, restore};
pub use status::query;

use std::{
    collections::BTreeSet,
    future::pending,
    net::SocketAddr,
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
    driver::{
        attach, cgroup,
        link::{Links, Snapshot},
        maps::Maps,
        nft::{Ensured, Family, Nft},
        objects::Objects,
        pins::PinDir,
        probe::{Translation, probe},
    },
    plan::{Dirty, Index, NodeFacts, Rejection},
    reconcile::{Kernel, Reconciler, chain},
    source::{self, Event},
};
use interfaces::Interfaces;
use settings::Settings;

/// Where objects come from.
#[derive(Clone, Debug)]
pub enum Source {
    /// A directory.
    Manifests(PathBuf),
    /// An API server, by kubeconfig; none: whatever the environment says.
    Kubernetes(Option<PathBuf>),
}

/// What the command line and the configuration say.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where objects come from.
    pub source: Source,
    /// This node's name.
    pub node_name: String,
    /// Interfaces that route; none: those with a default route, or else all that are up.
    pub interfaces: Vec<String>,
    /// How XDP is to run.
    pub xdp: XdpChoice,
    /// The cgroup whose sockets are translated; none: the root.
    pub cgroup: Option<PathBuf>,
    /// Where state is pinned.
    pub pin_dir: PathBuf,
    /// Addresses on which `NodePorts` are served.
    pub node_port_addresses: NodePortAddresses,
    /// Where metrics are served; none: nowhere.
    pub metrics: Option<SocketAddr>,
}

/// After a round of writes, changes gather for this long before the next.
const GATHER: Duration = Duration::from_millis(50);
/// Time between looks at the nft table that nothing gave cause for.
const INSPECT: Duration = Duration::from_secs(5);
/// Time between full comparisons of what the kernel holds with the plan.
const VERIFY: Duration = Duration::from_secs(300);
/// After listing the nft elements, the wait in units of the time it took.
const LISTING_SHARE: u32 = 20;
/// Events that wait to be taken in.
const QUEUE: usize = 1_024;

/// Runs until told to stop. The data path stays as it is then.
///
/// # Errors
///
/// Something essential cannot be set up; what this call set up has been removed again.
pub async fn run(options: Options) -> anyhow::Result<()> {
    let existed = PinDir::find(&options.pin_dir).is_some_and(|pins| pins.exists());
    let pins = PinDir::prepare(&options.pin_dir)?;
    let _lock = pins.lock()?;
    let mut synced = false;
    let outcome = match Daemon::start(options, pins.clone()).await {
        Ok(mut daemon) => {
            let outcome = daemon.run().await;
            synced = daemon.synced;
            outcome
        }
        Err(error) => Err(error),
    };
    if outcome.is_err() && !existed && !synced {
        // It never served anything, so nobody misses it. What could not be set up cannot be removed either, which is
        // no reason to leave the pins.
        cleanup::remove(&pins).await;
        pins.remove()?;
    }
    outcome
}

struct Daemon {
    options: Options,
    objects: Objects,
    pins: PinDir,
    links: Links,
    snapshot: Snapshot,
    interfaces: Interfaces,
    settings: Settings,
    cgroup: PathBuf,
    index: Index,
    dirty: Dirty,
    reconciler: Reconciler,
    rejections: BTreeSet<Rejection>,
    translations: Translations,
    started: Instant,
    synced: bool,
    /// Somebody else changed the nft ruleset since its elements were last listed.
    suspect: bool,
    /// When they may be listed again.
    next_listing: Instant,
}

impl Daemon {
    async fn start(options: Options, pins: PinDir) -> anyhow::Result<Self> {
        let links = Links::open().context("cannot list the interfaces")?;
        let snapshot = links.snapshot().await?;
        let interfaces = Interfaces::new(&options.interfaces, options.xdp, &snapshot)?;
        let (cgroup, cgroup_dir) = cgroup::open(options.cgroup.as_deref())?;

        let mut objects = Objects::load(&pins)?;
        let maps = Maps::open(&pins)?;
        namespace::claim(&maps, &pins)?;
        let nft = Nft::new();
        nft.ensure().context("cannot set up the nft table")?;
        let settings = Settings::apply(&maps)?;
        let reconciler = Reconciler::adopt(Kernel { maps, nft })?;
        attach::sockets(&mut objects, &pins, &cgroup_dir)
            .with_context(|| format!("cannot attach the socket hooks to cgroup {}", cgroup.display()))?;

        let mut daemon = Self {
            options,
            objects,
            pins,
            links,
            snapshot,
            interfaces,
            settings,
            cgroup,
            index: Index::new(),
            dirty: Dirty::default(),
            reconciler,
            rejections: BTreeSet::new(),
            translations: Translations::default(),
            started: Instant::now(),
            synced: false,
            suspect: false,
            next_listing: Instant::now(),
        };
        daemon.interfaces.attach(&mut daemon.objects, &daemon.pins, &daemon.snapshot, true)?;
        daemon.record_qdiscs()?;
        daemon.probe();
        Ok(daemon)
    }

    async fn run(&mut self) -> anyhow::Result<()> {
        let (sender, mut events) = mpsc::channel(QUEUE);
        let mut source = tokio::spawn(follow(self.options.clone(), sender));
        let (mut requests, _status) = status::serve(&self.pins)?;
        if let Some(address) = self.options.metrics {
            tokio::spawn(metrics::serve(address, requests.sender()));
        }
        let mut link_watch = Links::watch()?;
        let mut nft_watch = self.reconciler.kernel().nft.watch()?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut inspect = interval(INSPECT);
        let mut verify = interval(VERIFY);
        for timer in [&mut inspect, &mut verify] {
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
                    due.get_or_insert_with(|| self.next_round());
                }
                () = async { match due { Some(at) => sleep_until(at).await, None => pending().await } } => {
                    due = None;
                    self.sync();
                }
                () = async { match wake { Some(wait) => sleep(wait).await, None => pending().await } } => {
                    let facts = self.facts();
                    self.reconciler.resume(&self.index, &facts);
                }
                changed = link_watch.changed() => {
                    changed?;
                    if self.look_at_links().await {
                        due.get_or_insert_with(|| self.next_round());
                    }
                }
                commit = nft_watch.changed() => {
                    let commit = commit?;
                    debug!(process = commit.process.as_deref().unwrap_or("unknown"), "the nft ruleset was changed");
                    self.suspect = true;
                    self.inspect();
                }
                _ = inspect.tick() => self.inspect(),
                _ = verify.tick() => {
                    if let Err(error) = self.reconciler.verify() {
                        warn!(reason = chain(&error), "cannot compare the kernel with the plan");
                    }
                }
                Some(reply) = requests.next() => {
                    // The requester may have gone away.
                    let _ = reply.send(self.report());
                }
            }
        }
        source.abort();
        info!("stopped; the data path stays as it is");
        Ok(())
    }

    /// At once after a quiet time, otherwise after changes had time to gather.
    fn next_round(&self) -> tokio::time::Instant {
        let now = tokio::time::Instant::now();
        if self.synced { now + GATHER } else { now }
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
        self.reconciler.sync(&self.index, &facts, &dirty);
        self.log_rejections();
        if !self.synced {
            self.synced = true;
            info!(
                services = self.reconciler.planner().services().count(),
                rejected = self.index.rejections().count(),
                "in sync"
            );
        }
    }

    /// Each rejection once, when it first appears.
    fn log_rejections(&mut self) {
        let now: BTreeSet<Rejection> =
            self.index.rejections().chain(self.reconciler.planner().rejections()).collect();
        for Rejection { kind, object, reason } in now.difference(&self.rejections) {
            warn!(kind, object, reason, "not served");
        }
        self.rejections = now;
    }

    fn facts(&self) -> NodeFacts {
        let node = self.index.node(&self.options.node_name);
        NodeFacts {
            name: self.options.node_name.clone(),
            node_port_addresses: self.options.node_port_addresses.select(node, &self.snapshot),
            zone: node.and_then(|node| node.zone.clone()),
        }
    }

    /// Whether anything changed that matters.
    async fn look_at_links(&mut self) -> bool {
        // One change brings several messages.
        sleep(Duration::from_millis(20)).await;
        match self.links.snapshot().await {
            Ok(snapshot) if snapshot != self.snapshot => {
                self.snapshot = snapshot;
                let attach = self.interfaces.attach(&mut self.objects, &self.pins, &self.snapshot, false);
                if let Err(error) = attach.and_then(|()| self.record_qdiscs()) {
                    warn!(reason = format!("{error:#}"), "cannot attach");
                }
                true
            }
            Ok(_) => false,
            Err(error) => {
                warn!(reason = chain(&error), "cannot list the interfaces");
                false
            }
        }
    }

    fn record_qdiscs(&mut self) -> anyhow::Result<()> {
        settings::record_qdiscs(&self.reconciler.kernel().maps, self.interfaces.take_new_qdiscs())
    }

    /// Mends the nft table if it is not what it should be.
    fn inspect(&mut self) {
        match self.reconciler.repair() {
            Ok(Ensured::Kept) => self.inspect_translations(),
            Ok(ensured) => {
                warn!(?ensured, "the nft table was not as it should be and has been mended");
                self.mended();
            }
            Err(error) => warn!(reason = chain(&error), "cannot mend the nft table"),
        }
    }

    /// Likewise its elements, if somebody changed the ruleset. Listing many takes long, so it is done only so often
    /// that it takes a small part of the time.
    fn inspect_translations(&mut self) {
        if !self.suspect || Instant::now() < self.next_listing {
            return;
        }
        let began = Instant::now();
        match self.reconciler.repair_translations() {
            Ok(0) => {}
            Ok(wrong) => {
                warn!(elements = wrong, "nft map elements were not as they should be and have been mended");
                self.mended();
            }
            Err(error) => warn!(reason = chain(&error), "cannot compare the nft map elements"),
        }
        self.suspect = false;
        self.next_listing = Instant::now() + LISTING_SHARE * began.elapsed();
    }

    fn mended(&mut self) {
        self.translations.repairs += 1;
        self.probe();
    }

    /// Finds out whether the kernel translates.
    fn probe(&mut self) {
        for family in Family::ALL {
            let outcome = probe(&self.reconciler.kernel().nft, family);
            let text = match outcome {
                Ok(Translation::Active) => "active".to_owned(),
                Ok(Translation::Inactive) => "inactive".to_owned(),
                Ok(Translation::Unknown(reason)) => format!("unknown: {reason}"),
                Err(error) => format!("unknown: {}", chain(&error)),
            };
            if text != "active" {
                warn!(?family, translation = text, "translation is not known to work");
            }
            match family {
                Family::V4 => self.translations.ipv4 = text,
                Family::V6 => self.translations.ipv6 = text,
            }
        }
    }
}

impl Daemon {
    fn report(&self) -> Report {
        let planner = self.reconciler.planner();
        let progress = self.reconciler.progress();
        let counters = match self.reconciler.kernel().maps.counters.load() {
            Ok(counters) => counters,
            Err(error) => {
                warn!(reason = chain(&error), "cannot read the counters");
                Vec::new()
            }
        };
        Report {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            node: self.options.node_name.clone(),
            source: self.options.source.to_string(),
            uptime_seconds: self.started.elapsed().as_secs(),
            synced: self.synced && progress.error.is_none(),
            pending: planner.pending(),
            rounds: progress.rounds,
            entries: progress.entries,
            latest_round_milliseconds: progress.latest.as_secs_f64() * 1_000.0,
            error: progress.error.clone(),
            services: planner.services().count(),
            frontends: planner.services().map(|service| service.frontends.len()).sum(),
            interfaces: self.interfaces.report(),
            cgroup: self.cgroup.display().to_string(),
            translation: self.translations.clone(),
            node_port_addresses: self.facts().node_port_addresses.iter().map(ToString::to_string).collect(),
            sysctls: self.settings.sysctls.clone(),
            counters: counters
                .into_iter()
                .map(|(hook, counter, count)| CounterReport {
                    hook: hook.name().to_owned(),
                    reason: counter.name().to_owned(),
                    count,
                })
                .collect(),
            rejected: self.index.rejections().chain(planner.rejections()).map(Trouble::from).collect(),
            notes: self.index.notes().map(Trouble::from).collect(),
        }
    }
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Manifests(dir) => write!(f, "manifests in {}", dir.display()),
            Self::Kubernetes(Some(path)) => write!(f, "API server of {}", path.display()),
            Self::Kubernetes(None) => f.write_str("API server"),
        }
    }
}

async fn follow(options: Options, events: mpsc::Sender<Event>) -> anyhow::Result<()> {
    match options.source {
        Source::Manifests(dir) => source::manifests::run(dir, events).await?,
        Source::Kubernetes(kubeconfig) => {
            let options = source::kubernetes::Options { kubeconfig, node: options.node_name };
            source::kubernetes::run(options, events).await?;
        }
    }
    Ok(())
}

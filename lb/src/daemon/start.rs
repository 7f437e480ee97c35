//! Setting everything up.

use std::{collections::BTreeSet, time::Instant};

use anyhow::Context as _;
use tracing::warn;

use super::{
    Daemon, attachments::Watch, interfaces::Interfaces, namespace, objects, serve::Serving,
    settings::Settings, takeover::Takeover, translation::Watchman,
};
use crate::{
    config::Options,
    driver::{
        cgroup,
        link::Links,
        maps::Maps,
        nft::Nft,
        objects::{Features, FlowCache, Objects},
        pins::PinDir,
    },
    plan::{Dirty, Index},
    reconcile::{Kernel, Reconciler},
};

impl Daemon {
    /// Sets up what outlives the daemon, and takes over what is there.
    pub(super) async fn start(options: Options, pins: PinDir) -> anyhow::Result<Self> {
        objects::check(&options.source, options.api_server.as_deref()).await?;
        let serving = Serving::start(&options).await?;
        let links = Links::open().context("cannot list the interfaces")?;
        // Before what they watch is looked at: what changes in between is seen twice rather than never.
        let link_watch = Some(Links::watch()?);
        let snapshot = links.snapshot().await?;
        let interfaces = Interfaces::new(
            &options.interfaces,
            options.xdp,
            (options.fast_path.clone(), options.guard.is_some()),
            options.detect_local.clone(),
            &snapshot,
        )?;
        let (cgroup, cgroup_dir) = cgroup::open(options.cgroup.as_deref())?;

        namespace::check(&pins)?;
        let takeover = Takeover::begin(&pins, &snapshot).context("cannot tell which programs serve")?;
        let nft = Nft::beside(takeover.former()).context("cannot read the nft tables")?;
        let no_synproxy = nft.lacks_synproxy().context("cannot learn what nf_tables can do here")?;
        if let Some(reason) = no_synproxy.filter(|_| options.guard.is_some()) {
            warn!(reason, "no SYN cookies, as the kernel takes no rules with synproxy");
        }
        let features = Features {
            cache: options.flow_cache.map_or_else(FlowCache::default, FlowCache::of),
            guard: options.guard.is_some(),
            cookies: no_synproxy.is_none(),
            ..Features::default()
        };
        let objects = Objects::load_with(&pins, features)?;
        let maps = Maps::open(&pins)?;
        namespace::claim(&maps)?;
        let nft_watch = Some(nft.watch()?);
        nft.ensure().context("cannot set up the nft table")?;
        let mut settings = Settings::default();
        let fast = options.fast_path.anywhere() && objects.fast().is_ok();
        settings.apply(&maps, &snapshot, &options.conntrack, fast)?;
        let translation = Watchman::new(&nft);
        let inherited =
            takeover.former().map(|former| nft.load_other(former)).transpose()?.unwrap_or_default();
        let reconciler = Reconciler::adopt(Kernel { maps, nft }, &inherited)?;

        let mut daemon = Self {
            options,
            objects,
            pins,
            links,
            link_watch,
            nft_watch,
            snapshot,
            interfaces,
            settings,
            cgroup,
            cgroup_dir,
            watch: Watch::default(),
            guarded: None,
            index: Index::new(),
            dirty: Dirty::default(),
            reconciler,
            rejections: BTreeSet::new(),
            translation,
            serving,
            started: Instant::now(),
            synced: false,
            takeover,
        };
        if daemon.takeover.former().is_some() {
            daemon.reconciler.stand_by();
            daemon.watch.hold_maps(&daemon.pins)?;
        } else {
            daemon.attach_sockets()?;
            daemon.interfaces.attach(&mut daemon.objects, &daemon.pins, &daemon.snapshot, true)?;
            daemon.interfaces.link_up(&daemon.reconciler.kernel().maps.forwarding, &daemon.snapshot);
            daemon.record_qdiscs()?;
        }
        // Before the first id is given to a service port: another one may have had it in a former process.
        daemon.sweep_traffic();
        Ok(daemon)
    }
}

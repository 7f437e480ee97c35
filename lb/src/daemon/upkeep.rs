//! Keeping up what was set up, as interfaces come and go and others change things.

use std::collections::BTreeSet;

use tracing::warn;

use super::{Daemon, settings};
use crate::{driver::attach, error::chain, text};

impl Daemon {
    /// Attaches or detaches what enforces source ranges for sockets.
    pub(super) fn guard(&mut self, on: bool) {
        if self.guarded == Some(on) || self.takeover.former().is_some() {
            return;
        }
        let outcome = if on {
            attach::egress(&mut self.objects, &self.pins, &self.cgroup_dir).map(Some)
        } else {
            attach::detach_egress(&self.pins).map(|()| None)
        };
        match outcome {
            Ok(attached) => {
                self.watch.egress = attached;
                self.guarded = Some(on);
                self.hold_attachments();
            }
            Err(error) => warn!(reason = chain(&error), on, "cannot guard sockets by their source ranges"),
        }
    }

    /// Whether anything changed that matters.
    pub(super) async fn look_at_links(&mut self) -> bool {
        match self.links.snapshot().await {
            Ok(snapshot) if snapshot != self.snapshot => {
                self.snapshot = snapshot;
                self.attach();
                true
            }
            Ok(_) => false,
            Err(error) => {
                warn!(reason = chain(&error), "cannot list the interfaces");
                false
            }
        }
    }

    /// Attaches what could not be attached before, and mends kernel settings that somebody changed.
    pub(super) fn settle_in(&mut self) {
        self.attach();
        let maps = &self.reconciler.kernel().maps;
        let fast = self.options.fast_path.anywhere() && self.objects.fast().is_ok();
        if let Err(error) = self.settings.apply(maps, &self.snapshot, &self.options.conntrack, fast) {
            warn!(reason = text::line(format!("{error:#}")), "cannot apply the kernel settings");
        }
    }

    /// Attaches what is not attached, unless programs of another version serve; what fails is tried again later.
    pub(super) fn attach(&mut self) {
        if self.takeover.former().is_some() {
            return;
        }
        let attach = self.interfaces.attach(&mut self.objects, &self.pins, &self.snapshot, false);
        if let Err(error) = attach.and_then(|()| self.record_qdiscs()) {
            warn!(reason = text::line(format!("{error:#}")), "cannot attach");
        }
        self.hold_attachments();
        self.interfaces.link_up(&self.reconciler.kernel().maps.forwarding, &self.snapshot);
    }

    pub(super) fn record_qdiscs(&mut self) -> anyhow::Result<()> {
        let maps = &self.reconciler.kernel().maps;
        settings::rename_qdiscs(maps, self.interfaces.take_renamed())?;
        settings::record_qdiscs(maps, self.interfaces.take_new_qdiscs())
    }

    /// Forgets what was forwarded for service ports that are gone.
    pub(super) fn sweep_traffic(&self) {
        let maps = &self.reconciler.kernel().maps;
        let swept = maps.services.load().and_then(|services| {
            let there: BTreeSet<u32> = services.into_iter().map(|(id, _)| id).collect();
            maps.forwarding.sweep(|service| there.contains(&service))
        });
        if let Err(error) = swept {
            warn!(reason = chain(&error), "cannot forget the traffic of service ports that are gone");
        }
    }
}

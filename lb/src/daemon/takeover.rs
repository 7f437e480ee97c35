//! Taking over from programs of another version: they serve until everything is read and written, and are then replaced.

use std::time::Instant;

use anyhow::Context as _;
use tracing::{info, warn};

use super::{Daemon, attachments::Watch};
use crate::{
    driver::{
        attach,
        pins::PinDir,
        schemas::{self, Attached},
    },
    error::chain,
    model::link::Snapshot,
    plan::QUARANTINE,
};

/// How far it is.
#[derive(Debug)]
pub(super) struct Takeover {
    /// The schema of the programs that serve, if it is another one.
    former: Option<u32>,
    /// When no packet can carry a label of another version any more.
    settled_at: Option<Instant>,
}

impl Takeover {
    /// Looks at who serves, and makes the pinned maps ready to be loaded.
    ///
    /// # Errors
    ///
    /// The attachments cannot be read, or pins not be made or removed.
    pub(super) fn begin(pins: &PinDir, snapshot: &Snapshot) -> Result<Self, schemas::Error> {
        let attached = schemas::attached(pins, indexes(snapshot))?;
        schemas::prepare(pins, &attached)?;
        let former = attached.other();
        if let Some(former) = former {
            info!("programs of schema {former} serve until everything is read and written");
        }
        // What a killed daemon has not tidied up is tidied up later, too.
        let settled_at = former.is_none().then(|| Instant::now() + QUARANTINE);
        Ok(Self { former, settled_at })
    }

    /// The schema of the programs that serve, if it is another one.
    pub(super) fn former(&self) -> Option<u32> {
        self.former
    }
}

fn indexes(snapshot: &Snapshot) -> impl Iterator<Item = u32> {
    snapshot.interfaces.iter().map(|interface| interface.index)
}

impl Daemon {
    /// Replaces the programs of another version, if they serve and all that they serve is known and written. What fails is
    /// tried again when this is called again.
    pub(super) fn replace_former(&mut self) {
        let Some(former) = self.takeover.former else { return };
        // A file that cannot be read may hold what the other version serves.
        if !self.synced || self.reconciler.progress().error.is_some() || self.index.unreadable() {
            return;
        }
        match self.attach_all(former) {
            Ok(_) if self.takeover.former.is_none() => {
                info!(former, "took over from programs of another version");
                self.takeover.settled_at = Some(Instant::now() + QUARANTINE);
                if let Err(error) = schemas::discard_others(&self.pins) {
                    warn!(reason = chain(&error), "cannot remove the maps of another version");
                }
                if let Err(error) = self.watch_over() {
                    warn!(reason = chain(&error), "cannot watch over attachments and pins");
                }
            }
            Ok(attached) => {
                warn!(schemas = ?attached.schemas, "not all programs of another version are replaced");
            }
            Err(error) => {
                warn!(reason = format!("{error:#}"), "cannot replace the programs of another version");
            }
        }
    }

    fn attach_all(&mut self, former: u32) -> anyhow::Result<Attached> {
        self.takeover.former = None;
        let attached = self.attach_sockets().and_then(|()| {
            self.guard(self.restricts());
            self.attach();
            Ok(schemas::attached(&self.pins, indexes(&self.snapshot))?)
        });
        let done = attached.as_ref().is_ok_and(Attached::are_ours);
        self.takeover.former = Some(former).filter(|_| !done);
        attached
    }

    /// Attaches the hooks of sockets.
    pub(super) fn attach_sockets(&mut self) -> anyhow::Result<()> {
        let sockets = attach::sockets(&mut self.objects, &self.pins, &self.cgroup_dir)
            .with_context(|| format!("cannot attach the socket hooks to cgroup {}", self.cgroup.display()))?;
        self.watch = Watch::new(sockets, attach::egress_left(&self.pins));
        Ok(())
    }

    /// Tidies up after another version: its maps, and its nft table. Does so once no packet can carry its labels.
    pub(super) fn tidy_up(&mut self) {
        if self.takeover.settled_at.is_none_or(|at| Instant::now() < at) {
            return;
        }
        self.takeover.settled_at = None;
        if let Err(error) = schemas::discard_others(&self.pins) {
            warn!(reason = chain(&error), "cannot remove the maps of another version");
        }
        if let Err(error) = self.reconciler.settle_table() {
            warn!(reason = chain(&error), "cannot remove the nft table of another version");
            self.takeover.settled_at = Some(Instant::now() + QUARANTINE);
        }
    }
}

//! Taking over from programs of another version: they serve until everything is read and written, and are then replaced.

use std::time::Instant;

use anyhow::Context as _;
use tracing::{info, warn};

use super::Daemon;
use crate::{
    driver::{
        attach,
        pins::{Node, PinDir},
        schemas::{self, Attached},
    },
    error::chain,
    model::link::Snapshot,
    plan::QUARANTINE,
    text,
};

/// Which version serves, and what is left to do about another one.
#[derive(Debug)]
pub(super) struct Takeover {
    /// The schema of the programs that serve, if it is another one.
    former: Option<u32>,
    /// The pin directory that their links are in.
    directory: Option<Node>,
    /// When no packet can carry a label of another version any more.
    settled_at: Option<Instant>,
    /// What kept the programs from being replaced when that was last tried.
    failure: Option<String>,
}

impl Takeover {
    /// Looks at who serves, and removes pinned maps that must not be loaded.
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
        Ok(Self { former, directory: pins.node(), settled_at, failure: None })
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
        // A file that cannot be read may hold what the other version serves. What was read last may not be written yet.
        let complete = self.synced
            && self.reconciler.progress().error.is_none()
            && !self.index.unreadable()
            && !self.index.is_dirty()
            && self.dirty.is_empty();
        if complete {
            self.attach_all();
        }
    }

    /// Replaces the programs of another version at once if they do not serve any more, because somebody has detached them or
    /// removed their nft table: then there is nothing to wait for.
    pub(super) fn replace_broken(&mut self) {
        let Some(former) = self.takeover.former else { return };
        let attached = match schemas::attached(&self.pins, indexes(&self.snapshot)) {
            Ok(attached) => attached,
            Err(error) => {
                // The pin directory may be gone; then so are they.
                let lost = self.pins.node() != self.takeover.directory;
                if !lost {
                    warn!(reason = chain(&error), "cannot tell which programs serve");
                    return;
                }
                Attached::default()
            }
        };
        let untranslated = self.reconciler.kernel().nft.is_alone(former).unwrap_or(false);
        if attached.schemas.is_empty() || untranslated {
            warn!(former, "the programs of another version do not serve any more");
            self.attach_all();
        }
    }

    fn attach_all(&mut self) {
        let Some(former) = self.takeover.former.take() else { return };
        let failure = match self.try_attach_all() {
            Ok(attached) if attached.are_ours() => {
                info!(former, "took over from programs of another version");
                self.takeover.failure = None;
                // So that an older release that comes back does not go by them. What fails is tried again by `tidy_up`.
                if let Err(error) = schemas::discard_others(&self.pins) {
                    warn!(reason = chain(&error), "cannot remove the maps of another version");
                }
                self.takeover.settled_at = Some(Instant::now() + QUARANTINE);
                self.watch_over_all();
                self.reconciler.take_charge();
                if self.synced {
                    let facts = self.facts();
                    self.reconciler.resume(&self.index, &facts);
                    self.wrote();
                }
                return;
            }
            Ok(attached) => format!("there are still programs of schemas {:?}", attached.schemas),
            Err(error) => text::line(format!("{error:#}")),
        };
        if self.takeover.failure.as_ref() != Some(&failure) {
            warn!(
                former,
                reason = failure,
                "cannot replace the programs of another version, will be tried again"
            );
        }
        self.takeover.failure = Some(failure);
        self.takeover.former = Some(former);
    }

    fn try_attach_all(&mut self) -> anyhow::Result<Attached> {
        if self.pins.node() == self.takeover.directory {
            self.pins.make()?;
        } else {
            self.pins = self.watch.renew(self.pins.name())?;
            self.takeover.directory = self.pins.node();
        }
        // By their pins the kernel's answer about programs is understood.
        self.watch.pin_maps(&self.pins)?;
        self.attach_sockets()?;
        // Before everything is read nobody knows whether it is needed.
        self.guard(self.restricts() || !self.synced && self.watch.egress.is_some());
        self.attach();
        for name in attach::detach_unknown(&self.pins)? {
            info!(name, "detached what this version does not attach to");
        }
        Ok(schemas::attached(&self.pins, indexes(&self.snapshot))?)
    }

    /// Attaches the hooks of sockets.
    pub(super) fn attach_sockets(&mut self) -> anyhow::Result<()> {
        let sockets = attach::sockets(&mut self.objects, &self.pins, &self.cgroup_dir)
            .with_context(|| format!("cannot attach the socket hooks to cgroup {}", self.cgroup.display()))?;
        self.watch.set_sockets(sockets, attach::egress_left(&self.pins));
        Ok(())
    }

    /// Removes what is left of another version, its maps and its nft table, once no packet can carry its labels.
    pub(super) fn tidy_up(&mut self) {
        if self.takeover.settled_at.is_none_or(|at| Instant::now() < at) {
            return;
        }
        self.takeover.settled_at = None;
        if let Err(error) = self.try_tidy_up() {
            let reason = text::line(format!("{error:#}"));
            warn!(reason, "cannot remove what is left of another version, will be tried again");
            self.takeover.settled_at = Some(Instant::now() + QUARANTINE);
        }
    }

    fn try_tidy_up(&mut self) -> anyhow::Result<()> {
        let attached = schemas::attached(&self.pins, indexes(&self.snapshot))?;
        if !attached.are_ours() {
            anyhow::bail!("there are still programs of schemas {:?}", attached.schemas);
        }
        schemas::discard_others(&self.pins)?;
        Ok(self.reconciler.settle_table()?)
    }
}

//! Watching over attachments and pins: anybody can detach a program or remove a pin.

use std::collections::BTreeMap;

use tracing::warn;

use super::Daemon;
use crate::{
    driver::{
        attach::{self, Held, look},
        cgroup,
        pins::{self, Lock, Node, PinDir},
    },
    error::chain,
    model::attachment::{Attachment, Hook},
    plan::attachments::{Expected, Fault, Found, Kind, Remedy, faults},
    view::MissingReport,
};

/// What is known of attachments and pins.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// Off until the daemon has taken over: nothing is expected, and nothing put back.
    on: bool,
    /// Attachments to the cgroup.
    sockets: Vec<Attachment>,
    pub(super) egress: Option<Attachment>,
    /// The pin directory that is claimed.
    directory: Option<Node>,
    /// The claim on it, if it had to be made anew.
    lock: Option<Lock>,
    /// By the names of their pins.
    links: BTreeMap<String, Option<Held>>,
    maps: BTreeMap<String, Held>,
    repairs: BTreeMap<Kind, u64>,
    /// What could not be put back, and why.
    missing: BTreeMap<String, String>,
}

/// The name of the pin of the map that is not in the directory of maps.
const SAVED: &str = "saved";

impl Watch {
    /// Says what is attached to the cgroup.
    pub(super) fn set_sockets(&mut self, sockets: Vec<Attachment>, egress: Option<Attachment>) {
        (self.sockets, self.egress) = (sockets, egress);
    }

    /// Holds the maps that are pinned now open, unless it does already.
    pub(super) fn hold_maps(&mut self, pins: &PinDir) -> Result<(), pins::Error> {
        if !self.maps.is_empty() {
            return Ok(());
        }
        for name in pins.map_names()?.into_iter().chain([SAVED.to_owned()]) {
            let path = map_pin(pins, &name);
            let held = Held::open(&path);
            let held = held.map_err(|source| pins::Error::Io { op: "open", path, source })?;
            self.maps.insert(name, held);
        }
        Ok(())
    }

    /// Pins the maps again whose pins are gone.
    pub(super) fn pin_maps(&mut self, pins: &PinDir) -> Result<(), attach::Error> {
        self.maps.iter_mut().try_for_each(|(name, held)| {
            let path = map_pin(pins, name);
            if path.exists() { Ok(()) } else { held.pin_again(&path) }
        })
    }

    /// Begins to watch over maps and attachments.
    fn begin(&mut self, pins: &PinDir) -> Result<(), pins::Error> {
        self.hold_maps(pins)?;
        self.directory = pins.node();
        self.on = true;
        Ok(())
    }

    /// How often something was put back.
    pub(super) fn repairs(&self) -> impl Iterator<Item = (Kind, u64)> {
        Kind::ALL.into_iter().map(|kind| (kind, self.repairs.get(&kind).copied().unwrap_or_default()))
    }

    /// Holds what is attached by now, so that it does not end with its pin.
    fn hold(&mut self, pins: &PinDir, expected: &Expected) {
        for pin in expected.attachments.iter().filter_map(|attachment| attachment.pin.as_ref()) {
            let held = self.links.entry(pin.clone()).or_default();
            if held.is_none() {
                *held = Held::open(&pins.links().join(pin)).ok();
            }
        }
    }

    fn expected<'a>(&'a self, on_interfaces: impl Iterator<Item = &'a Attachment>) -> Expected {
        if !self.on {
            return Expected::default();
        }
        let on_cgroup = self.sockets.iter().chain(&self.egress);
        Expected {
            attachments: on_interfaces.chain(on_cgroup).cloned().collect(),
            maps: self.maps.keys().cloned().collect(),
        }
    }

    /// Some calls for each attachment and pin, which change nothing.
    fn look(&mut self, pins: &PinDir, expected: &Expected) -> Found {
        let wanted = |pin: &String| expected.attachments.iter().any(|a| a.pin.as_ref() == Some(pin));
        self.links.retain(|pin, _| wanted(pin));
        let attachments = expected.attachments.iter().map(|attachment| {
            let pin = attachment.pin.clone().unwrap_or_default();
            look(pins, attachment, self.links.entry(pin).or_default())
        });
        let attachments = attachments.collect();
        let maps = self.maps.iter_mut().map(|(name, held)| held.pin(&map_pin(pins, name))).collect();
        Found { lost: self.directory != pins.node(), attachments, maps }
    }

    /// Makes the pin directory anew, and claims it.
    pub(super) fn renew(&mut self, name: &std::path::Path) -> Result<PinDir, pins::Error> {
        let pins = PinDir::prepare(name)?;
        self.lock = Some(pins.lock()?);
        self.directory = pins.node();
        Ok(pins)
    }

    /// Writes down what was wrong, and whether it is right now.
    fn record(&mut self, fault: Fault, outcome: anyhow::Result<()>) {
        let Fault { kind, what, problem, .. } = fault;
        match outcome {
            Ok(()) => {
                warn!(what, %problem, "something of ours was taken away and has been put back");
                *self.repairs.entry(kind).or_default() += 1;
                self.missing.remove(&what);
            }
            Err(error) => {
                let reason = format!("{problem}: {error:#}");
                if self.missing.get(&what) != Some(&reason) {
                    warn!(
                        what,
                        reason,
                        "something of ours was taken away and cannot be put back, will be tried again"
                    );
                    self.missing.insert(what, reason);
                }
            }
        }
    }
}

fn map_pin(pins: &PinDir, name: &str) -> std::path::PathBuf {
    if name == SAVED { pins.saved() } else { pins.map(name) }
}

impl Daemon {
    /// Puts back what of ours was detached, replaced or unpinned.
    pub(super) fn mend_attachments(&mut self) {
        self.watch_over_all();
        // The second time with a directory that was made anew, where everything is missing.
        for _ in 0..2 {
            let expected = self.watch.expected(self.interfaces.attachments());
            if expected == Expected::default() {
                return;
            }
            let found = self.watch.look(&self.pins, &expected);
            let faults = faults(&expected, &found);
            let again = found.lost;
            self.watch.missing.retain(|what, _| faults.iter().any(|fault| fault.what == *what));
            for fault in faults {
                let outcome = self.mend(&fault.remedy);
                self.watch.record(fault, outcome);
            }
            if !again {
                break;
            }
        }
        if let Err(error) = self.record_qdiscs() {
            warn!(reason = format!("{error:#}"), "cannot remember the qdiscs that were made");
        }
        self.serving.missing(!self.missing().is_empty());
    }

    /// Begins to watch over maps and attachments, unless programs of another version serve. What fails is tried again.
    pub(super) fn watch_over_all(&mut self) {
        const WHAT: &str = "the watch over pins";
        if self.watch.on || self.takeover.former().is_some() {
            return;
        }
        match self.watch.begin(&self.pins) {
            Ok(()) => {
                self.watch.missing.remove(WHAT);
                self.hold_attachments();
            }
            Err(error) => {
                let reason = chain(&error);
                if self.watch.missing.insert(WHAT.to_owned(), reason.clone()).as_ref() != Some(&reason) {
                    warn!(reason, "cannot watch over attachments and pins, will be tried again");
                }
            }
        }
    }

    /// To be called after something was attached.
    pub(super) fn hold_attachments(&mut self) {
        let expected = self.watch.expected(self.interfaces.attachments());
        self.watch.hold(&self.pins, &expected);
    }

    fn mend(&mut self, remedy: &Remedy) -> anyhow::Result<()> {
        match remedy {
            Remedy::MakeDirectory => self.pins = self.watch.renew(self.pins.name())?,
            Remedy::PinMap(name) => {
                self.pins.make()?;
                if let Some(held) = self.watch.maps.get_mut(name) {
                    held.pin_again(&map_pin(&self.pins, name))?;
                }
            }
            Remedy::PinLink(attachment) => {
                self.pins.make()?;
                let Some(pin) = &attachment.pin else { return Ok(()) };
                let path = self.pins.links().join(pin);
                match self.watch.links.get_mut(pin) {
                    Some(Some(held)) => held.pin_again(&path)?,
                    _ => attach::unpin(&path)?,
                }
            }
            Remedy::Attach(attachment) => {
                self.pins.make()?;
                self.attach_again(attachment)?;
                // Its link may be another now.
                if let Some(pin) = &attachment.pin {
                    self.watch.links.remove(pin);
                }
                self.hold_attachments();
            }
        }
        Ok(())
    }

    fn attach_again(&mut self, lost: &Attachment) -> anyhow::Result<()> {
        match lost.hook {
            Hook::Xdp | Hook::Tcx | Hook::Clsact => {
                self.interfaces.attach_again(&mut self.objects, &self.pins, lost)?;
            }
            Hook::Socket | Hook::Egress => {
                // The cgroup may have been removed and made again.
                (self.cgroup, self.cgroup_dir) = cgroup::open(self.options.cgroup.as_deref())?;
                let (objects, pins, cgroup) = (&mut self.objects, &self.pins, &self.cgroup_dir);
                if lost.hook == Hook::Egress {
                    self.watch.egress = Some(attach::egress(objects, pins, cgroup)?);
                } else {
                    let attached = attach::socket(objects, pins, cgroup, &lost.target)?;
                    let known = self.watch.sockets.iter_mut().find(|known| known.target == attached.target);
                    if let Some(known) = known {
                        *known = attached;
                    }
                }
            }
        }
        Ok(())
    }

    /// Everything of ours that is missing and could not be put back.
    pub(super) fn missing(&self) -> Vec<MissingReport> {
        let lost = self.watch.missing.iter().map(|(what, reason)| (what.clone(), reason.clone()));
        let table = self.translation.failure().map(|reason| ("the nft table".to_owned(), reason.to_owned()));
        let lost = lost.chain(table);
        let former = self.takeover.former().is_some();
        lost.chain(self.interfaces.missing().into_iter().filter(|_| !former))
            .map(|(what, reason)| MissingReport { what, reason })
            .collect()
    }
}

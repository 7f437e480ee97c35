//! Which program runs on which interface, and keeping it so as interfaces come and go.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail};
use tracing::{info, warn};

use crate::{
    config::{DetectLocal, FastPath, XdpChoice},
    driver::{
        attach::{self, TcMode, XdpMode, XdpTask},
        kernel::netdev,
        maps::Forwarding,
        objects::Objects,
        pins::PinDir,
        xfrm,
    },
    error::chain,
    model::{
        attachment::{Attachment, Hook},
        forwarding::Links,
        link::{Interface, Layer, Snapshot},
    },
    plan::links,
    text,
    view::{InterfaceReport, SwitchReport, XdpReport},
};

/// The interfaces that packets for frontends arrive on.
#[derive(Debug)]
pub(super) struct Interfaces {
    /// As named by the user; empty: chosen by what the namespace has.
    asked: Vec<Asked>,
    /// What those are called now.
    named: Vec<String>,
    xdp: XdpChoice,
    /// What pods of this node are behind is wanted, too, if they are told by that.
    pods: DetectLocal,
    attached: BTreeMap<String, Attached>,
    /// By device: VLAN devices share the one beneath.
    xdp_on: BTreeMap<String, XdpOn>,
    /// Why an interface is not attached, as last told.
    failures: BTreeMap<String, String>,
    new_qdiscs: Vec<String>,
    /// Interfaces that were renamed since this was last asked: from, to.
    renamed: Vec<(String, String)>,
    fast: FastPath,
    guard: bool,
    /// What the maps say about links; none before it is known.
    links: Option<Links>,
}

/// An interface that the user named. It is found by this name, and if no interface has it any more, by the index of the
/// one that had.
#[derive(Debug)]
struct Asked {
    name: String,
    index: Option<u32>,
}

/// XDP on a device.
#[derive(Debug)]
struct XdpOn {
    mode: XdpMode,
    task: XdpTask,
    attachment: Attachment,
}

#[derive(Debug)]
struct Attached {
    index: u32,
    ethernet: bool,
    tc: TcMode,
    tc_attachment: Attachment,
    xdp: XdpReport,
    fast: SwitchReport,
    guard: SwitchReport,
}

/// Why a named interface is not served.
const ABSENT: &str = "there is no such interface";

/// Why established flows are left to the kernel.
const ENCRYPTS: &str = "nothing is forwarded, as there are IPsec policies";

impl Interfaces {
    /// Checks the names.
    pub(super) fn new(
        named: &[String],
        xdp: XdpChoice,
        (fast, guard): (FastPath, bool),
        pods: DetectLocal,
        snapshot: &Snapshot,
    ) -> anyhow::Result<Self> {
        for name in named {
            if links::find(snapshot, name).is_none() {
                bail!("there is no interface {name}");
            }
        }
        Ok(Self {
            asked: named.iter().map(|name| Asked { name: name.clone(), index: None }).collect(),
            named: named.to_owned(),
            xdp,
            pods,
            attached: BTreeMap::new(),
            xdp_on: BTreeMap::new(),
            failures: BTreeMap::new(),
            new_qdiscs: Vec::new(),
            renamed: Vec::new(),
            fast,
            guard,
            links: None,
        })
    }

    /// Tells the programs between which links established flows are forwarded: between those that this runs on, and no
    /// others, whose own programs and filters must not be passed by. Called again now and then, because whether a device
    /// takes redirected packets can change with the other end of it.
    pub(super) fn link_up(&mut self, maps: &Forwarding, snapshot: &Snapshot) {
        // A packet that is to be encrypted must not leave as it is. Where nobody knows, some packets may.
        let encrypts = xfrm::policies().unwrap_or_else(|error| {
            warn!(reason = chain(&error), "established flows are left to the kernel");
            1
        });
        let mut found = Vec::new();
        for (name, attached) in &mut self.attached {
            let (Some(interface), Some(device)) =
                (links::find(snapshot, name), links::find(snapshot, &attached.xdp.device))
            else {
                continue;
            };
            let forwards = attached.fast.on && encrypts == 0;
            if !forwards && !attached.guard.on {
                if attached.fast.on {
                    attached.fast.reason = ENCRYPTS.to_owned();
                }
                continue;
            }
            // Before Linux 6.3 nobody says; what runs XDP in a physical device's driver does this, too.
            let physical = device.kind.is_none();
            let takes_redirects = attached.xdp.mode == XdpMode::Native.to_string()
                && netdev::takes_redirects(device.index).is_ok_and(|takes| takes.unwrap_or(physical));
            let lacks = if takes_redirects { "" } else { "as it takes no redirected packets" };
            if attached.fast.on {
                attached.fast.reason = match (forwards, takes_redirects) {
                    (false, _) => ENCRYPTS.to_owned(),
                    (true, true) => String::new(),
                    (true, false) => format!("nothing is forwarded to it, {lacks}"),
                };
            }
            if attached.guard.on {
                attached.guard.reason = if takes_redirects {
                    String::new()
                } else {
                    format!("SYN cookies are sent by the kernel, {lacks}")
                };
            }
            found.push(links::Link { interface, device, takes_redirects, forwards });
        }
        let links = links::links(&found);
        if self.links.as_ref() == Some(&links) {
            return;
        }
        match maps.set(&links) {
            Ok(()) => self.links = Some(links),
            Err(error) => warn!(reason = chain(&error), "cannot say between which links to forward"),
        }
    }

    /// Attaches to what is there and not attached yet, and forgets what is gone. With `strict` it fails if there is an
    /// interface that was named, or no interface at all, to which it cannot attach; other failures are logged.
    pub(super) fn attach(
        &mut self,
        objects: &mut Objects,
        pins: &PinDir,
        snapshot: &Snapshot,
        strict: bool,
    ) -> anyhow::Result<()> {
        self.follow_names(pins, snapshot)?;
        self.tell_absent();
        let wanted: Vec<Interface> =
            links::wanted(&self.named, &self.pods, snapshot).into_iter().cloned().collect();
        let mut failed = None;
        for interface in &wanted {
            if self.attached.get(&interface.name).is_some_and(|known| known.index == interface.index) {
                continue;
            }
            match self.attach_one(objects, pins, snapshot, interface) {
                Ok(attached) => {
                    let Attached { tc, xdp, fast, guard, .. } = &attached;
                    info!(interface = interface.name, %tc, %xdp, fast_path = %fast, %guard, "attached");
                    self.failures.remove(&interface.name);
                    self.attached.insert(interface.name.clone(), attached);
                }
                Err(error) if strict && !self.named.is_empty() => return Err(error),
                Err(error) => {
                    let reason = text::line(format!("{error:#}"));
                    if self.failures.get(&interface.name) != Some(&reason) {
                        warn!(interface = interface.name, reason, "cannot attach, will be tried again");
                        self.failures.insert(interface.name.clone(), reason);
                    }
                    failed = Some(error);
                }
            }
        }
        if let Some(error) = failed.filter(|_| strict && self.attached.is_empty()) {
            return Err(error);
        }
        self.detach_others(pins, &wanted)
    }

    /// Goes on with interfaces that have another name than before, under that name. A named interface is the one that has
    /// the name; if none has, the one that had it.
    fn follow_names(&mut self, pins: &PinDir, snapshot: &Snapshot) -> anyhow::Result<()> {
        let names: BTreeMap<u64, &str> =
            snapshot.interfaces.iter().map(|i| (i.index.into(), i.name.as_str())).collect();
        let name_of = |index: u64, before: &str| names.get(&index).copied().unwrap_or(before).to_owned();
        attach::follow_names(pins, &names)?;
        for Asked { name, index } in &mut self.asked {
            *index = match links::find(snapshot, name) {
                Some(interface) => Some(interface.index),
                None => index.filter(|index| names.contains_key(&u64::from(*index))),
            };
        }
        let called = |asked: &Asked| match asked.index {
            Some(index) => name_of(index.into(), &asked.name),
            None => asked.name.clone(),
        };
        self.named = self.asked.iter().map(called).collect();
        for (before, mut attached) in std::mem::take(&mut self.attached) {
            let name = name_of(attached.index.into(), &before);
            let device = self.xdp_on.get(&attached.xdp.device);
            if let Some(XdpOn { attachment, .. }) = device {
                attached.xdp.device = name_of(attachment.place, &attachment.target);
            } else if attached.xdp.device == before {
                attached.xdp.device.clone_from(&name);
            }
            if name != before {
                info!(
                    interface = name,
                    was = before,
                    "an interface was renamed, what is attached to it stays"
                );
                if self.asked.iter().any(|asked| asked.name == before && asked.index == Some(attached.index))
                {
                    warn!(
                        interface = before,
                        now = name,
                        "a named interface is called otherwise now; after a restart it will not be found"
                    );
                }
                self.failures.remove(&before);
                attached.tc_attachment.target.clone_from(&name);
                attached.tc_attachment.pin =
                    attached.tc_attachment.pin.as_ref().map(|_| attach::tcx_pin(&name));
                self.renamed.push((before, name.clone()));
            }
            self.attached.insert(name, attached);
        }
        for (before, mut on) in std::mem::take(&mut self.xdp_on) {
            let name = name_of(on.attachment.place, &before);
            on.attachment.target.clone_from(&name);
            on.attachment.pin = Some(attach::xdp_pin(&name, on.mode));
            self.xdp_on.insert(name, on);
        }
        Ok(())
    }

    /// Tells of named interfaces that are gone, each once.
    fn tell_absent(&mut self) {
        for Asked { name, .. } in self.asked.iter().filter(|asked| asked.index.is_none()) {
            let reason = ABSENT.to_owned();
            if self.failures.get(name) != Some(&reason) {
                warn!(interface = name, "a named interface is gone; it is served again when it returns");
                self.failures.insert(name.clone(), reason);
            }
        }
    }

    /// Named interfaces on which nothing runs, and why.
    pub(super) fn missing(&self) -> Vec<(String, String)> {
        let missing = self.named.iter().filter(|name| !self.attached.contains_key(*name));
        missing
            .map(|name| {
                let reason = self.failures.get(name).map_or(ABSENT, String::as_str);
                (format!("interface {name}"), reason.to_owned())
            })
            .collect()
    }

    /// What is attached and shall stay so.
    pub(super) fn attachments(&self) -> impl Iterator<Item = &Attachment> {
        let tc = self.attached.values().map(|attached| &attached.tc_attachment);
        self.xdp_on.values().map(|on| &on.attachment).chain(tc)
    }

    /// Attaches again what was detached or replaced, as it was.
    pub(super) fn attach_again(
        &mut self,
        objects: &mut Objects,
        pins: &PinDir,
        lost: &Attachment,
    ) -> Result<(), attach::Error> {
        let index = lost.place as u32;
        if lost.hook == Hook::Xdp {
            let Some(on) = self.xdp_on.get_mut(&lost.target) else { return Ok(()) };
            on.attachment = attach::xdp(objects, pins, &lost.target, index, on.mode, on.task)?;
        } else {
            let Some(attached) = self.attached.get_mut(&lost.target) else { return Ok(()) };
            let tc = attach::tc(objects, pins, &lost.target, index, attached.ethernet, attached.tc)?;
            attached.tc_attachment = tc.attachment;
            self.new_qdiscs.extend(tc.new_qdisc.then(|| lost.target.clone()));
        }
        Ok(())
    }

    /// The qdiscs made since this was last asked.
    pub(super) fn take_new_qdiscs(&mut self) -> Vec<String> {
        std::mem::take(&mut self.new_qdiscs)
    }

    /// The interfaces that were renamed since this was last asked.
    pub(super) fn take_renamed(&mut self) -> Vec<(String, String)> {
        std::mem::take(&mut self.renamed)
    }

    pub(super) fn report(&self) -> Vec<InterfaceReport> {
        let report = |(name, attached): (&String, &Attached)| InterfaceReport {
            name: name.clone(),
            tc: attached.tc.to_string(),
            xdp: attached.xdp.clone(),
            fast_path: attached.fast.clone(),
            guard: attached.guard.clone(),
            named: self.asked_as(name),
        };
        let absent =
            self.named.iter().filter(|name| !self.attached.contains_key(*name)).map(|name| InterfaceReport {
                name: name.clone(),
                tc: XdpReport::OFF.to_owned(),
                xdp: XdpReport {
                    device: name.clone(),
                    mode: XdpReport::OFF.to_owned(),
                    reason: self.failures.get(name).map_or(ABSENT, String::as_str).to_owned(),
                },
                fast_path: SwitchReport::default(),
                guard: SwitchReport::default(),
                named: None,
            });
        self.attached.iter().map(report).chain(absent).collect()
    }

    /// What the user calls an interface that is called otherwise now.
    fn asked_as(&self, name: &str) -> Option<String> {
        let asked =
            self.asked.iter().zip(&self.named).find(|(asked, now)| *now == name && asked.name != name);
        asked.map(|(asked, _)| asked.name.clone())
    }

    fn attach_one(
        &mut self,
        objects: &mut Objects,
        pins: &PinDir,
        snapshot: &Snapshot,
        interface: &Interface,
    ) -> anyhow::Result<Attached> {
        let ethernet = match interface.layer {
            Layer::Ethernet | Layer::Loopback => true,
            Layer::None => false,
            Layer::Other(kind) => {
                bail!("interface {} has a link layer that is not known here (type {kind})", interface.name)
            }
        };
        let mut tc = |mode| attach::tc(objects, pins, &interface.name, interface.index, ethernet, mode);
        let (mode, tc_attachment) = match tc(TcMode::Tcx) {
            Ok(added) => (TcMode::Tcx, added.attachment),
            Err(refused) => {
                let added = tc(TcMode::Clsact).with_context(|| format!("TCX: {}", chain(&refused)))?;
                self.new_qdiscs.extend(added.new_qdisc.then(|| interface.name.clone()));
                (TcMode::Clsact, added.attachment)
            }
        };
        let uplink =
            links::uplinks(&self.named, snapshot).iter().any(|uplink| uplink.index == interface.index);
        let mut fast = self.fast_path(objects, &interface.name);
        let xdp = if uplink {
            let task = match objects.fast() {
                Ok(()) if fast.on => XdpTask::Forward,
                Ok(()) if self.guard => XdpTask::Guard,
                _ => XdpTask::Decide,
            };
            self.attach_xdp(objects, pins, links::base(snapshot, interface), ethernet, task)?
        } else {
            let reason = "pods are behind it".to_owned();
            XdpReport { device: interface.name.clone(), mode: XdpReport::OFF.to_owned(), reason }
        };
        if fast.on && xdp.mode != XdpMode::Native.to_string() {
            fast = SwitchReport { on: false, reason: format!("XDP is {}", xdp.mode) };
        }
        let guard = self.guarding(objects, &xdp);
        Ok(Attached { index: interface.index, ethernet, tc: mode, tc_attachment, xdp, fast, guard })
    }

    /// Whether XDP guards an interface.
    fn guarding(&self, objects: &Objects, xdp: &XdpReport) -> SwitchReport {
        let off = |reason: String| SwitchReport { on: false, reason };
        match objects.fast() {
            _ if !self.guard => off("switched off".to_owned()),
            _ if xdp.is_off() => off("XDP is off".to_owned()),
            Err(error) => off(chain(error)),
            Ok(()) => SwitchReport { on: true, reason: String::new() },
        }
    }

    /// Whether established flows can and shall be forwarded on an interface.
    fn fast_path(&self, objects: &Objects, interface: &str) -> SwitchReport {
        let off = |reason: String| SwitchReport { on: false, reason };
        match objects.fast() {
            _ if !self.fast.wanted(interface) => off("switched off".to_owned()),
            Err(error) => off(chain(error)),
            Ok(()) => SwitchReport { on: true, reason: String::new() },
        }
    }

    fn attach_xdp(
        &mut self,
        objects: &mut Objects,
        pins: &PinDir,
        device: &Interface,
        ethernet: bool,
        task: XdpTask,
    ) -> anyhow::Result<XdpReport> {
        let off = |reason: String| XdpReport {
            device: device.name.clone(),
            mode: XdpReport::OFF.to_owned(),
            reason,
        };
        let choices: &[XdpMode] = match self.xdp {
            XdpChoice::Off => {
                attach::detach_xdp(pins, &device.name)?;
                return Ok(off("switched off".to_owned()));
            }
            _ if !ethernet => return Ok(off("no Ethernet header to parse".to_owned())),
            XdpChoice::Auto => &[XdpMode::Native, XdpMode::Generic],
            XdpChoice::Native => &[XdpMode::Native],
            XdpChoice::Generic => &[XdpMode::Generic],
        };
        // What ran on a former interface of this name.
        self.xdp_on.retain(|name, on| *name != device.name || on.attachment.place == u64::from(device.index));
        let mut reasons = Vec::new();
        for mode in choices {
            // What generic XDP would redirect has been through half of the stack already.
            let task = match task {
                XdpTask::Forward if *mode == XdpMode::Generic && self.guard => XdpTask::Guard,
                XdpTask::Forward if *mode == XdpMode::Generic => XdpTask::Decide,
                _ => task,
            };
            match attach::xdp(objects, pins, &device.name, device.index, *mode, task) {
                Ok(attachment) => {
                    let reason = reasons.join("; ");
                    self.xdp_on.insert(device.name.clone(), XdpOn { mode: *mode, task, attachment });
                    return Ok(XdpReport { device: device.name.clone(), mode: mode.to_string(), reason });
                }
                Err(error) if self.xdp == XdpChoice::Auto => {
                    reasons.push(format!("{mode}: {}", chain(&error)));
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(off(reasons.join("; ")))
    }

    /// Detaches from interfaces of a former configuration, and removes the pins of interfaces that are gone.
    fn detach_others(&mut self, pins: &PinDir, wanted: &[Interface]) -> anyhow::Result<()> {
        self.attached.retain(|name, _| wanted.iter().any(|interface| interface.name == *name));
        let attached = &self.attached;
        self.xdp_on.retain(|device, _| attached.values().any(|attached| attached.xdp.device == *device));
        let found = attach::attached(pins)?;
        for name in found.tcx.iter().filter(|name| !self.attached.contains_key(*name)) {
            attach::detach_tc(pins, name)?;
        }
        for (name, _) in &found.xdp {
            if !self.attached.values().any(|attached| attached.xdp.device == *name) {
                attach::detach_xdp(pins, name)?;
            }
        }
        Ok(())
    }
}

/// Detaches everything that is attached to interfaces.
///
/// # Errors
///
/// A pin cannot be removed.
pub fn detach_all(pins: &PinDir, snapshot: &Snapshot) -> Result<(), attach::Error> {
    for interface in &snapshot.interfaces {
        attach::detach_tc(pins, &interface.name)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;

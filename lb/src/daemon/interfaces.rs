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
    named: Vec<String>,
    xdp: XdpChoice,
    /// What pods of this node are behind is wanted, too, if they are told by that.
    pods: DetectLocal,
    attached: BTreeMap<String, Attached>,
    /// Why an interface is not attached, as last told.
    failures: BTreeMap<String, String>,
    new_qdiscs: Vec<String>,
    fast: FastPath,
    guard: bool,
    /// What the maps say about links; none before it is known.
    links: Option<Links>,
}

#[derive(Debug)]
struct Attached {
    index: u32,
    tc: TcMode,
    xdp: XdpReport,
    fast: SwitchReport,
    guard: SwitchReport,
}

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
            named: named.to_owned(),
            xdp,
            pods,
            attached: BTreeMap::new(),
            failures: BTreeMap::new(),
            new_qdiscs: Vec::new(),
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

    /// Forgets the interfaces from which somebody has detached a program, so that [`Interfaces::attach`] puts it back.
    /// Filters of clsact are not looked at.
    pub(super) fn forget_detached(&mut self, pins: &PinDir) {
        let now = match attach::attached_now(pins) {
            Ok(now) => now,
            Err(error) => {
                warn!(reason = chain(&error), "cannot look at the attachments");
                return;
            }
        };
        self.attached.retain(|name, Attached { tc, xdp, .. }| {
            let on =
                |(device, mode): &(String, XdpMode)| *device == xdp.device && mode.to_string() == xdp.mode;
            let whole =
                (*tc != TcMode::Tcx || now.tcx.contains(name)) && (xdp.is_off() || now.xdp.iter().any(on));
            if !whole {
                warn!(interface = name, "somebody has detached a program");
            }
            whole
        });
    }

    /// The qdiscs made since this was last asked.
    pub(super) fn take_new_qdiscs(&mut self) -> Vec<String> {
        std::mem::take(&mut self.new_qdiscs)
    }

    pub(super) fn report(&self) -> Vec<InterfaceReport> {
        let report = |(name, attached): (&String, &Attached)| InterfaceReport {
            name: name.clone(),
            tc: attached.tc.to_string(),
            xdp: attached.xdp.clone(),
            fast_path: attached.fast.clone(),
            guard: attached.guard.clone(),
        };
        let absent =
            self.named.iter().filter(|name| !self.attached.contains_key(*name)).map(|name| InterfaceReport {
                name: name.clone(),
                tc: XdpReport::OFF.to_owned(),
                xdp: XdpReport {
                    device: name.clone(),
                    mode: XdpReport::OFF.to_owned(),
                    reason: self
                        .failures
                        .get(name)
                        .map_or("there is no such interface", String::as_str)
                        .to_owned(),
                },
                fast_path: SwitchReport::default(),
                guard: SwitchReport::default(),
            });
        self.attached.iter().map(report).chain(absent).collect()
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
        let mode = match tc(TcMode::Tcx) {
            Ok(_) => TcMode::Tcx,
            Err(refused) => {
                let added = tc(TcMode::Clsact).with_context(|| format!("TCX: {}", chain(&refused)))?;
                self.new_qdiscs.extend(added.new_qdisc.then(|| interface.name.clone()));
                TcMode::Clsact
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
        Ok(Attached { index: interface.index, tc: mode, xdp, fast, guard })
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
        &self,
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
        let mut reasons = Vec::new();
        for mode in choices {
            // What generic XDP would redirect has been through half of the stack already.
            let task = match task {
                XdpTask::Forward if *mode == XdpMode::Generic && self.guard => XdpTask::Guard,
                XdpTask::Forward if *mode == XdpMode::Generic => XdpTask::Decide,
                _ => task,
            };
            match attach::xdp(objects, pins, &device.name, device.index, *mode, task) {
                Ok(()) => {
                    let reason = reasons.join("; ");
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

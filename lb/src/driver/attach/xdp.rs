//! XDP on interfaces.

use std::fmt;

use aya::programs::{XdpMode as AyaXdpMode, links::FdLink};

use super::{Error, not_pinnable, pin_link, remove, replace};
use crate::{
    driver::{
        objects::{FAST_PROGRAMS, GUARD_PROGRAMS, Objects, XDP_PROGRAMS},
        pins::{PinDir, escape},
    },
    model::attachment::{Attachment, Hook},
};

/// How XDP runs on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XdpMode {
    /// In the driver, before a socket buffer exists.
    Native,
    /// In the stack, for drivers without support.
    Generic,
}

impl XdpMode {
    pub(super) const ALL: [Self; 2] = [Self::Native, Self::Generic];

    const fn aya(self) -> AyaXdpMode {
        match self {
            Self::Native => AyaXdpMode::Driver,
            Self::Generic => AyaXdpMode::Skb,
        }
    }
}

impl fmt::Display for XdpMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Native => "native",
            Self::Generic => "generic",
        })
    }
}

/// What XDP does on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XdpTask {
    /// It decides.
    Decide,
    /// And drops what may not open a connection.
    Guard,
    /// And forwards established flows.
    Forward,
}

impl XdpTask {
    const fn programs(self) -> [&'static str; 2] {
        match self {
            Self::Decide => XDP_PROGRAMS,
            Self::Guard => GUARD_PROGRAMS,
            Self::Forward => FAST_PROGRAMS,
        }
    }
}

/// Attaches XDP to an interface in one mode; an attachment in the other mode is removed first, because the kernel
/// allows only one.
///
/// # Errors
///
/// The driver or the kernel refuses.
pub fn xdp(
    objects: &mut Objects,
    pins: &PinDir,
    interface: &str,
    index: u32,
    mode: XdpMode,
    task: XdpTask,
) -> Result<Attachment, Error> {
    for other in XdpMode::ALL.into_iter().filter(|other| *other != mode) {
        remove(&pins.links().join(xdp_pin(interface, other)))?;
    }
    let [plain, frags] = task.programs();
    let first = attach_xdp(objects, pins, interface, index, mode, plain);
    match mode {
        // Drivers refuse the plain program for an MTU beyond one buffer.
        XdpMode::Native => first
            .or_else(|refused| attach_xdp(objects, pins, interface, index, mode, frags).map_err(|_| refused)),
        XdpMode::Generic => first,
    }
}

fn attach_xdp(
    objects: &mut Objects,
    pins: &PinDir,
    interface: &str,
    index: u32,
    mode: XdpMode,
    name: &'static str,
) -> Result<Attachment, Error> {
    let program = objects.xdp(name)?;
    let attach = |source| Error::Attach { program: name, target: interface.to_owned(), source };
    let pin = xdp_pin(interface, mode);
    let attachment = Attachment {
        hook: Hook::Xdp,
        target: interface.to_owned(),
        place: index.into(),
        program: program.info().map_err(attach)?.id(),
        pin: Some(pin.clone()),
    };
    let pin = pins.links().join(pin);
    if replace(&pin, program.fd().map_err(attach)?, index.into())? {
        return Ok(attachment);
    }
    let link = program
        .attach_to_if_index(index, mode.aya())
        .and_then(|id| program.take_link(id))
        .and_then(|link| FdLink::try_from(link).map_err(|_| not_pinnable()))
        .map_err(attach)?;
    pin_link(link, pin).map(|()| attachment)
}

/// Detaches XDP from an interface, whatever its mode.
///
/// # Errors
///
/// A pin cannot be removed.
pub fn detach_xdp(pins: &PinDir, interface: &str) -> Result<(), Error> {
    XdpMode::ALL.into_iter().try_for_each(|mode| remove(&pins.links().join(xdp_pin(interface, mode))))
}

/// Name of the pin.
#[must_use]
pub fn xdp_pin(interface: &str, mode: XdpMode) -> String {
    format!("xdp-{mode}-{}", escape(interface))
}

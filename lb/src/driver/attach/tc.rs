//! The classifier on the ingress of interfaces.

use std::{fmt, path::PathBuf};

use aya::programs::{
    ProgramError, SchedClassifier, TcAttachType,
    links::FdLink,
    tc::{NlOptions, SchedClassifierLink, TcAttachOptions, TcHandle, qdisc_add_clsact},
};

use super::{Error, not_pinnable, pin_link, remove, replace};
use crate::driver::{
    objects::{Objects, TC_PROGRAMS},
    pins::PinDir,
};

/// How tc runs on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TcMode {
    /// A link of its own, since Linux 6.6.
    Tcx,
    /// A filter on the clsact qdisc.
    Clsact,
}

impl fmt::Display for TcMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
        })
    }
}

pub(super) fn tcx_pin(pins: &PinDir, interface: &str) -> PathBuf {
    pins.links().join(format!("tcx-{interface}"))
}

/// What attaching the classifier took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcAttached {
    /// The interface had no clsact qdisc and has one now.
    pub new_qdisc: bool,
}

/// Attaches the classifier to the ingress of an interface.
///
/// # Errors
///
/// The kernel refuses.
pub fn tc(
    objects: &mut Objects,
    pins: &PinDir,
    interface: &str,
    index: u32,
    ethernet: bool,
    mode: TcMode,
) -> Result<TcAttached, Error> {
    let name = TC_PROGRAMS[usize::from(!ethernet)];
    let program = objects.tc(name)?;
    let attach = |source| Error::Attach { program: name, target: interface.to_owned(), source };
    match mode {
        TcMode::Tcx => {
            let pin = tcx_pin(pins, interface);
            if replace(&pin, program.fd().map_err(attach)?, Some(index))? {
                return Ok(TcAttached::default());
            }
            let options = TcAttachOptions::TcxOrder(Default::default());
            let link = program
                .attach_with_options(interface, TcAttachType::Ingress, options)
                .and_then(|id| program.take_link(id))
                .and_then(|link| FdLink::try_from(link).map_err(|_| not_pinnable()))
                .map_err(attach)?;
            pin_link(link, pin).map(|()| TcAttached::default())
        }
        TcMode::Clsact => clsact(program, interface).map_err(attach),
    }
}

/// The priority is ours by custom only, so it is one that nobody takes by chance.
const CLSACT_PRIORITY: u16 = 0x5074;
const CLSACT_HANDLE: TcHandle = TcHandle::new(0, 1);

fn clsact_link(interface: &str) -> Result<SchedClassifierLink, ProgramError> {
    SchedClassifierLink::attached(interface, TcAttachType::Ingress, CLSACT_PRIORITY, CLSACT_HANDLE, None)
        .map_err(ProgramError::IOError)
}

fn clsact(program: &mut SchedClassifier, interface: &str) -> Result<TcAttached, ProgramError> {
    // Fails where the qdisc is there already; if it failed for another reason, the attachment below fails as well.
    let new_qdisc = qdisc_add_clsact(interface).is_ok();
    let replaced = clsact_link(interface).and_then(|link| program.attach_to_link(link));
    let id = replaced.or_else(|_| {
        let options = NlOptions { priority: CLSACT_PRIORITY, handle: CLSACT_HANDLE, classid: None };
        program.attach_with_options(interface, TcAttachType::Ingress, TcAttachOptions::Netlink(options))
    })?;
    // Dropping the link would remove the filter, which shall outlive this process.
    std::mem::forget(program.take_link(id)?);
    Ok(TcAttached { new_qdisc })
}

/// Detaches the classifier from an interface.
///
/// # Errors
///
/// A pin cannot be removed.
pub fn detach_tc(pins: &PinDir, interface: &str) -> Result<(), Error> {
    if let Ok(link) = clsact_link(interface) {
        // Fails where there is no such filter, which is what is wanted.
        let _ = aya::programs::links::Link::detach(link);
    }
    remove(&tcx_pin(pins, interface))
}

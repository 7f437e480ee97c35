//! The classifier on the ingress of interfaces.

use std::fmt;

use aya::programs::{
    ProgramError, SchedClassifier, TcAttachType,
    links::FdLink,
    tc::{NlOptions, SchedClassifierLink, TcAttachOptions, TcHandle, qdisc_add_clsact},
};

use super::{Error, TCX, filter, not_pinnable, pin_link, remove, replace};
use crate::{
    driver::{
        objects::{Objects, TC_PROGRAMS},
        pins::{PinDir, escape},
    },
    model::attachment::{Attachment, Hook},
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

/// Name of the pin.
#[must_use]
pub fn tcx_pin(interface: &str) -> String {
    format!("{TCX}{}", escape(interface))
}

/// What attaching the classifier took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TcAttached {
    /// The attachment.
    pub attachment: Attachment,
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
    let id = program.info().map_err(attach)?.id();
    let attachment =
        |hook, pin| Attachment { hook, target: interface.to_owned(), place: index.into(), program: id, pin };
    match mode {
        TcMode::Tcx => {
            let pin = tcx_pin(interface);
            let attachment = attachment(Hook::Tcx, Some(pin.clone()));
            let pin = pins.links().join(pin);
            if !replace(&pin, program.fd().map_err(attach)?, index.into())? {
                let options = TcAttachOptions::TcxOrder(Default::default());
                let link = program
                    .attach_with_options(interface, TcAttachType::Ingress, options)
                    .and_then(|id| program.take_link(id))
                    .and_then(|link| FdLink::try_from(link).map_err(|_| not_pinnable()))
                    .map_err(attach)?;
                pin_link(link, pin)?;
            }
            // Of a process that could not attach so, if there is one.
            detach_filter(interface, index)?;
            Ok(TcAttached { attachment, new_qdisc: false })
        }
        TcMode::Clsact => {
            let new_qdisc = clsact(program, interface).map_err(attach)?;
            Ok(TcAttached { attachment: attachment(Hook::Clsact, None), new_qdisc })
        }
    }
}

const CLSACT_HANDLE: TcHandle = TcHandle::new(0, 1);

fn clsact_link(interface: &str) -> Result<SchedClassifierLink, ProgramError> {
    SchedClassifierLink::attached(interface, TcAttachType::Ingress, filter::PRIORITY, CLSACT_HANDLE, None)
        .map_err(ProgramError::IOError)
}

/// Attaches the filter; whether it took a new qdisc.
fn clsact(program: &mut SchedClassifier, interface: &str) -> Result<bool, ProgramError> {
    // Fails where the qdisc is there already; if it failed for another reason, the attachment below fails as well.
    let new_qdisc = qdisc_add_clsact(interface).is_ok();
    let replaced = clsact_link(interface).and_then(|link| program.attach_to_link(link));
    let id = replaced.or_else(|_| {
        let options = NlOptions { priority: filter::PRIORITY, handle: CLSACT_HANDLE, classid: None };
        program.attach_with_options(interface, TcAttachType::Ingress, TcAttachOptions::Netlink(options))
    })?;
    // Dropping the link would remove the filter, which shall outlive this process.
    std::mem::forget(program.take_link(id)?);
    Ok(new_qdisc)
}

/// Removes our filter, if there is one.
fn detach_filter(interface: &str, index: u32) -> Result<(), Error> {
    let failed = |source| Error::Filter { interface: interface.to_owned(), source };
    // A kernel without clsact has none.
    if !matches!(filter::program(index), Ok(Some(_))) {
        return Ok(());
    }
    clsact_link(interface).and_then(aya::programs::links::Link::detach).map_err(failed)
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
    remove(&pins.links().join(tcx_pin(interface)))
}

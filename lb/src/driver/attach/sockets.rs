//! The socket hooks, and the program on the way out, on a cgroup.

use std::fs;

use aya::programs::{CgroupAttachMode, CgroupSkbAttachType, links::FdLink};

use super::{Error, not_pinnable, pin_link, remove, replace};
use crate::driver::{
    objects::{EGRESS_PROGRAM, Objects, SOCKET_PROGRAMS},
    pins::PinDir,
};

/// Attaches the socket hooks to a cgroup.
///
/// # Errors
///
/// The kernel refuses.
pub fn sockets(objects: &mut Objects, pins: &PinDir, cgroup: &fs::File) -> Result<(), Error> {
    for name in SOCKET_PROGRAMS {
        let program = objects.socket(name)?;
        let hook = name.trim_start_matches("portico_");
        let pin = pins.links().join(format!("cgroup-{hook}"));
        let attach = |source| Error::Attach { program: name, target: "the cgroup".to_owned(), source };
        if replace(&pin, program.fd().map_err(attach)?, None)? {
            continue;
        }
        let link = program
            // A link takes no flags: it always allows others beside it.
            .attach(cgroup, CgroupAttachMode::Single)
            .and_then(|id| program.take_link(id))
            .and_then(|link| FdLink::try_from(link).map_err(|_| not_pinnable()))
            .map_err(attach)?;
        pin_link(link, pin)?;
    }
    Ok(())
}

/// Attaches the program that enforces source ranges for sockets, to the same cgroup.
///
/// # Errors
///
/// The kernel refuses.
pub fn egress(objects: &mut Objects, pins: &PinDir, cgroup: &fs::File) -> Result<(), Error> {
    let program = objects.egress()?;
    let pin = pins.links().join(EGRESS_PIN);
    let attach = |source| Error::Attach { program: EGRESS_PROGRAM, target: "the cgroup".to_owned(), source };
    if replace(&pin, program.fd().map_err(attach)?, None)? {
        return Ok(());
    }
    let link = program
        .attach(cgroup, CgroupSkbAttachType::Egress, CgroupAttachMode::Single)
        .and_then(|id| program.take_link(id))
        .and_then(|link| FdLink::try_from(link).map_err(|_| not_pinnable()))
        .map_err(attach)?;
    pin_link(link, pin)
}

/// Detaches it, if it is attached.
///
/// # Errors
///
/// The pin cannot be removed.
pub fn detach_egress(pins: &PinDir) -> Result<(), Error> {
    remove(&pins.links().join(EGRESS_PIN))
}

const EGRESS_PIN: &str = "cgroup-egress";

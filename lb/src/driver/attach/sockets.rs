//! The socket hooks, and the program on the way out, on a cgroup.

use std::{
    fs,
    os::{fd::AsFd as _, unix::fs::MetadataExt as _},
};

use aya::programs::{CgroupAttachMode, CgroupSkbAttachType, links::FdLink};

use super::{CGROUP, Error, not_pinnable, pin_link, remove, replace};
use crate::{
    driver::{
        objects::{EGRESS_PROGRAM, Objects, SOCKET_PROGRAMS},
        pins::PinDir,
        sys,
    },
    model::attachment::{Attachment, Hook},
};

const EGRESS: &str = "egress";

/// Attaches the socket hooks to a cgroup.
///
/// # Errors
///
/// The kernel refuses.
pub fn sockets(objects: &mut Objects, pins: &PinDir, cgroup: &fs::File) -> Result<Vec<Attachment>, Error> {
    SOCKET_PROGRAMS.into_iter().map(|name| attach(objects, pins, cgroup, name)).collect()
}

/// Attaches one of them, by its name in its pin (`connect4`).
///
/// # Errors
///
/// The kernel refuses, or there is none of that name.
pub fn socket(
    objects: &mut Objects,
    pins: &PinDir,
    cgroup: &fs::File,
    hook: &str,
) -> Result<Attachment, Error> {
    let name = SOCKET_PROGRAMS.into_iter().find(|name| hook_of(name) == hook);
    attach(objects, pins, cgroup, name.ok_or_else(|| Error::Unknown(hook.to_owned()))?)
}

/// Whether there is a program of this version for a hook of a cgroup, by the hook's name in its pin.
pub(super) fn is_known(hook: &str) -> bool {
    hook == EGRESS || SOCKET_PROGRAMS.into_iter().any(|name| hook_of(name) == hook)
}

fn hook_of(program: &'static str) -> &'static str {
    program.trim_start_matches("portico_")
}

/// The kernel's id of a cgroup is the number of its inode (`kernfs_id_ino`).
fn id(cgroup: &fs::File) -> Result<u64, Error> {
    Ok(cgroup.metadata().map_err(Error::Cgroup)?.ino())
}

fn attach(
    objects: &mut Objects,
    pins: &PinDir,
    cgroup: &fs::File,
    name: &'static str,
) -> Result<Attachment, Error> {
    let program = objects.socket(name)?;
    let (hook, place) = (hook_of(name), id(cgroup)?);
    let attach = |source| Error::Attach { program: name, target: "the cgroup".to_owned(), source };
    let pin = format!("{CGROUP}{hook}");
    let attachment = Attachment {
        hook: Hook::Socket,
        target: hook.to_owned(),
        place,
        program: program.info().map_err(attach)?.id(),
        pin: Some(pin.clone()),
    };
    let pin = pins.links().join(pin);
    if replace(&pin, program.fd().map_err(attach)?, place)? {
        return Ok(attachment);
    }
    let link = program
        // A link takes no flags: it always allows others beside it.
        .attach(cgroup, CgroupAttachMode::Single)
        .and_then(|id| program.take_link(id))
        .and_then(|link| FdLink::try_from(link).map_err(|_| not_pinnable()))
        .map_err(attach)?;
    pin_link(link, pin).map(|()| attachment)
}

/// Attaches the program that enforces source ranges for sockets, to the same cgroup.
///
/// # Errors
///
/// The kernel refuses.
pub fn egress(objects: &mut Objects, pins: &PinDir, cgroup: &fs::File) -> Result<Attachment, Error> {
    let program = objects.egress()?;
    let place = id(cgroup)?;
    let attach = |source| Error::Attach { program: EGRESS_PROGRAM, target: "the cgroup".to_owned(), source };
    let attachment = of_egress(place, program.info().map_err(attach)?.id());
    let pin = egress_pin(pins);
    if replace(&pin, program.fd().map_err(attach)?, place)? {
        return Ok(attachment);
    }
    let link = program
        .attach(cgroup, CgroupSkbAttachType::Egress, CgroupAttachMode::Single)
        .and_then(|id| program.take_link(id))
        .and_then(|link| FdLink::try_from(link).map_err(|_| not_pinnable()))
        .map_err(attach)?;
    pin_link(link, pin).map(|()| attachment)
}

/// As a former process left it, if it did.
#[must_use]
pub fn egress_left(pins: &PinDir) -> Option<Attachment> {
    let link = sys::open_pin(&egress_pin(pins)).ok()?;
    let info = sys::link_info(link.as_fd()).ok()?;
    (info.place != 0).then(|| of_egress(info.place, info.program))
}

/// Detaches it, if it is attached.
///
/// # Errors
///
/// The pin cannot be removed.
pub fn detach_egress(pins: &PinDir) -> Result<(), Error> {
    remove(&egress_pin(pins))
}

fn egress_pin(pins: &PinDir) -> std::path::PathBuf {
    pins.links().join(format!("{CGROUP}{EGRESS}"))
}

fn of_egress(place: u64, program: u32) -> Attachment {
    let pin = Some(format!("{CGROUP}{EGRESS}"));
    Attachment { hook: Hook::Egress, target: EGRESS.to_owned(), place, program, pin }
}

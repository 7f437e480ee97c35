//! Attaching programs: XDP and tc to interfaces, the socket hooks to a cgroup.
//!
//! Every attachment that is a BPF link is pinned, its name saying what it is (`xdp-native-eth0`, `tcx-eth0`,
//! `cgroup-connect4`), so that it outlives the daemon and the next one replaces its program in place. Where the
//! kernel has no TCX (before Linux 6.6), a filter on the clsact qdisc stands in, found by its fixed priority and handle.
//! While the daemon runs it holds links and maps open besides ([`Held`]): what loses its pin then goes on, and can be
//! pinned again.

mod filter;
mod held;
mod names;
mod sockets;
mod tc;
mod xdp;

pub use filter::program as filter_program;
pub use held::{Held, look, unpin};
pub use names::follow_names;
pub use sockets::{detach_egress, egress, egress_left, socket, sockets};
pub use tc::{TcAttached, TcMode, detach_tc, tc, tcx_pin};
pub use xdp::{XdpMode, XdpTask, detach_xdp, xdp, xdp_pin};

use std::{
    io::{self, ErrorKind},
    os::fd::AsFd as _,
    path::{Path, PathBuf},
};

use aya::programs::{ProgramError, links::FdLink};

use super::{
    objects,
    pins::{self, PinDir, unescape},
    sys,
};

/// Why something could not be attached.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum Error {
    #[error(transparent)]
    Object(#[from] objects::Error),
    #[error(transparent)]
    Pins(#[from] pins::Error),
    #[error("cannot attach {program} to {target}")]
    Attach { program: &'static str, target: String, source: ProgramError },
    #[error("cannot replace the program of {pin}")]
    Replace { pin: PathBuf, source: io::Error },
    #[error("cannot pin the attachment {pin}")]
    Pin { pin: PathBuf, source: aya::pin::PinError },
    #[error("cannot read the attachment {pin}")]
    Read { pin: PathBuf, source: io::Error },
    #[error("cannot pin {pin} again")]
    PinAgain { pin: PathBuf, source: io::Error },
    #[error("cannot remove the attachment {pin}")]
    Unpin { pin: PathBuf, source: io::Error },
    #[error("cannot look at the cgroup")]
    Cgroup(#[source] io::Error),
    #[error("cannot remove the tc filter of {interface}")]
    Filter { interface: String, source: ProgramError },
    #[error("there is no attachment of this name: {0}")]
    Unknown(String),
}

/// What is attached, as the pins tell it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attached {
    /// XDP: interface and mode.
    pub xdp: Vec<(String, XdpMode)>,
    /// tc: interface.
    pub tcx: Vec<String>,
    /// Socket hooks: `connect4`...
    pub sockets: Vec<String>,
}

/// Reads what is attached from the names of the pins.
///
/// # Errors
///
/// The pins cannot be listed.
pub fn attached(pins: &PinDir) -> Result<Attached, pins::Error> {
    let mut attached = Attached::default();
    for name in pins.link_names()? {
        if let Some((interface, mode)) = xdp_of(&name) {
            attached.xdp.push((interface, mode));
        } else if let Some(interface) = name.strip_prefix(TCX) {
            attached.tcx.push(unescape(interface));
        } else if let Some(hook) = name.strip_prefix(CGROUP) {
            attached.sockets.push(hook.to_owned());
        }
    }
    Ok(attached)
}

/// Interface and mode, if this is the name of a pin of XDP.
fn xdp_of(pin: &str) -> Option<(String, XdpMode)> {
    XdpMode::ALL.into_iter().find_map(|mode| {
        pin.strip_prefix(&format!("xdp-{mode}-")).map(|interface| (unescape(interface), mode))
    })
}

/// What names of pins begin with.
const TCX: &str = "tcx-";
const CGROUP: &str = "cgroup-";

/// As [`attached`], without what the kernel or somebody else has detached since.
///
/// # Errors
///
/// The pins cannot be listed.
pub fn attached_now(pins: &PinDir) -> Result<Attached, pins::Error> {
    let mut attached = attached(pins)?;
    let live = |pin: &Path| {
        sys::open_pin(pin).and_then(|link| sys::link_info(link.as_fd())).is_ok_and(|info| info.place != 0)
    };
    attached.xdp.retain(|(interface, mode)| live(&pins.links().join(xdp_pin(interface, *mode))));
    attached.tcx.retain(|interface| live(&pins.links().join(tcx_pin(interface))));
    attached.sockets.retain(|hook| live(&pins.links().join(format!("{CGROUP}{hook}"))));
    Ok(attached)
}

/// Detaches what is pinned under a name that this version gives to no attachment, and returns the names: another version
/// may attach to more hooks.
///
/// # Errors
///
/// The pins cannot be listed, or one cannot be removed.
pub fn detach_unknown(pins: &PinDir) -> Result<Vec<String>, Error> {
    let mut names = pins.link_names()?;
    names.retain(|name| match name.strip_prefix(CGROUP) {
        Some(hook) => !sockets::is_known(hook),
        None => xdp_of(name).is_none() && ![TCX, names::MOVING].iter().any(|known| name.starts_with(known)),
    });
    names.iter().try_for_each(|name| remove(&pins.links().join(name)))?;
    Ok(names)
}

/// Whether any pinned attachment is still on an interface, which ends with the interface's network namespace.
///
/// # Errors
///
/// The pins cannot be listed, or a link cannot be asked.
pub fn is_on_interfaces(pins: &PinDir) -> Result<bool, Error> {
    for name in pins.link_names()?.iter().filter(|name| !name.starts_with(CGROUP)) {
        let pin = pins.links().join(name);
        let info = sys::open_pin(&pin).and_then(|link| sys::link_info(link.as_fd()));
        if info.map_err(|source| Error::Read { pin, source })?.place != 0 {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Detaches everything that is pinned.
///
/// # Errors
///
/// The pins cannot be listed, or one cannot be removed.
pub fn detach_pinned(pins: &PinDir) -> Result<(), Error> {
    pins.link_names()?.iter().try_for_each(|name| remove(&pins.links().join(name)))
}

/// Puts the program into the pinned link; false if there is none, or it is for another interface or cgroup than `place`,
/// or detached, and has been removed.
fn replace(pin: &Path, program: &aya::programs::ProgramFd, place: u64) -> Result<bool, Error> {
    let failed = |source| Error::Replace { pin: pin.to_owned(), source };
    let link = match sys::open_pin(pin) {
        Ok(link) => link,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        Err(source) => return Err(failed(source)),
    };
    if sys::link_info(link.as_fd()).map_err(failed)?.place != place {
        remove(pin)?;
        return Ok(false);
    }
    sys::update_link(link.as_fd(), program.as_fd()).map_err(failed)?;
    Ok(true)
}

fn pin_link(link: FdLink, pin: PathBuf) -> Result<(), Error> {
    link.pin(&pin).map(drop).map_err(|source| Error::Pin { pin, source })
}

/// Detaches and removes the pin. Detaching first, because the kernel lets go of a link that lost its last holder only
/// some time later, and whoever attaches next would find the hook taken.
fn remove(pin: &Path) -> Result<(), Error> {
    if let Ok(link) = sys::open_pin(pin) {
        // Fails where the interface is gone and the link with it.
        let _ = sys::detach_link(link.as_fd());
    }
    unpin(pin)
}

/// aya falls back to netlink where `bpf_link_create` is refused; such an attachment would die with the process.
fn not_pinnable() -> ProgramError {
    ProgramError::IOError(io::Error::new(ErrorKind::Unsupported, "the kernel makes no BPF link for it"))
}

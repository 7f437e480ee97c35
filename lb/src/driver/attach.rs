//! Attaching programs: XDP and tc to interfaces, the socket hooks to a cgroup.
//!
//! Every attachment that is a BPF link is pinned, its name saying what it is (`xdp-native-eth0`, `tcx-eth0`,
//! `cgroup-connect4`), so that it outlives the daemon and the next one replaces its program in place. Where the
//! kernel has no TCX (before Linux 6.6), a filter on the clsact qdisc stands in, found by its fixed priority and handle.

use std::{
    fmt, fs,
    io::{self, ErrorKind},
    os::fd::AsFd as _,
    path::{Path, PathBuf},
};

use aya::programs::{
    CgroupAttachMode, CgroupSkbAttachType, ProgramError, SchedClassifier, TcAttachType,
    XdpMode as AyaXdpMode,
    links::FdLink,
    tc::{NlOptions, SchedClassifierLink, TcAttachOptions, TcHandle, qdisc_add_clsact},
};

use super::{
    objects::{
        self, EGRESS_PROGRAM, FAST_PROGRAMS, GUARD_PROGRAMS, Objects, SOCKET_PROGRAMS, TC_PROGRAMS,
        XDP_PROGRAMS,
    },
    pins::{self, PinDir},
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
    #[error("cannot remove the attachment {pin}")]
    Unpin { pin: PathBuf, source: io::Error },
}

/// How XDP runs on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XdpMode {
    /// In the driver, before a socket buffer exists.
    Native,
    /// In the stack, for drivers without support.
    Generic,
}

impl XdpMode {
    const ALL: [Self; 2] = [Self::Native, Self::Generic];

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
        let mode = XdpMode::ALL.into_iter().find_map(|mode| {
            name.strip_prefix(&format!("xdp-{mode}-")).map(|interface| (interface.to_owned(), mode))
        });
        if let Some(xdp) = mode {
            attached.xdp.push(xdp);
        } else if let Some(interface) = name.strip_prefix("tcx-") {
            attached.tcx.push(interface.to_owned());
        } else if let Some(hook) = name.strip_prefix("cgroup-") {
            attached.sockets.push(hook.to_owned());
        }
    }
    Ok(attached)
}

/// As [`attached`], without what the kernel or somebody else has detached since.
///
/// # Errors
///
/// The pins cannot be listed.
pub fn attached_now(pins: &PinDir) -> Result<Attached, pins::Error> {
    let mut attached = attached(pins)?;
    let live = |pin: &Path| {
        sys::open_pin(pin)
            .and_then(|link| sys::link_info(link.as_fd()))
            .is_ok_and(|(interface, _)| interface != 0)
    };
    attached.xdp.retain(|(interface, mode)| live(&xdp_pin(pins, interface, *mode)));
    attached.tcx.retain(|interface| live(&tcx_pin(pins, interface)));
    Ok(attached)
}

/// Whether any pinned attachment is still on an interface, which ends with the interface's network namespace.
///
/// # Errors
///
/// The pins cannot be listed, or a link cannot be asked.
pub fn is_on_interfaces(pins: &PinDir) -> Result<bool, Error> {
    for name in pins.link_names()?.iter().filter(|name| !name.starts_with("cgroup-")) {
        let pin = pins.links().join(name);
        let index = sys::open_pin(&pin).and_then(|link| sys::link_info(link.as_fd()));
        if index.map_err(|source| Error::Read { pin, source })?.0 != 0 {
            return Ok(true);
        }
    }
    Ok(false)
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
) -> Result<(), Error> {
    for other in XdpMode::ALL.into_iter().filter(|other| *other != mode) {
        remove(&xdp_pin(pins, interface, other))?;
    }
    let pin = xdp_pin(pins, interface, mode);
    let [plain, frags] = task.programs();
    let first = attach_xdp(objects, &pin, interface, index, mode, plain);
    match mode {
        // Drivers refuse the plain program for an MTU beyond one buffer.
        XdpMode::Native => first
            .or_else(|refused| attach_xdp(objects, &pin, interface, index, mode, frags).map_err(|_| refused)),
        XdpMode::Generic => first,
    }
}

fn attach_xdp(
    objects: &mut Objects,
    pin: &Path,
    interface: &str,
    index: u32,
    mode: XdpMode,
    name: &'static str,
) -> Result<(), Error> {
    let program = objects.xdp(name)?;
    let attach = |source| Error::Attach { program: name, target: interface.to_owned(), source };
    if replace(pin, program.fd().map_err(attach)?, Some(index))? {
        return Ok(());
    }
    let link = program
        .attach_to_if_index(index, mode.aya())
        .and_then(|id| program.take_link(id))
        .and_then(|link| FdLink::try_from(link).map_err(|_| not_pinnable()))
        .map_err(attach)?;
    pin_link(link, pin.to_owned())
}

/// Detaches XDP from an interface, whatever its mode.
///
/// # Errors
///
/// A pin cannot be removed.
pub fn detach_xdp(pins: &PinDir, interface: &str) -> Result<(), Error> {
    XdpMode::ALL.into_iter().try_for_each(|mode| remove(&xdp_pin(pins, interface, mode)))
}

fn xdp_pin(pins: &PinDir, interface: &str, mode: XdpMode) -> PathBuf {
    pins.links().join(format!("xdp-{mode}-{interface}"))
}

fn tcx_pin(pins: &PinDir, interface: &str) -> PathBuf {
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

/// Detaches everything that is pinned.
///
/// # Errors
///
/// The pins cannot be listed, or one cannot be removed.
pub fn detach_pinned(pins: &PinDir) -> Result<(), Error> {
    pins.link_names()?.iter().try_for_each(|name| remove(&pins.links().join(name)))
}

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

/// Puts the program into the pinned link; false if there is none, or it is for another interface than `index` and has
/// been removed.
fn replace(pin: &Path, program: &aya::programs::ProgramFd, index: Option<u32>) -> Result<bool, Error> {
    let failed = |source| Error::Replace { pin: pin.to_owned(), source };
    let link = match sys::open_pin(pin) {
        Ok(link) => link,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        Err(source) => return Err(failed(source)),
    };
    let (interface, _) = sys::link_info(link.as_fd()).map_err(failed)?;
    if index.is_some_and(|index| index != interface) {
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
    match fs::remove_file(pin) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(Error::Unpin { pin: pin.to_owned(), source: error })
        }
        _ => Ok(()),
    }
}

/// aya falls back to netlink where `bpf_link_create` is refused; such an attachment would die with the process.
fn not_pinnable() -> ProgramError {
    ProgramError::IOError(io::Error::new(ErrorKind::Unsupported, "the kernel makes no BPF link for it"))
}

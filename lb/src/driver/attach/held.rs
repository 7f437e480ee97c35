//! Links and maps that are held open, and looking at what is attached and pinned.

use std::{
    fs, io,
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
};

use super::{Error, filter};
use crate::{
    driver::{
        link,
        pins::{Node, PinDir},
        sys,
    },
    model::attachment::{Attachment, Hook, Pin, Runs},
};

/// A link or map that was found pinned. It lives for as long as this does, with its pin or without.
#[derive(Debug)]
pub struct Held {
    object: OwnedFd,
    id: u32,
    /// Where it was last seen pinned.
    node: Option<Node>,
}

impl Held {
    /// Opens what is pinned.
    ///
    /// # Errors
    ///
    /// Nothing is.
    pub fn open(pin: &Path) -> io::Result<Self> {
        // Before it is opened: what is pinned anew in between looks like another then, and is compared by its id.
        let node = Node::of(pin);
        let object = sys::open_pin(pin)?;
        let id = sys::object_id(object.as_fd())?;
        Ok(Self { object, id, node })
    }

    /// What is at its pin now. Asks the kernel for no more than the inode as long as nothing has changed.
    pub fn pin(&mut self, pin: &Path) -> Pin {
        let node = Node::of(pin);
        if node.is_none() {
            return Pin::Missing;
        }
        if node == self.node {
            return Pin::Kept;
        }
        match sys::open_pin(pin).and_then(|object| sys::object_id(object.as_fd())) {
            Ok(id) if id == self.id => {
                self.node = node;
                Pin::Kept
            }
            _ => Pin::Other,
        }
    }

    /// Pins it, in place of whatever is there. That is not touched otherwise: it may be in somebody's use.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub fn pin_again(&mut self, pin: &Path) -> Result<(), Error> {
        let failed = |source| Error::PinAgain { pin: pin.to_owned(), source };
        unpin(pin)?;
        sys::pin(self.object.as_fd(), pin).map_err(failed)?;
        self.node = Node::of(pin);
        Ok(())
    }

    pub(super) fn info(&self) -> io::Result<sys::LinkInfo> {
        sys::link_info(self.object.as_fd())
    }
}

/// Removes a pin, if there is one, and leaves alone what is pinned.
///
/// # Errors
///
/// The kernel refuses.
pub fn unpin(pin: &Path) -> Result<(), Error> {
    match fs::remove_file(pin) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(Error::Unpin { pin: pin.to_owned(), source })
        }
        _ => Ok(()),
    }
}

/// What runs where an attachment should be, and what is at its pin. `held` is its link, if it could be opened before;
/// a link that is pinned in its place and does the same is taken instead.
pub fn look(pins: &PinDir, wanted: &Attachment, held: &mut Option<Held>) -> (Runs, Pin) {
    let Some(pin) = &wanted.pin else {
        let runs = match filter::program(wanted.place as u32) {
            Ok(Some(program)) => Runs::Program(program),
            Ok(None) => nothing(wanted),
            // Nobody knows, so it is left alone, and looked at again.
            Err(_) => Runs::Program(wanted.program),
        };
        return (runs, Pin::Kept);
    };
    let path = pins.links().join(pin);
    let does_it = |link: &Held| {
        link.info().is_ok_and(|info| info.place == wanted.place && info.program == wanted.program)
    };
    let mut found = held.as_mut().map(|held| held.pin(&path));
    if found.is_none_or(|found| found == Pin::Other)
        && let Some(other) = Held::open(&path).ok().filter(does_it)
    {
        *held = Some(other);
        found = Some(Pin::Kept);
    }
    let runs = match held.as_ref().map(Held::info) {
        Some(Ok(info)) if info.place == wanted.place => Runs::Program(info.program),
        _ => nothing(wanted),
    };
    (runs, found.unwrap_or(if path.exists() { Pin::Other } else { Pin::Missing }))
}

fn nothing(wanted: &Attachment) -> Runs {
    let on_interface = matches!(wanted.hook, Hook::Xdp | Hook::Tcx | Hook::Clsact);
    if on_interface && link::name(wanted.place as u32).is_none() { Runs::Gone } else { Runs::Nothing }
}

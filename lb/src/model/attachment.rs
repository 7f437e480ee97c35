//! Attachments of programs, as they should be and as they are found.

use std::fmt;

/// By what kind of attachment a program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hook {
    /// XDP on a device.
    Xdp,
    /// tc on the ingress of an interface, as a link.
    Tcx,
    /// tc on the ingress of an interface, as a filter of the clsact qdisc.
    Clsact,
    /// A call on sockets of a cgroup.
    Socket,
    /// Packets that leave sockets of a cgroup.
    Egress,
}

/// An attachment that there should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// How.
    pub hook: Hook,
    /// Name of the interface, or of the cgroup's hook (`connect4`).
    pub target: String,
    /// Index of the interface, or id of the cgroup.
    pub place: u64,
    /// Id of the program.
    pub program: u32,
    /// Name of its pin; a filter has none.
    pub pin: Option<String>,
}

impl fmt::Display for Attachment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { hook, target, .. } = self;
        match hook {
            Hook::Xdp => write!(f, "XDP on {target}"),
            Hook::Tcx => write!(f, "tc (tcx) on {target}"),
            Hook::Clsact => write!(f, "tc (clsact) on {target}"),
            Hook::Socket => write!(f, "socket hook {target}"),
            Hook::Egress => write!(f, "socket hook {target} for source ranges"),
        }
    }
}

/// What runs where an attachment of ours should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runs {
    /// The program with this id, by our link or filter.
    Program(u32),
    /// None of ours.
    Nothing,
    /// The interface is gone, which is no fault of an attachment.
    Gone,
}

/// What is found at the place of a pin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pin {
    /// What should be.
    Kept,
    /// Nothing.
    Missing,
    /// Something else.
    Other,
}

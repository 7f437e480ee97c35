//! What is wrong with the attachments and pins, and what puts it right.

use std::fmt;

use crate::model::attachment::{Attachment, Hook, Pin, Runs};

/// What there should be. Empty while nothing is to be put back, as before a daemon has taken over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expected {
    /// Attachments, each pin once.
    pub attachments: Vec<Attachment>,
    /// Names of pinned maps.
    pub maps: Vec<String>,
}

/// What there is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Whether the pin directory is another than the one that was claimed, or is gone.
    pub lost: bool,
    /// In the order of what is expected.
    pub attachments: Vec<(Runs, Pin)>,
    /// Likewise.
    pub maps: Vec<Pin>,
}

/// What is put back, as the metric has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// XDP on a device.
    Xdp,
    /// tc on an interface.
    Tc,
    /// A socket hook.
    Cgroup,
    /// The program for source ranges.
    Egress,
    /// The pin of an attachment.
    LinkPin,
    /// The pin of a map.
    MapPin,
    /// The pin directory.
    PinDirectory,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Xdp, Self::Tc, Self::Cgroup, Self::Egress, Self::LinkPin, Self::MapPin, Self::PinDirectory];

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Xdp => "xdp",
            Self::Tc => "tc",
            Self::Cgroup => "cgroup",
            Self::Egress => "egress",
            Self::LinkPin => "link_pin",
            Self::MapPin => "map_pin",
            Self::PinDirectory => "pin_directory",
        }
    }

    const fn of(hook: Hook) -> Self {
        match hook {
            Hook::Xdp => Self::Xdp,
            Hook::Tcx | Hook::Clsact => Self::Tc,
            Hook::Socket => Self::Cgroup,
            Hook::Egress => Self::Egress,
        }
    }
}

/// What happened to something of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Problem {
    /// A program does not run any more.
    Detached,
    /// Another program runs in its place.
    Replaced,
    /// A pin is gone.
    Unpinned,
    /// Something else is pinned in its place.
    PinReplaced,
    /// The pin directory is gone or another.
    DirectoryLost,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Detached => "it was detached",
            Self::Replaced => "another program was put in its place",
            Self::Unpinned => "its pin was removed",
            Self::PinReplaced => "something else was pinned in its place",
            Self::DirectoryLost => "it was removed or replaced",
        })
    }
}

/// What puts a fault right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// Make and claim the pin directory.
    MakeDirectory,
    /// Pin the map of this name.
    PinMap(String),
    /// Pin the link that is held open.
    PinLink(Attachment),
    /// Attach, in place where the link is alive.
    Attach(Attachment),
}

/// Something of ours that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Of what kind.
    pub kind: Kind,
    /// What, for people.
    pub what: String,
    /// What happened.
    pub problem: Problem,
    /// What helps.
    pub remedy: Remedy,
}

/// What is wrong, in the order in which to put it right: pins before programs, since a program is replaced by its link's
/// pin, and what is pinned there must be ours by then. In a directory that is not the one that was claimed nothing is put.
#[must_use]
pub fn faults(expected: &Expected, found: &Found) -> Vec<Fault> {
    if found.lost {
        return vec![Fault {
            kind: Kind::PinDirectory,
            what: "pin directory".to_owned(),
            problem: Problem::DirectoryLost,
            remedy: Remedy::MakeDirectory,
        }];
    }
    let mut faults = Vec::new();
    for (name, pin) in expected.maps.iter().zip(&found.maps) {
        faults.extend(unpinned(*pin).map(|problem| Fault {
            kind: Kind::MapPin,
            what: format!("pin of map {name}"),
            problem,
            remedy: Remedy::PinMap(name.clone()),
        }));
    }
    let attachments = || expected.attachments.iter().zip(&found.attachments);
    for (wanted, (runs, pin)) in attachments() {
        // With a link that is detached its pin is made anew.
        let alive = matches!(runs, Runs::Program(_));
        let pin = wanted.pin.as_ref().filter(|_| alive || *pin == Pin::Other).and(unpinned(*pin));
        faults.extend(pin.filter(|_| *runs != Runs::Gone).map(|problem| Fault {
            kind: Kind::LinkPin,
            what: format!("pin of {wanted}"),
            problem,
            remedy: Remedy::PinLink(wanted.clone()),
        }));
    }
    for (wanted, (runs, _)) in attachments() {
        let problem = match runs {
            Runs::Program(program) if *program == wanted.program => continue,
            Runs::Gone => continue,
            Runs::Program(_) => Problem::Replaced,
            Runs::Nothing => Problem::Detached,
        };
        faults.push(Fault {
            kind: Kind::of(wanted.hook),
            what: wanted.to_string(),
            problem,
            remedy: Remedy::Attach(wanted.clone()),
        });
    }
    faults
}

const fn unpinned(pin: Pin) -> Option<Problem> {
    match pin {
        Pin::Kept => None,
        Pin::Missing => Some(Problem::Unpinned),
        Pin::Other => Some(Problem::PinReplaced),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROGRAM: u32 = 7;

    fn attachment(hook: Hook, target: &str, pin: Option<&str>) -> Attachment {
        let pin = pin.map(str::to_owned);
        Attachment { hook, target: target.to_owned(), place: 2, program: PROGRAM, pin }
    }

    fn expected() -> Expected {
        Expected {
            attachments: vec![
                attachment(Hook::Xdp, "eth0", Some("xdp-native-eth0")),
                attachment(Hook::Clsact, "eth0", None),
                attachment(Hook::Socket, "connect4", Some("cgroup-connect4")),
            ],
            maps: vec!["FRONTENDS".to_owned(), "BACKENDS".to_owned()],
        }
    }

    fn whole() -> Found {
        Found {
            lost: false,
            attachments: vec![(Runs::Program(PROGRAM), Pin::Kept); 3],
            maps: vec![Pin::Kept; 2],
        }
    }

    /// Kind, what and problem of each fault.
    fn told(found: &Found) -> Vec<(&'static str, String, Problem)> {
        faults(&expected(), found).into_iter().map(|f| (f.kind.name(), f.what, f.problem)).collect()
    }

    fn with(at: usize, runs: Runs, pin: Pin) -> Found {
        let mut found = whole();
        found.attachments[at] = (runs, pin);
        found
    }

    #[test]
    fn nothing_is_wrong_with_what_is_whole_or_not_expected() {
        assert_eq!(faults(&expected(), &whole()), []);
        assert_eq!(faults(&Expected::default(), &Found::default()), []);
    }

    #[test]
    fn what_is_detached_or_replaced_is_attached() {
        use Problem::{Detached, Replaced};
        for (at, kind, what) in [
            (0, "xdp", "XDP on eth0"),
            (1, "tc", "tc (clsact) on eth0"),
            (2, "cgroup", "socket hook connect4"),
        ] {
            let other = Runs::Program(PROGRAM + 1);
            assert_eq!(told(&with(at, Runs::Nothing, Pin::Kept)), [(kind, what.to_owned(), Detached)]);
            assert_eq!(told(&with(at, other, Pin::Kept)), [(kind, what.to_owned(), Replaced)]);
        }
    }

    #[test]
    fn a_pin_that_is_gone_is_put_back_and_the_program_stays() {
        let found = with(0, Runs::Program(PROGRAM), Pin::Missing);
        let what = "pin of XDP on eth0".to_owned();
        assert_eq!(told(&found), [("link_pin", what.clone(), Problem::Unpinned)]);
        let found = with(0, Runs::Program(PROGRAM), Pin::Other);
        assert_eq!(told(&found), [("link_pin", what, Problem::PinReplaced)]);
        let mut found = whole();
        found.maps = vec![Pin::Missing, Pin::Other];
        assert_eq!(
            told(&found),
            [
                ("map_pin", "pin of map FRONTENDS".to_owned(), Problem::Unpinned),
                ("map_pin", "pin of map BACKENDS".to_owned(), Problem::PinReplaced),
            ]
        );
    }

    #[test]
    fn what_is_pinned_in_place_of_a_dead_link_goes_before_it_is_attached() {
        let remedies = |found| -> Vec<Remedy> {
            faults(&expected(), &found).into_iter().map(|fault| fault.remedy).collect()
        };
        let xdp = expected().attachments[0].clone();
        assert_eq!(
            remedies(with(0, Runs::Nothing, Pin::Other)),
            [Remedy::PinLink(xdp.clone()), Remedy::Attach(xdp.clone())]
        );
        assert_eq!(remedies(with(0, Runs::Nothing, Pin::Missing)), [Remedy::Attach(xdp)]);
    }

    #[test]
    fn an_interface_that_is_gone_takes_its_attachments_with_it() {
        for pin in [Pin::Kept, Pin::Missing, Pin::Other] {
            assert_eq!(told(&with(0, Runs::Gone, pin)), []);
        }
    }

    #[test]
    fn nothing_is_put_into_a_directory_that_is_not_claimed() {
        let lost = Found { lost: true, maps: vec![Pin::Missing; 2], ..with(0, Runs::Nothing, Pin::Missing) };
        assert_eq!(told(&lost), [("pin_directory", "pin directory".to_owned(), Problem::DirectoryLost)]);
    }
}

//! Which schemas the attached programs are of, and what a schema takes over from another.
//!
//! The kernel itself tells: an attached program names its maps, and the directory that a map is pinned in names its schema.
//! So no record has to be kept, which a crash or an older release could leave untrue.

use std::{
    collections::BTreeSet,
    io,
    os::fd::AsFd as _,
    path::{Path, PathBuf},
};

use aya::{
    maps::{MapData, MapError},
    pin::PinError,
};
use datapath::abi::{SCHEMA, map};

use super::{
    attach,
    pins::{self, PinDir},
    sys,
};

/// Why nobody knows which programs are attached, or what they left could not be taken over.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum Error {
    #[error(transparent)]
    Pins(#[from] pins::Error),
    #[error("cannot read the attachment {pin}")]
    Link { pin: PathBuf, source: io::Error },
    #[error("cannot read the clsact filter of interface {index}")]
    Filter { index: u32, source: io::Error },
    #[error("cannot ask for the maps of the program in {place}")]
    Program { place: PathBuf, source: io::Error },
    #[error("cannot read the pinned map {pin}")]
    Map { pin: PathBuf, source: io::Error },
    #[error("cannot read map {name} of another version")]
    Open { name: &'static str, source: MapError },
    #[error("cannot pin map {name} of another version at {pin}")]
    Pin { name: &'static str, pin: PathBuf, source: PinError },
}

/// What attached programs tell by the maps that they use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attached {
    /// Their schemas; most often one, none before the first start, and two after a daemon was killed while it replaced the
    /// programs of another version. [`UNKNOWN`] are those whose maps are not pinned any more.
    pub schemas: BTreeSet<u32>,
    /// Whether some program uses the maps of [`map::STATE`] where this version has them.
    pub state: bool,
}

/// Stands for a schema of which there are programs, but no pinned maps.
pub const UNKNOWN: u32 = 0;

impl Attached {
    /// The schema that serves, if it is another one.
    #[must_use]
    pub fn other(&self) -> Option<u32> {
        if self.schemas.contains(&SCHEMA) { None } else { self.schemas.last().copied() }
    }

    /// Whether all programs are of this schema.
    #[must_use]
    pub fn are_ours(&self) -> bool {
        self.schemas.iter().all(|schema| *schema == SCHEMA)
    }
}

/// Looks at the programs in pinned links and, on the interfaces of these indexes, in our filter of the clsact qdisc.
///
/// # Errors
///
/// The kernel refuses.
pub fn attached(pins: &PinDir, interfaces: impl Iterator<Item = u32>) -> Result<Attached, Error> {
    // Those of the state may be taken over from a schema, and be used by programs of this one.
    let own = |name: &str| !map::STATE.contains(&name);
    let schemas = pins.schemas()?.into_iter();
    let schemas: Vec<(u32, BTreeSet<u32>)> =
        schemas.map(|schema| Ok((schema, ids(&pins.maps_of(schema), own)?))).collect::<Result<_, Error>>()?;
    let state = ids(&pins.state(), |_| true)?;
    let mut attached = Attached::default();
    for (place, program) in programs(pins, interfaces)? {
        let used: BTreeSet<u32> = match sys::program_maps(program) {
            Ok(maps) => maps.into_iter().collect(),
            // What was detached may have lost its program.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(source) => return Err(Error::Program { place, source }),
        };
        attached.state |= !state.is_disjoint(&used);
        let schema = schemas.iter().find(|(_, maps)| !maps.is_disjoint(&used));
        attached.schemas.insert(schema.map_or(UNKNOWN, |(schema, _)| *schema));
    }
    Ok(attached)
}

/// The ids of attached programs, and where they are.
fn programs(pins: &PinDir, interfaces: impl Iterator<Item = u32>) -> Result<Vec<(PathBuf, u32)>, Error> {
    let mut programs = Vec::new();
    for name in pins.link_names()? {
        let pin = pins.links().join(name);
        let link = match sys::open_pin(&pin) {
            // Removed since it was listed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            link => link.map_err(|source| Error::Link { pin: pin.clone(), source })?,
        };
        let info = sys::link_info(link.as_fd()).map_err(|source| Error::Link { pin: pin.clone(), source })?;
        // Without a place it was detached, or its interface is gone.
        if info.place != 0 {
            programs.push((pin, info.program));
        }
    }
    for index in interfaces {
        let program = attach::filter_program(index).map_err(|source| Error::Filter { index, source })?;
        programs.extend(program.map(|program| (format!("the filter of interface {index}").into(), program)));
    }
    Ok(programs)
}

/// Removes the pinned maps of this schema if no attached program uses them: an earlier daemon left them, and another
/// version may have given their numbers to others since. Then they are made anew when programs are loaded.
///
/// # Errors
///
/// A pin cannot be removed or made.
pub fn prepare(pins: &PinDir, attached: &Attached) -> Result<(), Error> {
    if !attached.schemas.contains(&SCHEMA) {
        pins.discard(SCHEMA)?;
    }
    if !attached.schemas.is_empty() && !attached.state {
        let state = attached.schemas.contains(&LAST_WITHOUT_STATE).then(|| pins.maps_of(LAST_WITHOUT_STATE));
        pins.renew_state(|dir| state.map_or(Ok(()), |from| take_over_state(&from, dir)))?;
    }
    Ok(())
}

/// Removes the pins of all other schemas' maps, once no program of theirs is attached any more.
///
/// # Errors
///
/// A pin cannot be removed.
pub fn discard_others(pins: &PinDir) -> Result<(), Error> {
    let mut others = pins.schemas()?.into_iter().filter(|schema| *schema != SCHEMA);
    others.try_for_each(|schema| pins.discard(schema).map_err(Into::into))
}

/// The ids of the maps that are pinned in a directory, of those with certain names.
fn ids(dir: &Path, wanted: impl Fn(&str) -> bool) -> Result<BTreeSet<u32>, Error> {
    let failed = |pin: &Path| {
        let pin = pin.to_owned();
        move |source| Error::Map { pin, source }
    };
    let mut ids = BTreeSet::new();
    for name in pins::names(dir.to_owned())?.into_iter().filter(|name| wanted(name)) {
        let pin = dir.join(name);
        let map = sys::open_pin(&pin).map_err(failed(&pin))?;
        ids.insert(sys::object_id(map.as_fd()).map_err(failed(&pin))?);
    }
    Ok(ids)
}

/// The last schema that kept the maps of [`map::STATE`] beside its others.
const LAST_WITHOUT_STATE: u32 = 5;

/// Takes over what clients and sockets were told from the schema that kept it beside its other maps: the maps are pinned in
/// a directory for this, too, so that the programs of both schemas share them.
fn take_over_state(from: &Path, to: &Path) -> Result<(), Error> {
    for name in map::STATE {
        let (old, new) = (from.join(name), to.join(name));
        if !old.exists() {
            continue;
        }
        let map = MapData::from_pin(&old).map_err(|source| Error::Open { name, source })?;
        map.pin(&new).map_err(|source| Error::Pin { name, pin: new, source })?;
    }
    Ok(())
}

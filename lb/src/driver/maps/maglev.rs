//! The Maglev tables, one inner map each.

use std::{
    collections::BTreeSet,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
};

use aya::maps::{Array, Map, MapData, MapError, of_maps::HashOfMaps};
use aya_obj::generated::{BPF_F_INNER_MAP, bpf_map_type};
use datapath::{
    abi::{Chunk, MAX_TABLES, SMALL_CHUNKS, Slot, map},
    maglev::is_small,
};

use super::{Error, make, open};
use crate::driver::{pins::PinDir, sys};

/// Small tables, in an array, and all others, in a hash map; by their ids.
///
/// Programs look for a small table first. So one that grows is put among the others before its small one goes, and one that
/// shrinks the other way round; in between running programs end.
#[derive(Debug)]
pub struct MaglevTables {
    small: Outer,
    others: Outer,
    /// The others once more, as aya knows them.
    typed: Map,
    /// Takes the place of small tables that are no more: the kernel lets running programs end each time that one is deleted,
    /// but only once for many that are replaced.
    none: MapData,
    none_id: u32,
}

/// One of the two maps of arrays.
#[derive(Debug)]
struct Outer {
    name: &'static str,
    fd: OwnedFd,
}

impl Outer {
    /// The id of a table's array.
    fn find(&self, table: u32) -> Result<Option<u32>, Error> {
        let read = |error| Error::Read { name: self.name, source: MapError::IoError(error) };
        sys::lookup(self.fd.as_fd(), table).map_err(read)
    }

    /// Puts arrays in their places.
    fn put<'a>(&self, tables: impl Iterator<Item = (u32, &'a MapData)>) -> Result<(), Error> {
        let fd = |array: &MapData| array.fd().as_fd().as_raw_fd() as u32;
        let (ids, fds): (Vec<u32>, Vec<u32>) = tables.map(|(table, array)| (table, fd(array))).unzip();
        sys::update_batch(self.fd.as_fd(), &ids, &fds).map_err(|source| self.write_error(ids.len(), source))
    }

    fn write_error(&self, count: usize, source: std::io::Error) -> Error {
        Error::Write { name: self.name, count, source }
    }
}

impl MaglevTables {
    /// Opens the maps pinned by the programs' loader.
    ///
    /// # Errors
    ///
    /// One is missing, or of another kind.
    pub fn open(pins: &PinDir) -> Result<Self, Error> {
        let pin = |name: &str| pins.map(name);
        let (others, others_fd) = open(pin(map::MAGLEV), map::MAGLEV)?;
        let (_, small_fd) = open(pin(map::MAGLEV_SMALL), map::MAGLEV_SMALL)?;
        let path = pin(map::MAGLEV_NONE);
        make(&path, map::MAGLEV_NONE, || create(map::MAGLEV_NONE, SMALL_CHUNKS, 0))?;
        let (none, _) = open(path, map::MAGLEV_NONE)?;
        let info = none.info().map_err(|source| Error::Read { name: map::MAGLEV_NONE, source })?;
        Ok(Self {
            small: Outer { name: map::MAGLEV_SMALL, fd: small_fd },
            others: Outer { name: map::MAGLEV, fd: others_fd },
            typed: Map::HashOfMaps(others),
            none_id: info.id(),
            none,
        })
    }

    /// Ids of all tables.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub fn load(&self) -> Result<Vec<u32>, Error> {
        let read = |source| Error::Read { name: map::MAGLEV, source };
        let typed: HashOfMaps<&MapData, u32> = HashOfMaps::try_from(&self.typed).map_err(read)?;
        let mut all: BTreeSet<u32> = typed.keys().collect::<Result<_, _>>().map_err(read)?;
        // One after the other: asked for many, kernels before Linux 6.14 give up where there is nothing ("bpf: skip non exist
        // keys in generic_map_lookup_batch").
        for table in 0..MAX_TABLES {
            if self.small(table)?.is_some() {
                all.insert(table);
            }
        }
        Ok(all.into_iter().collect())
    }

    /// The id of a small table's array.
    fn small(&self, table: u32) -> Result<Option<u32>, Error> {
        Ok(self.small.find(table)?.filter(|array| *array != self.none_id))
    }

    /// The array of a table; none if there is no such table.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub fn array(&self, table: u32) -> Result<Option<MapData>, Error> {
        let (outer, array) = match self.small(table)? {
            None => (&self.others, self.others.find(table)?),
            array => (&self.small, array),
        };
        let read = |source| Error::Read { name: outer.name, source };
        array.map(MapData::from_id).transpose().map_err(read)
    }

    /// A table as it is; none if there is no such table.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub fn chunks(&self, table: u32) -> Result<Option<Vec<Chunk>>, Error> {
        let Some(array) = self.array(table)? else { return Ok(None) };
        let read = |source| Error::Read { name: ARRAY, source };
        let array = Map::Array(array);
        let chunks: Array<&MapData, Chunk> = Array::try_from(&array).map_err(read)?;
        chunks.iter().collect::<Result<_, _>>().map(Some).map_err(read)
    }

    /// The ids in the slots of a table; none if there is no such table.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub fn get(&self, table: u32) -> Result<Option<Vec<u32>>, Error> {
        let chunks = self.chunks(table)?;
        let words: Option<Vec<u32>> = chunks.map(|chunks| chunks.into_iter().flat_map(|c| c.0).collect());
        Ok(words.and_then(|words| {
            let slots = words.first().copied().unwrap_or_default() as usize;
            Some(words.get(1..=slots)?.iter().map(|slot| Slot(*slot).id()).collect())
        }))
    }

    /// Adds or replaces tables. Each new one is filled first and then takes the old one's place, so that a packet sees
    /// all of one or all of the other. The kernel lets running programs finish before it returns from a write to a map
    /// of maps (about a hundredth of a second), so all that are small are put in place by one call, all others by another,
    /// and where tables become small, or are so no more, the old ones leave by one more.
    ///
    /// # Errors
    ///
    /// The kernel refuses; programs see the old or the new one of each table, and it may be put again.
    pub fn put(&self, tables: impl Iterator<Item = (u32, Vec<Chunk>)>) -> Result<(), Error> {
        let (mut small, mut others) = (Vec::new(), Vec::new());
        for (table, chunks) in tables {
            if is_small(&chunks) {
                small.push((table, fill(&chunks, SMALL_CHUNKS, 0)?));
            } else {
                others.push((table, fill(&chunks, chunks.len() as u32, BPF_F_INNER_MAP)?));
            }
        }
        let ids = |tables: &[(u32, MapData)]| tables.iter().map(|(table, _)| *table).collect::<Vec<_>>();
        self.others.put(others.iter().map(|(table, array)| (*table, array)))?;
        self.delete_small(&ids(&others))?;
        self.small.put(small.iter().map(|(table, array)| (*table, array)))?;
        self.delete_others(&ids(&small))
    }

    /// Deletes tables, whether or not they are there.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub fn delete(&self, tables: &[u32]) -> Result<(), Error> {
        self.delete_small(tables)?;
        self.delete_others(tables)
    }

    /// Leaves nothing in the small ones of these.
    fn delete_small(&self, tables: &[u32]) -> Result<(), Error> {
        let there = present(tables, |table| self.small(table))?;
        self.small.put(there.into_iter().map(|table| (table, &self.none)))
    }

    /// Deletes those of these that are not small.
    fn delete_others(&self, tables: &[u32]) -> Result<(), Error> {
        let there = present(tables, |table| self.others.find(table))?;
        let delete = sys::delete_batch(self.others.fd.as_fd(), &there);
        delete.map_err(|source| self.others.write_error(there.len(), source))
    }
}

/// Those of these tables that are found.
fn present(tables: &[u32], find: impl Fn(u32) -> Result<Option<u32>, Error>) -> Result<Vec<u32>, Error> {
    let found = tables.iter().map(|table| Ok(find(*table)?.map(|_| *table)));
    found.filter_map(Result::transpose).collect()
}

/// What the kernel shows as the name of a table.
const ARRAY: &str = "MAGLEV.inner";

fn create(name: &'static str, chunks: u32, flags: u32) -> Result<MapData, Error> {
    let (key, value) = (size_of::<u32>() as u32, size_of::<Chunk>() as u32);
    let array = bpf_map_type::BPF_MAP_TYPE_ARRAY as u32;
    let map = aya_obj::Map::new_from_params(array, key, value, chunks, flags);
    MapData::create(map, name, None).map_err(|source| Error::Create { name, source })
}

/// A new array of that many chunks, the last of which are empty if there are not as many.
fn fill(chunks: &[Chunk], count: u32, flags: u32) -> Result<MapData, Error> {
    let array = create(ARRAY, count, flags)?;
    let indexes: Vec<u32> = (0..chunks.len() as u32).collect();
    let filled = sys::update_batch(array.fd().as_fd(), &indexes, chunks);
    filled.map_err(|source| Error::Write { name: ARRAY, count: chunks.len(), source })?;
    Ok(array)
}

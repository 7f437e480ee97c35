//! The Maglev tables, one inner map each.

use std::{
    collections::BTreeSet,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
};

use aya::maps::{Array, Map, MapData, MapError, of_maps::HashOfMaps};
use aya_obj::generated::{BPF_F_INNER_MAP, bpf_map_type};
use datapath::abi::{Chunk, MAX_TABLES, SMALL_CHUNKS, SMALL_SLOTS, Slot, map};

use super::{Error, open};
use crate::driver::{pins::PinDir, sys};

/// Those of [`SMALL_SLOTS`] slots, in an array, and all others, in a hash map; by their ids.
///
/// Programs look for a small table first. So one that grows is put among the others before its small one goes, and one that
/// shrinks the other way round; in between running programs end.
#[derive(Debug)]
pub struct MaglevTables {
    small: OwnedFd,
    others: Map,
    others_fd: OwnedFd,
    /// Takes the place of small tables that are no more: the kernel lets running programs end each time that one is deleted,
    /// but only once for many that are replaced.
    none: MapData,
    none_id: u32,
}

impl MaglevTables {
    /// Opens the maps pinned by the programs' loader.
    ///
    /// # Errors
    ///
    /// One is missing, or of another kind.
    pub fn open(pins: &PinDir) -> Result<Self, Error> {
        let (others, others_fd) = open(pins.maps().join(map::MAGLEV), map::MAGLEV)?;
        let (_, small) = open(pins.maps().join(map::MAGLEV_SMALL), map::MAGLEV_SMALL)?;
        let path = pins.maps().join(map::MAGLEV_NONE);
        if !path.exists() {
            let none = create(map::MAGLEV_NONE, SMALL_CHUNKS, 0)?;
            none.pin(&path).map_err(|source| Error::Pin {
                name: map::MAGLEV_NONE,
                path: path.clone(),
                source,
            })?;
        }
        let (none, _) = open(path, map::MAGLEV_NONE)?;
        let none_id = none.info().map_err(read_error)?.id();
        Ok(Self { small, others: Map::HashOfMaps(others), others_fd, none, none_id })
    }

    fn typed(&self) -> Result<HashOfMaps<&MapData, u32>, Error> {
        HashOfMaps::try_from(&self.others).map_err(read_error)
    }

    /// Ids of all tables.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub fn load(&self) -> Result<Vec<u32>, Error> {
        let others: BTreeSet<u32> = self.typed()?.keys().collect::<Result<_, _>>().map_err(read_error)?;
        let (ids, maps) = sys::lookup_batch::<u32>(self.small.as_fd(), MAX_TABLES)
            .map_err(|error| read_error(MapError::IoError(error)))?;
        let small = ids.into_iter().zip(maps).filter(|(_, map)| *map != self.none_id).map(|(id, _)| id);
        Ok(small.filter(|id| !others.contains(id)).chain(others.iter().copied()).collect())
    }

    /// The id of a table's array in one of both maps.
    fn find(&self, outer: &OwnedFd, table: u32) -> Result<Option<u32>, Error> {
        let map = sys::lookup(outer.as_fd(), &table).map_err(|error| read_error(MapError::IoError(error)))?;
        Ok(map.filter(|map| *map != self.none_id))
    }

    /// Those of these tables that are in one of both maps.
    fn present(&self, outer: &OwnedFd, tables: impl Iterator<Item = u32>) -> Result<Vec<u32>, Error> {
        let found = tables.map(|table| Ok(self.find(outer, table)?.map(|_| table)));
        found.filter_map(Result::transpose).collect()
    }

    /// The array of a table; none if there is no such table.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub fn array(&self, table: u32) -> Result<Option<MapData>, Error> {
        let map = match self.find(&self.small, table)? {
            None => self.find(&self.others_fd, table)?,
            map => map,
        };
        map.map(MapData::from_id).transpose().map_err(read_error)
    }

    /// A table as it is; none if there is no such table.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub fn chunks(&self, table: u32) -> Result<Option<Vec<Chunk>>, Error> {
        let Some(inner) = self.array(table)? else { return Ok(None) };
        let inner = Map::Array(inner);
        let chunks: Array<&MapData, Chunk> = Array::try_from(&inner).map_err(read_error)?;
        chunks.iter().collect::<Result<_, _>>().map(Some).map_err(read_error)
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
    /// of maps (about a hundredth of a second), so all are put in place by one call.
    ///
    /// # Errors
    ///
    /// The kernel refuses; tables not replaced are still in place.
    pub fn put(&self, tables: impl Iterator<Item = (u32, Vec<Chunk>)>) -> Result<(), Error> {
        let (mut small, mut others) = (Vec::new(), Vec::new());
        for (table, chunks) in tables {
            if is_small(&chunks) {
                small.push((table, fill(&chunks, SMALL_CHUNKS, 0)?));
            } else {
                others.push((table, fill(&chunks, chunks.len() as u32, BPF_F_INNER_MAP)?));
            }
        }
        self.replace(&self.others_fd, &others)?;
        self.empty(others.iter().map(|(table, _)| *table))?;
        self.replace(&self.small, &small)?;
        self.erase(small.iter().map(|(table, _)| *table))
    }

    /// Puts arrays in their places.
    fn replace(&self, outer: &OwnedFd, tables: &[(u32, MapData)]) -> Result<(), Error> {
        let (ids, fds): (Vec<u32>, Vec<u32>) =
            tables.iter().map(|(table, inner)| (*table, inner.fd().as_fd().as_raw_fd() as u32)).unzip();
        sys::update_batch(outer.as_fd(), &ids, &fds).map_err(|source| write_error(ids.len(), source))
    }

    /// Leaves nothing in the small tables of these.
    fn empty(&self, tables: impl Iterator<Item = u32>) -> Result<(), Error> {
        let there = self.present(&self.small, tables)?;
        let fds = vec![self.none.fd().as_fd().as_raw_fd() as u32; there.len()];
        sys::update_batch(self.small.as_fd(), &there, &fds).map_err(|source| write_error(there.len(), source))
    }

    /// Deletes those of these that are not small.
    fn erase(&self, tables: impl Iterator<Item = u32>) -> Result<(), Error> {
        let there = self.present(&self.others_fd, tables)?;
        sys::delete_batch(self.others_fd.as_fd(), &there).map_err(|source| write_error(there.len(), source))
    }

    /// Deletes tables, whether or not they are there.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub fn delete(&self, tables: &[u32]) -> Result<(), Error> {
        self.empty(tables.iter().copied())?;
        self.erase(tables.iter().copied())
    }
}

pub(super) fn is_small(chunks: &[Chunk]) -> bool {
    chunks.first().is_some_and(|chunk| chunk.0[0] == SMALL_SLOTS)
}

fn create(name: &'static str, chunks: u32, flags: u32) -> Result<MapData, Error> {
    let (key, value) = (size_of::<u32>() as u32, size_of::<Chunk>() as u32);
    let array = bpf_map_type::BPF_MAP_TYPE_ARRAY as u32;
    let map = aya_obj::Map::new_from_params(array, key, value, chunks, flags);
    MapData::create(map, name, None).map_err(|source| Error::Create { name, source })
}

/// A new array of that many chunks, the last of which are empty if there are not as many.
fn fill(chunks: &[Chunk], count: u32, flags: u32) -> Result<MapData, Error> {
    let inner = create("MAGLEV.inner", count, flags)?;
    let indexes: Vec<u32> = (0..chunks.len() as u32).collect();
    sys::update_batch(inner.fd().as_fd(), &indexes, chunks)
        .map_err(|source| write_error(chunks.len(), source))?;
    Ok(inner)
}

fn read_error(source: MapError) -> Error {
    Error::Read { name: map::MAGLEV, source }
}

fn write_error(count: usize, source: std::io::Error) -> Error {
    Error::Write { name: map::MAGLEV, count, source }
}

//! The pinned maps, typed.

mod forwarding;
mod lookup;
mod maglev;
mod rates;

use forwarding::Flows;

pub use forwarding::Forwarding;
pub use lookup::{Chunks, Lookup};
pub use maglev::MaglevTables;
pub use rates::Rates;

use std::{
    io,
    marker::PhantomData,
    os::fd::{AsFd as _, OwnedFd},
    path::{Path, PathBuf},
    sync::Arc,
};

use aya::{
    Pod,
    maps::{HashMap as BpfHashMap, Map, MapData, MapError, PerCpuArray},
    pin::PinError,
};
use aya_obj::generated::{BPF_F_NO_PREALLOC, bpf_map_type};
use datapath::abi::{
    Addr, Affinity, Backend, Counter, Frontend, FrontendKey, Hook, MAX_SERVICES, Name, Prefix, SocketKey,
    SocketPeer, Source, SourceRange, map,
};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::{pins::PinDir, sys};

/// Why a map could not be used.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum Error {
    #[error("cannot open map {name} at {path}")]
    Open { name: &'static str, path: PathBuf, source: MapError },
    #[error("cannot create map {name}")]
    Create { name: &'static str, source: MapError },
    #[error("cannot pin map {name} at {path}")]
    Pin { name: &'static str, path: PathBuf, source: PinError },
    #[error("cannot read map {name}")]
    Read { name: &'static str, source: MapError },
    #[error("cannot write {count} entries to map {name}")]
    Write { name: &'static str, count: usize, source: io::Error },
}

/// A hash map of ours, or a trie, which is used by the same calls; only that a lookup in a trie finds the longest
/// prefix.
#[derive(Debug)]
pub struct Hash<K, V> {
    name: &'static str,
    map: Map,
    fd: OwnedFd,
    entry: PhantomData<(K, V)>,
}

impl<K: Pod, V: Pod> Hash<K, V> {
    fn open(path: PathBuf, name: &'static str) -> Result<Self, Error> {
        let (map, fd) = open(path, name)?;
        Ok(Self { name, map: Map::HashMap(map), fd, entry: PhantomData })
    }

    fn open_lru(path: PathBuf, name: &'static str) -> Result<Self, Error> {
        let (map, fd) = open(path, name)?;
        Ok(Self { name, map: Map::LruHashMap(map), fd, entry: PhantomData })
    }

    fn open_or_create(path: PathBuf, name: &'static str, max_entries: u32) -> Result<Self, Error> {
        make(&path, name, || {
            let (key, value) = (size_of::<K>() as u32, size_of::<V>() as u32);
            let hash = bpf_map_type::BPF_MAP_TYPE_HASH as u32;
            let map = aya_obj::Map::new_from_params(hash, key, value, max_entries, BPF_F_NO_PREALLOC);
            MapData::create(map, name, None).map_err(|source| Error::Create { name, source })
        })?;
        Self::open(path, name)
    }

    fn typed(&self) -> Result<BpfHashMap<&MapData, K, V>, Error> {
        BpfHashMap::try_from(&self.map).map_err(|source| self.read_error(source))
    }

    /// All entries.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub fn load(&self) -> Result<Vec<(K, V)>, Error> {
        self.typed()?.iter().collect::<Result<_, _>>().map_err(|source| self.read_error(source))
    }

    /// One entry.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub fn get(&self, key: &K) -> Result<Option<V>, Error> {
        match self.typed()?.get(key, 0) {
            Ok(value) => Ok(Some(value)),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(source) => Err(self.read_error(source)),
        }
    }

    /// Adds or replaces entries; each one atomically.
    ///
    /// # Errors
    ///
    /// The kernel refuses, some may have been written.
    pub fn put(&self, entries: &[(K, V)]) -> Result<(), Error> {
        let (keys, values): (Vec<K>, Vec<V>) = entries.iter().copied().unzip();
        sys::update_batch(self.fd.as_fd(), &keys, &values)
            .map_err(|source| self.write_error(keys.len(), source))
    }

    /// Deletes entries, whether or not they are there.
    ///
    /// # Errors
    ///
    /// The kernel refuses, some may have been deleted.
    pub fn delete(&self, keys: &[K]) -> Result<(), Error> {
        sys::delete_batch(self.fd.as_fd(), keys).map_err(|source| self.write_error(keys.len(), source))
    }

    fn read_error(&self, source: MapError) -> Error {
        Error::Read { name: self.name, source }
    }

    fn write_error(&self, count: usize, source: io::Error) -> Error {
        Error::Write { name: self.name, count, source }
    }
}

/// Makes and pins a map where none is pinned. Another process may do so at the same time.
fn make(
    path: &Path,
    name: &'static str,
    create: impl FnOnce() -> Result<MapData, Error>,
) -> Result<(), Error> {
    if path.exists() {
        return Ok(());
    }
    match create()?.pin(path) {
        Err(PinError::SyscallError(error)) if error.io_error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        pinned => pinned.map_err(|source| Error::Pin { name, path: path.to_owned(), source }),
    }
}

/// Opens a pinned map twice: once for aya, and once for the calls aya does not have.
fn open(path: PathBuf, name: &'static str) -> Result<(MapData, OwnedFd), Error> {
    let data = MapData::from_pin(&path);
    let data = data.map_err(|source| Error::Open { name, path: path.clone(), source })?;
    match sys::open_pin(&path) {
        Ok(fd) => Ok((data, fd)),
        Err(source) => Err(Error::Open { name, path, source: MapError::IoError(source) }),
    }
}

/// What is counted by all programs.
#[derive(Debug)]
pub struct Counters {
    map: Map,
    flows: Flows,
}

impl Counters {
    fn open(pins: &PinDir) -> Result<Self, Error> {
        let (map, _) = open(pins.map(map::COUNTERS), map::COUNTERS)?;
        Ok(Self { map: Map::PerCpuArray(map), flows: Flows::open(pins)? })
    }

    /// Sums over all CPUs, of every counter that each hook has.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub fn load(&self) -> Result<Vec<(Hook, Counter, u64)>, Error> {
        let read = |source| Error::Read { name: map::COUNTERS, source };
        let map: PerCpuArray<&MapData, u64> = PerCpuArray::try_from(&self.map).map_err(read)?;
        let forwarded = self.flows.packets()?;
        let all = Hook::ALL.iter().flat_map(|hook| Counter::ALL.iter().map(move |counter| (*hook, *counter)));
        all.filter(|(hook, counter)| counter.is_of(*hook))
            .map(|(hook, counter)| {
                let values = map.get(&counter.index(hook), 0).map_err(read)?;
                let counted: u64 = values.iter().sum();
                let besides = if counter == Counter::Established { forwarded } else { 0 };
                Ok((hook, counter, counted + besides))
            })
            .collect()
    }
}

/// Text of a fixed length.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, PartialEq, Eq, Debug)]
pub struct Text([u8; 64]);

// SAFETY: `IntoBytes` and `FromBytes` are derived, so each bit pattern is valid and none is padding.
unsafe impl Pod for Text {}

impl Text {
    /// The text, cut to fit.
    #[must_use]
    pub fn new(text: &str) -> Self {
        let mut bytes = [0; 64];
        bytes.iter_mut().zip(text.bytes()).for_each(|(to, from)| *to = from);
        Self(bytes)
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        let text = self.0.split(|byte| *byte == 0).next().unwrap_or_default();
        std::str::from_utf8(text).unwrap_or_default()
    }
}

/// All maps.
#[derive(Debug)]
#[expect(missing_docs, reason = "named after the constants in `datapath::abi::map`")]
pub struct Maps {
    pub frontends: Hash<FrontendKey, Frontend>,
    pub backends: Hash<u32, Backend>,
    pub maglev: MaglevTables,
    pub addresses: Hash<Addr, u32>,
    pub networks: Hash<Prefix, u32>,
    pub source_ranges: Hash<SourceRange, u32>,
    pub interfaces: Hash<u32, u32>,
    pub affinities: Hash<Source, Affinity>,
    pub services: Hash<u32, Name>,
    /// Shared with the thread that deals with stale sockets.
    pub sockets: Arc<Hash<SocketKey, SocketPeer>>,
    pub counters: Counters,
    pub forwarding: Forwarding,
    pub rates: Rates,
    /// What the host looked like before us: setting to value. It has no part in the layout's version, so that whichever
    /// version cleans up knows it.
    pub saved: Hash<Text, Text>,
}

impl Maps {
    /// Opens the maps pinned by the programs' loader, and makes those that no program uses.
    ///
    /// # Errors
    ///
    /// One is missing, or of another kind.
    pub fn open(pins: &PinDir) -> Result<Self, Error> {
        let pin = |name: &str| pins.map(name);
        Ok(Self {
            frontends: Hash::open(pin(map::FRONTENDS), map::FRONTENDS)?,
            backends: Hash::open(pin(map::BACKENDS), map::BACKENDS)?,
            maglev: MaglevTables::open(pins)?,
            addresses: Hash::open(pin(map::ADDRESSES), map::ADDRESSES)?,
            networks: Hash::open(pin(map::NETWORKS), map::NETWORKS)?,
            source_ranges: Hash::open(pin(map::SOURCE_RANGES), map::SOURCE_RANGES)?,
            interfaces: Hash::open(pin(map::INTERFACES), map::INTERFACES)?,
            affinities: Hash::open_lru(pin(map::AFFINITY), map::AFFINITY)?,
            services: Hash::open_or_create(pin(map::SERVICES), map::SERVICES, MAX_SERVICES)?,
            sockets: Arc::new(Hash::open_lru(pin(map::SOCKETS), map::SOCKETS)?),
            counters: Counters::open(pins)?,
            forwarding: Forwarding::open(pins)?,
            rates: Rates::open(pins)?,
            saved: Hash::open_or_create(pins.saved(), "SAVED", 16_384)?,
        })
    }

    /// What is remembered of the host, by whichever version.
    ///
    /// # Errors
    ///
    /// Nothing is.
    pub fn saved(pins: &PinDir) -> Result<Hash<Text, Text>, Error> {
        Hash::open(pins.saved(), "SAVED")
    }

    /// Whether maps of this layout are pinned.
    #[must_use]
    pub fn exist(pins: &PinDir) -> bool {
        let present = |name: &str| Path::exists(&pins.map(name));
        present(map::FRONTENDS) && present(map::COUNTERS)
    }
}

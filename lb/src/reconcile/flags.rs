//! The maps with flags, which are one surface to the plan.

use crate::{
    driver::maps::{Error, Maps},
    plan::Flagged,
};

pub(super) fn load(maps: &Maps) -> Result<Vec<(Flagged, u32)>, Error> {
    let Maps { addresses, networks, source_ranges, interfaces, .. } = maps;
    let mut all: Vec<(Flagged, u32)> = Vec::new();
    all.extend(source_ranges.load()?.into_iter().map(|(key, flags)| (Flagged::Source(key), flags)));
    all.extend(addresses.load()?.into_iter().map(|(key, flags)| (Flagged::Address(key), flags)));
    all.extend(networks.load()?.into_iter().map(|(key, flags)| (Flagged::Network(key), flags)));
    all.extend(interfaces.load()?.into_iter().map(|(key, flags)| (Flagged::Interface(key), flags)));
    Ok(all)
}

/// Entries by kind, in the order of the maps.
#[derive(Default)]
struct Sorted<A, N, S, I> {
    addresses: Vec<A>,
    networks: Vec<N>,
    source_ranges: Vec<S>,
    interfaces: Vec<I>,
}

pub(super) fn put(maps: &Maps, list: &[(Flagged, u32)]) -> Result<(), Error> {
    let mut sorted = Sorted::default();
    for (key, flags) in list {
        match key {
            Flagged::Address(key) => sorted.addresses.push((*key, *flags)),
            Flagged::Network(key) => sorted.networks.push((*key, *flags)),
            Flagged::Source(key) => sorted.source_ranges.push((*key, *flags)),
            Flagged::Interface(key) => sorted.interfaces.push((*key, *flags)),
        }
    }
    let Sorted { addresses, networks, source_ranges, interfaces } = sorted;
    maps.source_ranges.put(&source_ranges)?;
    maps.networks.put(&networks)?;
    maps.interfaces.put(&interfaces)?;
    maps.addresses.put(&addresses)
}

pub(super) fn delete(maps: &Maps, list: &[Flagged]) -> Result<(), Error> {
    let mut sorted = Sorted::default();
    for key in list {
        match key {
            Flagged::Address(key) => sorted.addresses.push(*key),
            Flagged::Network(key) => sorted.networks.push(*key),
            Flagged::Source(key) => sorted.source_ranges.push(*key),
            Flagged::Interface(key) => sorted.interfaces.push(*key),
        }
    }
    let Sorted { addresses, networks, source_ranges, interfaces } = sorted;
    maps.addresses.delete(&addresses)?;
    maps.networks.delete(&networks)?;
    maps.interfaces.delete(&interfaces)?;
    maps.source_ranges.delete(&source_ranges)
}

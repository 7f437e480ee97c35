//! The maps of established flows: between which links they are forwarded, and how much was.

use std::{
    collections::BTreeMap,
    os::fd::{AsFd as _, OwnedFd},
    path::PathBuf,
};

use aya::{
    Pod,
    maps::{MapData, PerCpuHashMap, xdp::DevMapHash},
};
use datapath::{
    abi::{FlowAddresses, Input, InputKey, Line, Output, Traffic, TrafficKey, V6_FLOW, map},
    forward::cache,
};

use super::{Error, Hash, Map, open};
use crate::{
    driver::{pins::PinDir, sys},
    model::forwarding::Links,
};

/// The maps.
#[derive(Debug)]
pub struct Forwarding {
    inputs: Hash<InputKey, Input>,
    outputs: Hash<u32, Output>,
    devices: Map,
    devices_fd: OwnedFd,
    traffic: Map,
    traffic_fd: OwnedFd,
    flows: Flows,
}

impl Forwarding {
    /// Opens what the programs' loader pinned.
    ///
    /// # Errors
    ///
    /// One is missing, or of another kind.
    pub(super) fn open(pins: &PinDir) -> Result<Self, Error> {
        let pin = |name: &str| pins.map(name);
        let (devices, devices_fd) = open(pin(map::DEVICES), map::DEVICES)?;
        let (traffic, traffic_fd) = open(pin(map::TRAFFIC), map::TRAFFIC)?;
        Ok(Self {
            inputs: Hash::open(pin(map::INPUTS), map::INPUTS)?,
            outputs: Hash::open(pin(map::OUTPUTS), map::OUTPUTS)?,
            devices: Map::DevMapHash(devices),
            devices_fd,
            traffic: Map::PerCpuHashMap(traffic),
            traffic_fd,
            flows: Flows::open(pins)?,
        })
    }

    /// Makes the maps say this and nothing else. What is no more goes first, so that no packet is sent where it should not.
    ///
    /// # Errors
    ///
    /// The kernel refuses, as for a device that is gone.
    pub fn set(&self, links: &Links) -> Result<(), Error> {
        let found = self.inputs.load()?;
        let gone: Vec<_> =
            found.iter().map(|(key, _)| *key).filter(|key| !links.inputs.contains_key(key)).collect();
        self.inputs.delete(&gone)?;
        let found = self.outputs.load()?;
        let gone: Vec<u32> =
            found.iter().map(|(key, _)| *key).filter(|key| !links.outputs.contains_key(key)).collect();
        self.outputs.delete(&gone)?;

        let read = |source| Error::Read { name: map::DEVICES, source };
        let devices: DevMapHash<&MapData> = DevMapHash::try_from(&self.devices).map_err(read)?;
        let found = devices.keys().collect::<Result<Vec<u32>, _>>().map_err(read)?;
        let gone: Vec<u32> = found.into_iter().filter(|device| !links.devices.contains(device)).collect();
        let keys: Vec<u32> = links.devices.iter().copied().collect();
        // `struct bpf_devmap_val`: the index, and a program to run there, or none.
        let values: Vec<[i32; 2]> = keys.iter().map(|device| [device.cast_signed(), -1]).collect();
        let fd = self.devices_fd.as_fd();
        sys::delete_batch(fd, &gone)
            .and_then(|()| sys::update_batch(fd, &keys, &values))
            .map_err(|source| Error::Write { name: map::DEVICES, count: gone.len() + keys.len(), source })?;
        self.outputs.put(&links.outputs.iter().map(|(key, output)| (*key, *output)).collect::<Vec<_>>())?;
        self.inputs.put(&links.inputs.iter().map(|(key, input)| (*key, *input)).collect::<Vec<_>>())
    }

    /// What was forwarded, by flow's service, backend, direction and devices.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub fn traffic(&self) -> Result<BTreeMap<TrafficKey, Traffic>, Error> {
        let read = |source| Error::Read { name: map::TRAFFIC, source };
        let map: PerCpuHashMap<&MapData, TrafficKey, Traffic> =
            PerCpuHashMap::try_from(&self.traffic).map_err(read)?;
        let mut sums: BTreeMap<TrafficKey, Traffic> = BTreeMap::new();
        let mut add = |key, packets, bytes| {
            let sum = sums.entry(key).or_default();
            sum.packets += packets;
            sum.bytes += bytes;
        };
        for entry in map.iter() {
            let (key, values) = entry.map_err(read)?;
            for value in values.iter() {
                add(key, value.packets, value.bytes);
            }
        }
        for flow in self.flows.unsettled()? {
            add(flow.key, flow.packets.into(), flow.bytes.into());
        }
        Ok(sums)
    }

    /// Forgets what was counted for service ports that are not there any more.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub fn sweep(&self, is_there: impl Fn(u32) -> bool) -> Result<(), Error> {
        let read = |source| Error::Read { name: map::TRAFFIC, source };
        let map: PerCpuHashMap<&MapData, TrafficKey, Traffic> =
            PerCpuHashMap::try_from(&self.traffic).map_err(read)?;
        let keys = map.keys().collect::<Result<Vec<_>, _>>().map_err(read)?;
        for key in keys.iter().filter(|key| !is_there(key.service)) {
            sys::delete(self.traffic_fd.as_fd(), key).map_err(|source| Error::Write {
                name: map::TRAFFIC,
                count: 1,
                source,
            })?;
        }
        Ok(())
    }
}

/// The cache of established flows, for reading.
#[derive(Debug)]
pub(super) struct Flows {
    lines: Mapable,
    addresses: Mapable,
}

/// What a flow carries that is in no other map: it is counted when it is looked up anew, or makes room.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unsettled {
    /// What it will be counted under.
    pub(super) key: TrafficKey,
    pub(super) packets: u32,
    pub(super) bytes: u32,
}

impl Flows {
    pub(super) fn open(pins: &PinDir) -> Result<Self, Error> {
        Ok(Self {
            lines: Mapable::open(pins, map::FLOWS)?,
            addresses: Mapable::open(pins, map::FLOW_ADDRESSES)?,
        })
    }

    /// How many packets.
    pub(super) fn packets(&self) -> Result<u64, Error> {
        Ok(self.lines.values::<Line>()?.iter().map(|line| u64::from(line.packets)).sum())
    }

    pub(super) fn unsettled(&self) -> Result<Vec<Unsettled>, Error> {
        let lines = self.lines.values::<Line>()?;
        let addresses = self.addresses.values::<FlowAddresses>()?;
        let unsettled = |(index, line): (usize, Line)| {
            let v6 = line.key.form() & V6_FLOW != 0;
            let long = if v6 { Some(addresses.get(index)?) } else { None };
            // The place may have become another flow's meanwhile.
            let same = !v6 || lines.get(index)?.key == line.key;
            same.then(|| Unsettled {
                key: cache::traffic(&line, long.as_ref()),
                packets: line.packets,
                bytes: line.bytes,
            })
        };
        Ok(lines.iter().enumerate().filter(|(_, line)| line.packets != 0).filter_map(unsettled).collect())
    }
}

/// An array that can be read without a call for each element.
#[derive(Debug)]
struct Mapable {
    fd: OwnedFd,
    path: PathBuf,
    name: &'static str,
}

impl Mapable {
    fn open(pins: &PinDir, name: &'static str) -> Result<Self, Error> {
        let path = pins.map(name);
        match sys::open_pin(&path) {
            Ok(fd) => Ok(Self { fd, path, name }),
            Err(source) => Err(Error::Open { name, path, source: source.into() }),
        }
    }

    fn values<V: Pod>(&self) -> Result<sys::Values<V>, Error> {
        sys::map_values(self.fd.as_fd()).map_err(|source| Error::Open {
            name: self.name,
            path: self.path.clone(),
            source: source.into(),
        })
    }
}

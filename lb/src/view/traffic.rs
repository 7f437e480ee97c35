//! What XDP forwarded of established flows.

use std::{collections::BTreeMap, net::SocketAddr};

use datapath::abi::{Name, TCP, Traffic, TrafficKey};
use serde::{Deserialize, Serialize};

use crate::driver::{
    link,
    maps::{self, Maps},
};

/// What XDP forwarded of established flows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TrafficReport {
    /// Service port.
    pub service: String,
    /// `tcp` or `udp`.
    pub protocol: String,
    /// Address and port of the backend.
    pub backend: String,
    /// `backend` or `client`.
    pub to: String,
    /// The device that received.
    pub input: String,
    /// The device that sent.
    pub output: String,
    /// Packets.
    pub packets: u64,
    /// Bytes, with IP headers.
    pub bytes: u64,
}

impl TrafficReport {
    /// Everything, in order.
    ///
    /// # Errors
    ///
    /// A map cannot be read.
    pub fn list(maps: &Maps) -> Result<Vec<Self>, maps::Error> {
        let names: BTreeMap<u32, Name> = maps.services.load()?.into_iter().collect();
        let mut devices: BTreeMap<u32, String> = BTreeMap::new();
        let mut device = |index: u32| {
            let name = || link::name(index).unwrap_or_else(|| format!("#{index}"));
            devices.entry(index).or_insert_with(name).clone()
        };
        let row = |(key, traffic): (TrafficKey, Traffic)| Self {
            service: names
                .get(&key.service)
                .map_or_else(|| format!("#{}", key.service), |name| name.as_str().to_owned()),
            protocol: if key.protocol == TCP { "tcp" } else { "udp" }.to_owned(),
            backend: SocketAddr::new(key.backend.into(), u16::from_be_bytes(key.port)).to_string(),
            to: if key.reply == 0 { "backend" } else { "client" }.to_owned(),
            input: device(key.input),
            output: device(key.output),
            packets: traffic.packets,
            bytes: traffic.bytes,
        };
        let mut rows: Vec<Self> = maps.forwarding.traffic()?.into_iter().map(row).collect();
        rows.sort_by(|a, b| (&a.service, &a.backend, &a.to).cmp(&(&b.service, &b.backend, &b.to)));
        Ok(rows)
    }
}

//! What packets are to be like, on the command line.

use clap::{Args, ValueEnum, builder::RangedU64ValueParser, value_parser};

use crate::scene::objects::Family;

/// What packets are like.
#[derive(Clone, Debug, Args)]
#[group(id = "packets")]
pub(crate) struct Arguments {
    /// Numbers of established flows [default: 1,1000,100000; with --full, 1000000 too].
    #[arg(long, value_name = "N", value_delimiter = ',', value_parser = value_parser!(u32).range(1..))]
    pub(super) flows: Option<Vec<u32>>,
    /// Address families, for sockets and disruption too [default: v4; with --full, both].
    #[arg(long, value_name = "FAMILY", value_delimiter = ',')]
    pub(super) family: Vec<Family>,
    /// Their protocols [default: tcp; with --full, both].
    #[arg(long, value_name = "PROTOCOL", value_delimiter = ',')]
    pub(super) protocol: Vec<Transport>,
    /// Bytes of a frame, without its checksum; IPv6 and timestamps need a few more than the least.
    #[arg(long, value_name = "BYTES", default_value_t = 60, value_parser = RangedU64ValueParser::<usize>::new().range(60..=65_535))]
    pub(super) size: usize,
    /// Share of packets that open a new flow, in percent.
    #[arg(long, value_name = "PERCENT", default_value_t = 0.0, value_parser = percent)]
    pub(super) fresh: f64,
    /// Packets a second, at equal distances [default: as fast as can be].
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..))]
    pub(super) rate: Option<u32>,
    /// Replace clients' addresses (growth too).
    #[arg(long)]
    pub(crate) masquerade: bool,
}

impl Arguments {
    /// The first protocol.
    pub(crate) fn transport(&self) -> Transport {
        self.protocol.first().copied().unwrap_or(Transport::Tcp)
    }

    /// The families: both in a full run, if not said otherwise.
    pub(crate) fn families(&self, full: bool) -> Vec<Family> {
        match self.family.as_slice() {
            [] if full => vec![Family::V4, Family::V6],
            [] => vec![Family::V4],
            given => given.to_vec(),
        }
    }

    /// The first number of flows.
    pub(crate) fn first_flows(&self) -> u32 {
        self.flows.as_ref().and_then(|flows| flows.first().copied()).unwrap_or(1)
    }

    pub(crate) const fn size(&self) -> usize {
        self.size
    }

    /// As [`Traffic::fresh`].
    pub(crate) fn fresh(&self) -> u32 {
        (self.fresh / 100.0 * 65_536.0) as u32
    }

    pub(crate) const fn rate(&self) -> Option<u32> {
        self.rate
    }
}

fn percent(text: &str) -> Result<f64, String> {
    let value: f64 = text.parse().map_err(|error| format!("{error}"))?;
    if (0.0..=100.0).contains(&value) { Ok(value) } else { Err("it is not from 0 to 100".to_owned()) }
}

/// A protocol with ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Transport {
    Tcp,
    Udp,
}

impl Transport {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
        }
    }
}

//! What forwarding takes of the machine: CPU at several offered loads, and memory as flows and services become more.

mod cpu;
mod memory;
mod threads;

use std::time::Duration;

use crate::{
    datapath::SETUP,
    generator::{Generator, Kind},
    report::Section,
    scene::gateway::Binaries,
    variants::Variant,
};

/// How much to measure.
#[derive(Clone, Debug)]
pub(crate) struct Extent {
    /// Packets a second.
    pub(crate) loads: Vec<u32>,
    pub(crate) rounds: u32,
    pub(crate) turn: Duration,
    /// Numbers of flows, and of services, whose memory is asked for.
    pub(crate) flows: Vec<u32>,
    pub(crate) services: Vec<u32>,
    pub(crate) variants: Vec<Variant>,
    pub(crate) generator: Kind,
}

impl Extent {
    /// About how long it takes.
    pub(crate) fn expected(&self) -> Duration {
        let turns = (self.turn + Duration::from_millis(50)) * self.rounds * self.loads.len() as u32;
        let flows = Duration::from_micros(10) * self.flows.iter().sum::<u32>() + SETUP;
        let services = (SETUP * self.services.len() as u32)
            + Duration::from_millis(3) * self.services.iter().sum::<u32>();
        (SETUP + turns) * self.variants.len() as u32 + (flows + services) * memory::VARIANTS.len() as u32
    }
}

pub(crate) fn measure(extent: &Extent, binaries: &Binaries, cpu: usize) -> anyhow::Result<Section> {
    let mut section = Section { name: "resources", ..Section::default() };
    let mut generator = Generator::load(extent.generator)?;
    cpu::measure(extent, binaries, cpu, &mut generator, &mut section)?;
    memory::flows(extent, binaries, cpu, &mut generator, &mut section)?;
    memory::services(extent, binaries, cpu, &mut section)?;
    Ok(section)
}

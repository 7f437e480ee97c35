//! What forwarding takes of the machine: CPU at several offered loads, and memory as flows and services become more.

mod cpu;
mod memory;
mod threads;

use std::time::Duration;

use crate::{
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

pub(crate) fn measure(extent: &Extent, binaries: &Binaries, cpu: usize) -> anyhow::Result<Section> {
    let mut section = Section { name: "resources", ..Section::default() };
    let mut generator = Generator::load(extent.generator)?;
    cpu::measure(extent, binaries, cpu, &mut generator, &mut section)?;
    memory::flows(extent, binaries, cpu, &mut generator, &mut section)?;
    memory::services(extent, binaries, cpu, &mut section)?;
    Ok(section)
}

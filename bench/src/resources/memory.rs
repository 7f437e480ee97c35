//! Memory of the kernel and the daemon, by flows and by services.

use std::{fs, thread, time::Duration};

use anyhow::Context as _;
use portico::driver::pins::PinDir;

use super::Extent;
use crate::{
    datapath::available,
    generator::Generator,
    limits::Room,
    memory::{Account, Resident, maps_mb},
    progress,
    report::{Cell, Plot, Section, Table},
    scene::{
        Scene,
        gateway::Binaries,
        objects::{Family, Services},
    },
    variants::Variant,
};

/// Bytes in an MB of all figures.
const MB: f64 = (1 << 20) as f64;
/// Long enough for the kernel to free what it has done with.
const SETTLE: Duration = Duration::from_millis(300);
/// Ways whose memory differs.
pub(super) const VARIANTS: [Variant; 4] =
    [Variant::FastPath, Variant::TcOnly, Variant::Nftables, Variant::Iptables];
/// iptables takes too long to load more.
const IPTABLES: u32 = 1_000;

fn chosen(extent: &Extent, binaries: &Binaries) -> Vec<Variant> {
    let wanted: Vec<_> = VARIANTS.into_iter().filter(|variant| extent.variants.contains(variant)).collect();
    available(&wanted, binaries).0
}

/// MB of a daemon's maps.
fn maps(scene: &mut Scene) -> anyhow::Result<Option<f64>> {
    let Some(portico) = scene.gateway.portico_mut() else { return Ok(None) };
    let pins = PinDir::find(&portico.workspace.pins()).context("the daemon made no pin directory")?;
    maps_mb(&pins).map(Some)
}

/// What established flows take.
pub(super) fn flows(
    extent: &Extent,
    binaries: &Binaries,
    cpu: usize,
    generator: &mut Generator,
    section: &mut Section,
) -> anyhow::Result<()> {
    let mut table = Table::new(
        "memory of established flows, MB",
        &["variant", "flows", "conntrack entries", "their size", "BPF maps"],
    )
    .plot(Plot::lines("flows", "their size").unit("MB of conntrack entries").less_is_better());
    let size = entry_size()?;
    let room = Room::make(extent.flows.iter().max().copied().unwrap_or(0))?;
    section.notes.extend(room.note());
    let services = Services { family: Family::V4, udp: false, number: 1, endpoints: 10, masquerade: false };
    for variant in chosen(extent, binaries) {
        let mut scene = Scene::new(variant, services, binaries, cpu)?;
        for &flows in extent.flows.iter().filter(|flows| **flows <= room.flows) {
            progress(format_args!("resources: memory of {flows} flows, {}", variant.name()));
            scene.establish(generator, flows)?;
            let entries = scene.flows()?;
            table.row([
                variant.name().into(),
                flows.into(),
                entries.into(),
                ((entries * size) as f64 / MB).into(),
                maps(&mut scene)?.into(),
            ]);
        }
        scene.forget()?;
    }
    section.tables.push(table);
    section.notes.push(
        format!(
            "A conntrack entry is {size} bytes by /proc/slabinfo; its extensions (translation, accounting) and the hash table \
             come on top. BPF maps: memlock, set aside whether or not there are flows."
        ),
    );
    Ok(())
}

/// Bytes of one of conntrack's entries.
fn entry_size() -> anyhow::Result<u64> {
    let text = fs::read_to_string("/proc/slabinfo").context("cannot read /proc/slabinfo")?;
    object_size(&text, "nf_conntrack").context("/proc/slabinfo has no nf_conntrack")
}

/// The size of a slab's objects, see slabinfo(5).
fn object_size(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.split_whitespace().next() == Some(name))?;
    line.split_whitespace().nth(3)?.parse().ok()
}

/// What services take.
pub(super) fn services(
    extent: &Extent,
    binaries: &Binaries,
    cpu: usize,
    section: &mut Section,
) -> anyhow::Result<()> {
    let Some(account) = Account::open() else {
        section.notes.push("Left out: memory of services: no memory cgroup (v1) to charge it to.".to_owned());
        return Ok(());
    };
    let mut table = Table::new(
        "memory of services with 3 endpoints each, MB",
        &["variant", "services", "kernel, charged", "BPF maps", "daemon"],
    )
    .plot(Plot::lines("services", "kernel, charged").unit("MB of the kernel").less_is_better());
    for variant in chosen(extent, binaries) {
        for &number in &extent.services {
            if variant == Variant::Iptables && number > IPTABLES {
                continue;
            }
            progress(format_args!("resources: memory of {number} services, {}", variant.name()));
            let services =
                Services { family: Family::V4, udp: false, number, endpoints: 3, masquerade: false };
            thread::sleep(SETTLE);
            let before = account.kernel_mb();
            let mut scene = account.charge(|| Scene::new(variant, services, binaries, cpu))??;
            thread::sleep(SETTLE);
            let taken = account.kernel_mb().zip(before).map(|(after, before)| after - before);
            let maps = maps(&mut scene)?;
            let daemon = scene.gateway.portico_mut().and_then(|portico| Resident::of(portico.daemon.pid()));
            table.row([
                Cell::from(variant.name()),
                number.into(),
                taken.into(),
                maps.into(),
                daemon.map(|daemon| daemon.now_mb).into(),
            ]);
        }
    }
    section.tables.push(table);
    section.notes.push(
        "Kernel, charged: memory of the kernel that setting up the gateway was charged for (cgroup v1), its namespaces and \
         links included, which are the same for all. Daemon: VmRSS."
            .to_owned(),
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slab_says_how_large_its_objects_are() {
        let text = "slabinfo - version: 2.1\n# name <active_objs> <num_objs> <objsize> ...\n\
                    nf_conntrack_expect 0 0 208 39 2 : tunables\nnf_conntrack 1000 1020 256 16 1 : tunables\n";
        assert_eq!(object_size(text, "nf_conntrack"), Some(256));
        assert_eq!(object_size(text, "missing"), None);
    }
}

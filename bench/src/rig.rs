//! Programs, maps and rules of a benchmark's own.

use anyhow::Context as _;
use lab::{Netns, Workspace};
use portico::{
    driver::{maps::Maps, nft::Nft, objects::Objects, pins::PinDir},
    reconcile::Kernel,
};

/// The programs on maps of their own, all gone on drop.
pub(crate) struct Rig {
    pub(crate) objects: Objects,
    pub(crate) maps: Maps,
    pub(crate) pins: PinDir,
    pub(crate) workspace: Workspace,
}

impl Rig {
    pub(crate) fn new() -> anyhow::Result<Self> {
        let workspace = Workspace::new()?;
        let pins = PinDir::prepare(&workspace.pins())?;
        let objects = Objects::load(&pins)?;
        let maps = Maps::open(&pins)?;
        Ok(Self { objects, maps, pins, workspace })
    }
}

/// Runs `f` with a kernel side of its own, in a network namespace of its own.
pub(crate) fn with_kernel<T: Send>(
    f: impl FnOnce(&Kernel, &PinDir) -> anyhow::Result<T> + Send,
) -> anyhow::Result<T> {
    Netns::new("bench")?.run(|| {
        let Rig { maps, pins, objects: _objects, workspace: _workspace } = Rig::new()?;
        let nft = Nft::new();
        nft.ensure().context("cannot set up the nft table")?;
        f(&Kernel { maps, nft }, &pins)
    })?
}

//! State belongs to one network namespace. Attachments and nft tables of another one look alike and are not ours.

use anyhow::{Context as _, bail};

use crate::driver::{
    maps::{Hash, Maps, Text},
    namespace_cookie as cookie,
    pins::PinDir,
};

const KEY: &str = "netns";

/// The namespace that the pinned state belongs to, if it is not the calling thread's.
///
/// # Errors
///
/// The state cannot be read.
pub fn describe(saved: &Hash<Text, Text>) -> anyhow::Result<Option<String>> {
    let own = cookie().context("cannot identify the network namespace")?.to_string();
    let owner = saved.get(&Text::new(KEY))?;
    Ok(owner.map(|text| text.as_str().to_owned()).filter(|owner| *owner != own))
}

/// Makes sure that the pinned state, if there is any, belongs to the calling thread's namespace. Nothing is changed.
pub(super) fn check(pins: &PinDir) -> anyhow::Result<()> {
    let Ok(saved) = Maps::saved(pins) else { return Ok(()) };
    if describe(&saved)?.is_some() {
        bail!(
            "the state in {} belongs to another network namespace; choose another --pin-dir, or remove it with \
             `portico cleanup` if that namespace is gone",
            pins.name().display()
        );
    }
    Ok(())
}

/// Has the pinned state belong to the calling thread's namespace.
pub(super) fn claim(maps: &Maps) -> anyhow::Result<()> {
    let own = cookie().context("cannot identify the network namespace")?.to_string();
    maps.saved.put(&[(Text::new(KEY), Text::new(&own))])?;
    Ok(())
}

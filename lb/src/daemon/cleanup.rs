//! Removing everything that a daemon set up, in the network namespace of the calling thread.

use super::{describe, detach_all, restore};
use crate::driver::{attach, link::Links, maps::Maps, nft::Nft, pins::PinDir};

/// Removes all that can be removed, and tells of each part. The pins go last, since they say what else there is.
pub async fn remove(pins: &PinDir) -> Vec<anyhow::Result<String>> {
    // First, so that no packet is labelled that nobody translates any more.
    let detached = attach::detach_pinned(pins).map(|()| "detached all programs".to_owned());
    let mut outcomes = vec![detached.map_err(Into::into)];
    match foreign(pins) {
        Some(owner) => outcomes.push(Ok(format!(
            "the nft table and kernel settings are left alone: they are in another network namespace ({owner})"
        ))),
        None => outcomes.extend(remove_from_namespace(pins).await),
    }
    if outcomes.iter().all(Result::is_ok) {
        let removed = pins.remove().map(|()| format!("removed all pins in {}", pins.name().display()));
        outcomes.push(removed.map_err(Into::into));
    }
    outcomes
}

/// The network namespace that the state belongs to, if it is another. State that cannot be read belongs to nobody.
#[must_use]
pub fn foreign(pins: &PinDir) -> Option<String> {
    describe(&Maps::saved(pins).ok()?).ok()?
}

async fn remove_from_namespace(pins: &PinDir) -> Vec<anyhow::Result<String>> {
    let mut outcomes = Vec::new();
    let links = match Links::open() {
        Ok(links) => links,
        Err(error) => return vec![Err(error.into())],
    };
    match links.snapshot().await {
        Ok(snapshot) => {
            outcomes.extend(detach_all(pins, &snapshot).err().map(|error| Err(error.into())));
            if let Ok(saved) = Maps::saved(pins) {
                match restore(&saved, &links, &snapshot).await {
                    Ok(done) => outcomes.extend(done.into_iter().map(|what| Ok(format!("restored {what}")))),
                    Err(error) => outcomes.push(Err(error)),
                }
            }
        }
        Err(error) => outcomes.push(Err(error.into())),
    }
    let removed = Nft::remove_all().map(|()| "removed nft table inet portico".to_owned());
    outcomes.push(removed.map_err(Into::into));
    outcomes
}

//! Pins are named after interfaces, and interfaces can be renamed.

use std::{collections::BTreeMap, fs};

use super::{Error, Held, TCX, tcx_pin, xdp_of, xdp_pin};
use crate::driver::pins::PinDir;

/// Renames the pins of attachments whose interface, by its index, has another name than they say. Nothing is detached.
///
/// # Errors
///
/// The pins cannot be listed or made anew.
pub fn follow_names(pins: &PinDir, names: &BTreeMap<u64, &str>) -> Result<(), Error> {
    let mut moved = Vec::new();
    for name in pins.link_names()? {
        let pin = pins.links().join(&name);
        let (xdp, tcx) = (xdp_of(&name), name.strip_prefix(TCX));
        if xdp.is_none() && tcx.is_none() {
            continue;
        }
        let Ok(held) = Held::open(&pin) else { continue };
        let Some(interface) = held.info().ok().and_then(|info| names.get(&info.place)) else { continue };
        let right = xdp.map_or_else(|| tcx_pin(interface), |(_, mode)| xdp_pin(interface, mode));
        if right != name {
            moved.push((pin, held, right));
        }
    }
    // First all, because interfaces may have exchanged their names. What they are held by keeps them attached.
    for (pin, ..) in &moved {
        fs::remove_file(pin).map_err(|source| Error::Unpin { pin: pin.clone(), source })?;
    }
    for (_, mut held, right) in moved {
        held.pin_again(&pins.links().join(right))?;
    }
    Ok(())
}

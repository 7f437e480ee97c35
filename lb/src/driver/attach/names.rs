//! Pins are named after interfaces, and interfaces can be renamed.

use std::collections::BTreeMap;

use super::{Error, Held, TCX, tcx_pin, unpin, xdp_of, xdp_pin};
use crate::{driver::pins::PinDir, model::attachment::Pin};

/// What the name of a pin begins with that waits for its right one to become free.
pub(super) const MOVING: &str = "moving-";

/// Renames the pins of attachments whose interface, by its index, has another name than they say. Nothing is detached.
///
/// # Errors
///
/// The pins cannot be listed or made anew.
pub fn follow_names(pins: &PinDir, names: &BTreeMap<u64, &str>) -> Result<(), Error> {
    let mut moved = Vec::new();
    for name in pins.link_names()? {
        let pin = pins.links().join(&name);
        let attachment = name.strip_prefix(MOVING).unwrap_or(&name);
        let (xdp, tcx) = (xdp_of(attachment), attachment.strip_prefix(TCX));
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
    // A link has two pins for a moment: without any it would be detached, should this process end now. Where interfaces have
    // exchanged their names, the pins go by names of no interface.
    let mut waiting = Vec::new();
    for (pin, mut held, right) in moved {
        let to = pins.links().join(&right);
        match held.pin(&to) {
            // A former process was killed here.
            Pin::Kept => unpin(&pin)?,
            Pin::Missing => {
                held.pin_again(&to)?;
                unpin(&pin)?;
            }
            Pin::Other => {
                let aside = pins.links().join(format!("{MOVING}{right}"));
                held.pin_again(&aside)?;
                unpin(&pin)?;
                waiting.push((aside, held, to));
            }
        }
    }
    for (aside, mut held, to) in waiting {
        held.pin_again(&to)?;
        unpin(&aside)?;
    }
    Ok(())
}

//! Room for more flows than the machine has: `nf_conntrack_max`, which only its own network namespace can set.

use std::{fs, path::Path};

use anyhow::Context as _;

use crate::sweep;

const MAX: &str = "/proc/sys/net/netfilter/nf_conntrack_max";
/// Entries besides those of flows.
const SPARE: u32 = 1_000;

/// How many entries conntrack may have.
pub(crate) fn conntrack_max() -> anyhow::Result<u32> {
    let text = fs::read_to_string(MAX).with_context(|| format!("cannot read {MAX}"))?;
    text.trim().parse().with_context(|| format!("{MAX} is {text:?}"))
}

/// Room for so many flows, in each namespace; as before on drop.
#[derive(Debug)]
pub(crate) struct Room {
    /// What there was, and what was written in its place.
    raised: Option<(u32, u32)>,
    /// What there is.
    pub(crate) flows: u32,
}

impl Room {
    /// Makes room, if that is allowed here.
    pub(crate) fn make(flows: u32) -> anyhow::Result<Self> {
        let before = conntrack_max()?;
        let wanted = flows.saturating_add(SPARE);
        if before >= wanted {
            return Ok(Self { raised: None, flows: before - SPARE });
        }
        sweep::restore(Path::new(MAX), &before.to_string());
        // In a network namespace other than the machine's, the kernel makes it read-only.
        let _ = fs::write(MAX, wanted.to_string());
        let now = conntrack_max()?;
        let raised = (now == wanted).then_some((before, wanted));
        if raised.is_none() {
            sweep::restored(Path::new(MAX));
        }
        Ok(Self { raised, flows: now.saturating_sub(SPARE) })
    }

    /// What was done, for who reads the figures.
    pub(crate) fn note(&self) -> Option<String> {
        let (before, now) = self.raised?;
        Some(format!(
            "nf_conntrack_max was {now} for this section, and {before} before and after; the number of buckets \
             (nf_conntrack_buckets) was left as it is."
        ))
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let Some((before, written)) = self.raised else { return };
        // Not if somebody else has set it meanwhile.
        if conntrack_max().is_ok_and(|now| now == written) {
            let _ = fs::write(MAX, before.to_string());
        }
        sweep::restored(Path::new(MAX));
    }
}

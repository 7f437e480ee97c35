//! Watching over translation: anybody can change the nft table.

use std::time::Instant;

use tracing::warn;

use crate::{
    driver::{
        nft::{Ensured, Family, Nft},
        probe::{Translation, probe},
    },
    error::chain,
    plan::Index,
    reconcile::Reconciler,
    view::Translations,
};

/// After listing the nft elements, the wait in units of the time it took.
const LISTING_SHARE: u32 = 20;

/// What is known of translation.
#[derive(Debug)]
pub(super) struct Watchman {
    report: Translations,
    /// Why the table cannot be mended, if it is not as it should be.
    failure: Option<String>,
    /// Somebody else changed the nft ruleset since its elements were last listed.
    suspect: bool,
    /// When they may be listed again.
    next_listing: Instant,
}

impl Watchman {
    /// Begins with a probe.
    pub(super) fn new(nft: &Nft) -> Self {
        let mut watchman = Self {
            report: Translations::default(),
            failure: None,
            suspect: false,
            next_listing: Instant::now(),
        };
        watchman.probe(nft);
        watchman
    }

    pub(super) fn report(&self) -> &Translations {
        &self.report
    }

    /// Why the table cannot be mended, if it is not as it should be.
    pub(super) fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    /// Somebody else changed the ruleset, or may have.
    pub(super) fn alarm(&mut self) {
        self.suspect = true;
    }

    /// Mends the nft table if it is not what it should be.
    pub(super) fn inspect(&mut self, reconciler: &mut Reconciler, index: &Index) {
        let failed = self.failure.take();
        match reconciler.repair(index) {
            Ok(Ensured::Kept) => {
                if failed.is_some() {
                    self.probe(&reconciler.kernel().nft);
                }
                self.inspect_elements(reconciler, index);
            }
            Ok(ensured) => {
                warn!(?ensured, "the nft table was not as it should be and has been mended");
                self.mended(reconciler);
            }
            Err(error) => {
                let reason = chain(&error);
                if failed.as_ref() != Some(&reason) {
                    warn!(reason, "cannot mend the nft table, will be tried again");
                    self.probe(&reconciler.kernel().nft);
                }
                self.failure = Some(reason);
            }
        }
    }

    /// Likewise its elements, if somebody changed the ruleset. Listing many takes long, so it is done only so often
    /// that it takes a small part of the time.
    fn inspect_elements(&mut self, reconciler: &mut Reconciler, index: &Index) {
        if !self.suspect || Instant::now() < self.next_listing {
            return;
        }
        let began = Instant::now();
        match reconciler.repair_translations(index) {
            Ok(0) => {}
            Ok(wrong) => {
                warn!(elements = wrong, "nft map elements were not as they should be and have been mended");
                self.mended(reconciler);
            }
            Err(error) => warn!(reason = chain(&error), "cannot compare the nft map elements"),
        }
        self.suspect = false;
        self.next_listing = Instant::now() + LISTING_SHARE * began.elapsed();
    }

    fn mended(&mut self, reconciler: &Reconciler) {
        self.report.repairs += 1;
        self.probe(&reconciler.kernel().nft);
    }

    /// Finds out whether the kernel translates.
    fn probe(&mut self, nft: &Nft) {
        for family in Family::ALL {
            let text = match probe(nft, family) {
                Ok(Translation::Active) => "active".to_owned(),
                Ok(Translation::Inactive) => "inactive".to_owned(),
                Ok(Translation::Unknown(reason)) => format!("unknown: {reason}"),
                Err(error) => format!("unknown: {}", chain(&error)),
            };
            if text != "active" {
                warn!(?family, translation = text, "translation is not known to work");
            }
            match family {
                Family::V4 => self.report.ipv4 = text,
                Family::V6 => self.report.ipv6 = text,
            }
        }
    }
}

use std::{path::PathBuf, process::ExitCode};

use anyhow::bail;
use clap::Args;

use super::{PinDirArg, output::print, runtime};
use crate::{
    daemon::cleanup::{foreign, remove},
    driver::{attach, nft::Nft, pins::PinDir},
    log, text, view,
};

/// Detach and remove everything that Portico has set up in this network namespace
///
/// Fails while a daemon is running, and for the state of another network namespace that is still there. Connections
/// that are translated are cut.
#[derive(Debug, Args)]
pub(super) struct Cleanup {
    #[command(flatten)]
    pin_dir: PinDirArg,
}

impl Cleanup {
    pub(super) const fn of(pin_dir: PathBuf) -> Self {
        Self { pin_dir: PinDirArg { pin_dir } }
    }

    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let Some(pins) = PinDir::find(&self.pin_dir.pin_dir).filter(PinDir::exists) else {
            let dir = self.pin_dir.pin_dir.display().to_string();
            print(&format!("nothing is pinned in {}", text::clean(&dir)))?;
            if Nft::beside(None).and_then(|nft| nft.present()).unwrap_or_default() {
                bail!(
                    "table inet portico is there, though: use the --pin-dir of its instance, or if that is gone, \
                     `nft delete table inet portico` (or portico_next)"
                );
            }
            return Ok(ExitCode::SUCCESS);
        };
        let lock = pins.lock()?;
        match foreign(&pins) {
            Some(owner) if attach::is_on_interfaces(&pins)? => bail!(
                "the state in {} belongs to another network namespace ({owner}), which is still there; run this in \
                 it, or its nft table and kernel settings would be left behind",
                pins.name().display()
            ),
            // Nothing but pins is left of that namespace, and they are nobody's here.
            Some(_) => {}
            None => {
                if let Some(report) = view::query()? {
                    bail!(
                        "a daemon with --pin-dir {} runs in this network namespace and needs the nft table; stop it first",
                        report.pin_dir
                    );
                }
            }
        }
        let (mut failed, mut printed) = (false, Ok(()));
        for outcome in runtime()?.block_on(remove(&pins)) {
            match outcome {
                Ok(done) => printed = printed.and_then(|()| print(&done.to_string())),
                Err(error) => {
                    failed = true;
                    log::say(&format!("portico: {}", super::describe(&error)));
                }
            }
        }
        drop(lock);
        printed?;
        Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }
}

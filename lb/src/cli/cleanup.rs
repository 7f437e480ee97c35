use std::process::ExitCode;

use anyhow::bail;
use clap::Args;

use super::{PinDirArg, runtime};
use crate::{
    daemon::{self, cleanup::remove},
    driver::pins::PinDir,
};

/// Detach and remove everything that Portico has set up in this network namespace
///
/// Fails while a daemon is running. Connections that are translated are cut.
#[derive(Debug, Args)]
pub(super) struct Cleanup {
    #[command(flatten)]
    pin_dir: PinDirArg,
}

impl Cleanup {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let Some(pins) = PinDir::find(&self.pin_dir.pin_dir).filter(PinDir::exists) else {
            println!("nothing is pinned in {}", self.pin_dir.pin_dir.display());
            return Ok(ExitCode::SUCCESS);
        };
        let lock = pins.lock()?;
        if let Some(report) = daemon::query()? {
            bail!(
                "a daemon with --pin-dir {} runs in this network namespace and needs the nft table; stop it first",
                report.pin_dir
            );
        }
        let mut failed = false;
        for outcome in runtime()?.block_on(remove(&pins)) {
            match outcome {
                Ok(done) => println!("{done}"),
                Err(error) => {
                    failed = true;
                    eprintln!("portico: {}", super::describe(&error));
                }
            }
        }
        drop(lock);
        Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }
}

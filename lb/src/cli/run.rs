use std::{
    fs, io,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, bail};
use clap::Args;
use nix::sys::signal::{SigSet, Signal};
use tracing::{info, warn};

use super::{cleanup::Cleanup, flags::Flags, runtime};
use crate::{
    config::{self, Config, File, Host, Mistakes},
    daemon,
    driver::{allocator, pins, privileges},
    file, log,
    text::Lines,
};

/// The most bytes of a configuration file.
const CONFIGURATION: u64 = 1 << 20;

/// Run the daemon in the foreground; it logs to stderr
///
/// Objects come from the Kubernetes API server, or with --manifests from a directory. SIGTERM and SIGINT end it; what it
/// set up stays and goes on serving. All flags of kube-proxy are accepted; what they and the file say without effect is
/// logged at the start and shown by `portico status`. $RUST_LOG says what is logged, such as "debug" or
/// "info,kube=warn".
#[derive(Debug, Args)]
pub(super) struct Run {
    /// Configuration file: YAML or JSON with a KubeProxyConfiguration, a PorticoConfiguration, or both
    ///
    /// A flag has precedence over the file; with kube-proxy the file has it over most flags.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Write the configuration that file and flags give, defaults included, to this file and exit
    #[arg(long, value_name = "FILE")]
    write_config_to: Option<PathBuf>,
    /// Detach and remove everything and exit, as `portico cleanup` does
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true",
        default_value = "false", hide_default_value = true, hide_possible_values = true)]
    cleanup: bool,
    /// Check configuration and privileges and exit: nothing can be set up that a later process without privileges could
    /// build upon
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true",
        default_value = "false", hide_default_value = true, hide_possible_values = true)]
    init_only: bool,
    #[command(flatten)]
    flags: Flags,
}

impl Run {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let config = match self.read()? {
            Ok(config) => config,
            Err(Mistakes(mistakes)) => {
                let count = mistakes.len();
                let plural = if count == 1 { "" } else { "s" };
                log::say(&format!("portico: {count} mistake{plural} in the configuration"));
                let lines: Lines = mistakes.iter().map(|mistake| format!("  {mistake}")).collect();
                lines.iter().for_each(|line| log::say(line));
                return Ok(ExitCode::from(2));
            }
        };
        if let Some(path) = self.write_config_to {
            write(&path, &config).with_context(|| format!("cannot write {}", path.display()))?;
            return Ok(ExitCode::SUCCESS);
        }
        if self.cleanup {
            return Cleanup::of(config.options.pin_dir).run();
        }
        let _log = log(config.verbosity).context("cannot start the thread that writes the log")?;
        for note in &config.options.notes {
            warn!(setting = note.object, reason = note.reason, "not honoured as configured");
        }
        if !nix::unistd::geteuid().is_root() {
            bail!("portico run needs root: it loads eBPF programs and writes nftables rules");
        }
        let missing = privileges::missing().context("cannot read the capabilities")?;
        if !missing.is_empty() {
            bail!("portico run needs {}, which this process lacks although it is root", missing.join(", "));
        }
        if self.init_only {
            info!("configuration and privileges are as they should be; --init-only has nothing to set up");
            return Ok(ExitCode::SUCCESS);
        }
        allocator::give_back_large_blocks();
        // Whoever started it may have blocked them, and a mask is inherited.
        SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM]).thread_unblock()?;
        let runtime = runtime()?;
        let outcome = runtime.block_on(daemon::run(config.options));
        // A file may be read or an object parsed for a long time yet, which nobody waits for.
        runtime.shutdown_background();
        outcome?;
        Ok(ExitCode::SUCCESS)
    }

    fn read(&self) -> anyhow::Result<Result<Config, Mistakes>> {
        let file = match &self.config {
            Some(path) => Some((path.display().to_string(), read_file(path)?)),
            None => None,
        };
        let file = file.as_ref().map(|(name, text)| File { name, text });
        let name = nix::unistd::gethostname().context("cannot read the host name; give --node-name")?;
        let host = Host { name: name.to_string_lossy().into_owned(), pin_dir: pins::DEFAULT.into() };
        Ok(config::read(file, &self.flags.0, &host))
    }
}

fn read_file(path: &Path) -> anyhow::Result<String> {
    file::read(path, CONFIGURATION)
        .with_context(|| format!("cannot read the configuration in {}", path.display()))
}

fn write(path: &Path, config: &Config) -> anyhow::Result<()> {
    let mut text = serde_saphyr::to_string(&config.options.configuration)?;
    if let Some(portico) = &config.portico {
        text = format!("{}\n---\n{}", text.trim_end(), serde_saphyr::to_string(portico)?);
    }
    Ok(fs::write(path, text.trim_end().to_owned() + "\n")?)
}

fn log(verbosity: u32) -> io::Result<log::Log> {
    // The client logs each failed attempt; the source tells of it once, and again when it is over.
    let filter = match verbosity {
        0..=3 => "info,kube_client=off",
        4..=5 => "info,portico=debug,kube_client=off",
        6.. => "debug,portico=trace,kube_client=off",
    };
    log::start(filter)
}

#[cfg(test)]
mod tests;

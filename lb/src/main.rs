//! The `portico` command.

use std::process::ExitCode;

use clap::Parser as _;
use portico::cli::Cli;

fn main() -> ExitCode {
    Cli::parse().run()
}

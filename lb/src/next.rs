//! The `portico` command with another schema, for tests of what happens between two versions.

use std::process::ExitCode;

use clap::Parser as _;
use portico::cli::Cli;

fn main() -> ExitCode {
    Cli::parse().run()
}

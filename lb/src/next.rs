//! The `portico` command with another schema, for tests of what happens between two versions.

use std::process::ExitCode;

fn main() -> ExitCode {
    portico::cli::main()
}

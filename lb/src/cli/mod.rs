//! The command line.

mod cleanup;
mod demo;
mod doctor;
mod explain;
mod flags;
mod get;
mod output;
mod run;
mod status;

use std::{
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};

use self::output::Output;
use crate::{driver::pins, log, text};

/// An edge load balancer that implements Kubernetes Services with XDP, tc and the kernel's own conntrack.
#[derive(Debug, Parser)]
#[command(name = "portico", version, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// Help texts are at the arguments of each command: a comment here would take the place of theirs.
#[derive(Debug, Subcommand)]
enum Command {
    Run(run::Run),
    Status(status::Status),
    Get(get::Get),
    Explain(explain::Explain),
    Doctor(doctor::Doctor),
    Cleanup(cleanup::Cleanup),
    Demo(demo::Demo),
    #[command(hide = true)]
    LabAgent(lab::agent::AgentArgs),
}

#[derive(Debug, Args)]
struct PinDirArg {
    /// Where state is pinned; each instance on a host has its own
    #[arg(long, value_name = "PATH", default_value = pins::DEFAULT)]
    pin_dir: PathBuf,
}

const NOT_PRINTED: &str = "cannot write to standard output";

/// Runs the command that the arguments of this process say, and returns the exit code.
#[must_use]
pub fn main() -> ExitCode {
    match Cli::try_parse() {
        Ok(cli) => cli.run(),
        Err(error) => {
            let code = ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
            match print_usage(&error) {
                Err(failure) => {
                    log::say(&format!("portico: {NOT_PRINTED}: {failure}"));
                    ExitCode::FAILURE
                }
                Ok(()) => code,
            }
        }
    }
}

/// Prints help, or what is wrong with the arguments, which are in it.
fn print_usage(error: &clap::Error) -> io::Result<()> {
    if error.use_stderr() {
        let lines: Vec<String> = error.render().to_string().lines().map(text::line).collect();
        log::say_all(&lines.join("\n"));
        return Ok(());
    }
    output::unless_closed(error.print().and_then(|()| io::stdout().flush()), ())
}

impl Cli {
    /// Runs the command, prints what went wrong, and returns the exit code: 0 good, 1 failure.
    #[must_use]
    pub fn run(self) -> ExitCode {
        let lines = matches!(self.command, Command::Demo(_));
        let outcome = match self.command {
            Command::Run(command) => command.run(),
            Command::Status(command) => command.run(),
            Command::Get(command) => command.run(),
            Command::Explain(command) => command.run(),
            Command::Doctor(command) => command.run(),
            Command::Cleanup(command) => command.run(),
            Command::Demo(command) => command.run(),
            Command::LabAgent(args) => return lab::agent::main(&args),
        };
        // What is not a whole line is still in the buffer.
        let flushed = Output::lock().flush().context(NOT_PRINTED);
        match outcome.and_then(|code| flushed.map(|()| code)) {
            Ok(code) => code,
            Err(error) => {
                let text = format!("portico: {}", describe(&error));
                // The demonstration shows what its daemon and its commands said.
                if lines {
                    log::say_all(&text);
                } else {
                    log::say(&text);
                }
                ExitCode::FAILURE
            }
        }
    }
}

/// An error with its sources on one line, each said once.
fn describe(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for part in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = part;
        } else if !text.contains(&part) {
            text = format!("{text}: {part}");
        }
    }
    text
}

/// An async runtime for a command that needs one.
fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?)
}

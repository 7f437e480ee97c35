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

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand};

use crate::driver::pins;

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

impl Cli {
    /// Runs the command, prints what went wrong, and returns the exit code: 0 good, 1 failure, 2 usage (by clap).
    #[must_use]
    pub fn run(self) -> ExitCode {
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
        match outcome {
            Ok(code) => code,
            Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("portico: {}", describe(&error));
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

/// Whoever read our output has had enough.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let broken = |error: &std::io::Error| error.kind() == std::io::ErrorKind::BrokenPipe;
    error.chain().any(|cause| cause.downcast_ref().is_some_and(broken))
}

/// An async runtime for a command that needs one.
fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?)
}

//! What can be asked for on the command line, and how much of it is measured.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context as _, ensure};
use clap::{Parser, Subcommand, ValueEnum};

use crate::{
    datapath, delay, disruption, flood, generate, generator, growth, resources, sockets, variants::Variant,
};

/// Measures what Portico's programs, plan, drivers and daemon cost.
///
/// Needs root: programs are loaded and run, and network namespaces made, all of which are gone at the end, after an
/// interruption too. Figures are printed as text, with medians and the ranges they were found in; --out has them as a page with
/// charts, too.
#[derive(Debug, Parser)]
#[command(name = "portico-bench", version, after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub(crate) struct Options {
    #[command(subcommand)]
    pub(crate) command: Option<Action>,
    /// What to measure.
    #[arg(value_enum, value_name = "SECTION", default_values_t = [Choice::All])]
    sections: Vec<Choice>,
    /// Leave all outputs in a directory: report.html, .txt, .md and .json, csv/ with every table and single
    /// measurement, hgrm/ with percentiles for the plotters of HdrHistogram.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// The CPU to measure on (the daemon runs on all) [default: the last].
    #[arg(long, value_name = "N")]
    pub(crate) cpu: Option<usize>,
    /// Numbers of services for plan and daemon.
    #[arg(long, value_name = "N", value_delimiter = ',', default_values_t = [1_000, 10_000])]
    pub(crate) services: Vec<u32>,
    /// How many endpoints each of them has.
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub(crate) endpoints: u32,
    /// More of everything: IPv6, more rounds, more services. Takes an hour rather than minutes.
    #[arg(long)]
    full: bool,
    #[command(flatten)]
    pub(crate) packets: datapath::Arguments,
    /// What makes packets.
    #[arg(long, value_enum, default_value_t = generator::Kind::Auto)]
    pub(crate) generator: generator::Kind,
    /// Only these ways through the gateway [default: all].
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    variants: Vec<Variant>,
    /// How often each variant has its turn.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// How long a turn takes; with the cache of established flows at least a second.
    #[arg(long, value_name = "MS", default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..))]
    turn_ms: u64,
    #[command(flatten)]
    pub(crate) agent: sockets::Agent,
    /// Connections that stay open, for disruption.
    #[arg(long, value_name = "N", default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..))]
    connections: u32,
    /// The binary that sections run [default: portico beside this program].
    #[arg(long, value_name = "PATH")]
    portico: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) generate: generate::Arguments,
}

const EXAMPLES: &str = "\
Examples:
  portico-bench --out report                      everything, the page is report/report.html
  portico-bench datapath latency --rounds 9       two sections, with narrower ranges
  portico-bench datapath --variants redirect,fast-path,nftables --flows 1,1000000
  portico-bench all --full --out report           all that there is to measure
  portico-bench render --from report/report.json --out again";

#[derive(Debug, Subcommand)]
pub(crate) enum Action {
    /// Make the outputs of a finished run again, without measuring (and without root).
    Render {
        /// The report.json of that run.
        #[arg(long, value_name = "FILE")]
        from: PathBuf,
        /// Where to leave the outputs.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Choice {
    /// All sections, in under ten minutes.
    All,
    /// Nanoseconds a packet of the XDP and tc programs.
    Programs,
    /// Maglev tables: time, balance, disruption.
    Maglev,
    /// Planning and writing to the kernel, cold and for one endpoint.
    Plan,
    /// A `portico run` on manifests: start, changes, restart, memory.
    Daemon,
    /// Packets of established flows: Portico, bare XDP, the kernel, rules as kube-proxy's.
    Datapath,
    /// The same and new flows as services become more; with --full, a flood of new ones among them.
    Growth,
    /// How late packets arrive at several loads.
    Latency,
    /// CPU at several loads, and memory as flows and services become more.
    Resources,
    /// Connections and requests a second by real sockets, and how long connect takes on the gateway.
    Sockets,
    /// Connections that break or stand still when backends change, the daemon restarts or somebody flushes.
    Disruption,
    /// A flood of SYNs against one service: what one costs, and whether real clients connect meanwhile.
    Flood,
    /// Only makes packets, on an interface of this network namespace (not one of all).
    Generate,
}

impl Options {
    pub(crate) fn binary(&self) -> anyhow::Result<PathBuf> {
        let binary = match &self.portico {
            Some(path) => path.clone(),
            None => std::env::current_exe().context("cannot find this program")?.with_file_name("portico"),
        };
        ensure!(binary.is_file(), "{} is missing; see --portico", binary.display());
        Ok(binary)
    }

    pub(crate) fn extent(&self) -> datapath::Extent {
        datapath::Extent {
            arguments: self.packets.clone(),
            full: self.full,
            rounds: self.rounds,
            turn: Duration::from_millis(self.turn_ms),
            variants: self.variants(),
            generator: self.generator,
        }
    }

    pub(crate) fn growth(&self) -> growth::Extent {
        growth::Extent {
            services: if self.full { vec![1, 100, 1_000, 10_000] } else { vec![1, 1_000] },
            rounds: self.rounds.min(if self.full { self.rounds } else { 3 }),
            turn: Duration::from_millis(self.turn_ms),
            new: if self.full { 100_000 } else { 50_000 },
            floods: if self.full { 3 } else { 0 },
            masquerade: self.packets.masquerade,
            variants: self.variants(),
            generator: self.generator,
        }
    }

    pub(crate) fn delay(&self) -> delay::Extent {
        delay::Extent {
            loads: if self.full {
                vec![50_000, 100_000, 200_000, 400_000, 800_000, 1_600_000]
            } else {
                vec![100_000, 300_000, 1_000_000]
            },
            rounds: self.rounds.min(3),
            turn: Duration::from_millis(self.turn_ms),
            variants: self.variants(),
            generator: self.generator,
        }
    }

    pub(crate) fn resources(&self) -> resources::Extent {
        let most = |short, full| if self.full { full } else { short };
        let up_to = |all: &[u32], most| all.iter().copied().filter(|number| *number <= most).collect();
        resources::Extent {
            loads: vec![100_000, 300_000, 1_000_000],
            rounds: most(2, 5),
            turn: Duration::from_millis(most(300, 1_000).into()),
            flows: up_to(&[1, 1_000, 100_000, 1_000_000], most(100_000, 1_000_000)),
            services: if self.full { vec![1, 100, 1_000, 10_000] } else { vec![1, 1_000] },
            variants: self.variants(),
            generator: self.generator,
        }
    }

    pub(crate) fn sockets(&self) -> sockets::Extent {
        sockets::Extent {
            workers: 32,
            requests: if self.full { vec![1_000, 5_000, 10_000, 20_000] } else { vec![5_000] },
            connections: if self.full { vec![500, 1_000, 2_000, 4_000] } else { vec![1_000] },
            rounds: if self.full { self.rounds } else { 3 },
            turn: Duration::from_millis(if self.full { 1_000 } else { 500 }),
            connects: 1_000,
            families: self.packets.families(self.full),
            variants: self.variants(),
        }
    }

    pub(crate) fn disruption(&self) -> disruption::Extent {
        disruption::Extent {
            connections: self.connections,
            window: Duration::from_millis(if self.full { 5_000 } else { 1_500 }),
            rounds: if self.full { 3 } else { 1 },
            families: self.packets.families(self.full),
            variants: self.variants(),
        }
    }

    pub(crate) fn flood(&self) -> flood::Extent {
        flood::Extent {
            rounds: self.rounds.min(if self.full { self.rounds } else { 3 }),
            turn: Duration::from_millis(if self.full { 2_000 } else { 1_000 }),
            rate: 200_000,
            floods: if self.full { 3 } else { 1 },
            connects: 50,
            variants: self.variants(),
            generator: self.generator,
        }
    }

    /// The sections asked for, in the order of their turns.
    pub(crate) fn wanted(&self) -> impl Iterator<Item = Choice> {
        let all = self.sections.contains(&Choice::All);
        let sections = Choice::value_variants().iter().copied().filter(|section| *section != Choice::All);
        sections
            .filter(move |section| self.sections.contains(section) || (all && *section != Choice::Generate))
    }

    /// About how long a section takes; two busy CPUs took that.
    pub(crate) fn expected(&self, section: Choice) -> Duration {
        match section {
            Choice::All => Duration::ZERO,
            Choice::Programs => Duration::from_secs(10),
            Choice::Maglev => Duration::from_secs(2),
            Choice::Plan | Choice::Daemon => {
                // Objects of each size, planned or started with several times.
                let objects: u32 = self.services.iter().map(|n| n.saturating_mul(self.endpoints)).sum();
                Duration::from_secs(2) + Duration::from_micros(150) * objects
            }
            Choice::Datapath => self.extent().expected(),
            Choice::Growth => self.growth().expected(),
            Choice::Latency => self.delay().expected(),
            Choice::Resources => self.resources().expected(),
            Choice::Sockets => self.sockets().expected(),
            Choice::Disruption => self.disruption().expected(),
            Choice::Flood => self.flood().expected(),
            Choice::Generate => self.generate.expected(),
        }
    }

    fn variants(&self) -> Vec<Variant> {
        if self.variants.is_empty() { Variant::ALL.to_vec() } else { self.variants.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_measured_is_refused_before_anything_is() {
        let parse = |option, value| Options::try_parse_from(["portico-bench", "datapath", option, value]);
        for (option, good, bad) in [
            ("--flows", ["1", "1,1000000"], ["0", "1,0"]),
            ("--size", ["60", "1514"], ["59", "65536"]),
            ("--fresh", ["0", "100"], ["100.1", "NaN"]),
            ("--rate", ["1", "1000000"], ["0", "-1"]),
            ("--rounds", ["1", "9"], ["0", "x"]),
            ("--turn-ms", ["1", "500"], ["0", "-1"]),
            ("--connections", ["1", "300"], ["0", "-1"]),
        ] {
            good.into_iter().for_each(|value| assert!(parse(option, value).is_ok(), "{option} {value}"));
            bad.into_iter().for_each(|value| assert!(parse(option, value).is_err(), "{option} {value}"));
        }
    }
}

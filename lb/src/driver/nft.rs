//! `table inet portico`: the handful of rules that turns a packet's label into NAT, run through the `nft` command.
//!
//! * Every change is one transaction: the kernel shows all of it or nothing.
//! * What is there is compared with what `nft` itself prints for our text ([`Nft::present`]). So a table written by
//!   another version of Portico, or changed by somebody, is recognised without a version number.
//! * Calls block; `nft` works in the network namespace of the calling thread.
//!
//! `nft` itself costs about 2 ms a call; what a change costs beyond that is the kernel waiting for its readers, which
//! any other way of writing would wait for too.

mod process;
pub mod ruleset;
mod watch;

use std::{
    ffi::OsString,
    io::{self, BufRead},
    net::SocketAddr,
    sync::{Arc, OnceLock},
    thread,
};

use nix::sched::{CloneFlags, unshare};
use serde::Deserialize;

use process::Process;

pub use crate::model::Family;
pub use ruleset::{Synproxy, TABLE, counter};
pub use watch::{Commit, Watch};

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The binary is absent.
    #[error("cannot {attempt}: no executable \"{}\" found; it comes with the package nftables", binary.display())]
    Missing {
        /// What was attempted.
        attempt: &'static str,
        /// Name or path of the binary.
        binary: OsString,
    },
    /// `nft` could not be started, fed or read.
    #[error("cannot {attempt}: running \"{}\" failed", binary.display())]
    Run {
        /// What was attempted.
        attempt: &'static str,
        /// Name or path of the binary.
        binary: OsString,
        /// Why.
        source: io::Error,
    },
    /// `nft` ran and reported an error.
    #[error("cannot {attempt}: nft says: {message}")]
    Refused {
        /// What was attempted.
        attempt: &'static str,
        /// The first line of its error output.
        message: String,
    },
    /// `nft` printed what we do not understand.
    #[error("cannot {attempt}: unexpected output of nft: {output}")]
    Output {
        /// What was attempted.
        attempt: &'static str,
        /// The odd part.
        output: String,
    },
    /// An empty network namespace could not be had; `CAP_SYS_ADMIN` is needed.
    #[error("cannot make a network namespace to learn how nft prints {TABLE}")]
    Scratch(#[source] io::Error),
    /// The netlink socket for ruleset changes failed.
    #[error("cannot watch the ruleset for changes: {attempt} failed")]
    Watch {
        /// What was attempted.
        attempt: &'static str,
        /// Why.
        source: io::Error,
    },
}

/// What [`Nft::ensure`] found and did. After anything but `Kept`, compare [`Nft::load`] with what should be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ensured {
    /// Everything was as it should be.
    Kept,
    /// There was no table.
    Created,
    /// Chains, rules or counters differed and were rewritten; elements were not touched.
    Repaired,
    /// Rewriting could not mend it: the table was replaced, with all elements that could be read from the old one.
    Replaced,
}

/// A named counter.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Counter {
    /// One of [`counter::ALL`].
    pub name: String,
    /// Packets since the table was made.
    pub packets: u64,
    /// Bytes, from the network header on.
    pub bytes: u64,
}

/// The driver. Clones share what they know. What changes the table should be called by one at a time: a repair that
/// has to replace it writes the elements that it has read before.
#[derive(Clone, Debug)]
pub struct Nft {
    process: Process,
    expected: Arc<OnceLock<Expected>>,
}

/// What the table should look like, in comparable form.
#[derive(Debug)]
struct Expected {
    synproxy: Synproxy,
    /// What nft says of the rules with synproxy, if it does not take them.
    refusal: Option<String>,
    blocks: Vec<String>,
}

impl Default for Nft {
    fn default() -> Self {
        Self::new()
    }
}

impl Nft {
    /// With the `nft` that is found in `PATH`.
    #[must_use]
    pub fn new() -> Self {
        Self::with_binary("nft")
    }

    /// With another binary.
    #[must_use]
    pub fn with_binary(binary: impl Into<OsString>) -> Self {
        Self { process: Process::new(binary.into()), expected: Arc::default() }
    }

    /// Makes the table what it should be, in one transaction, without touching elements. New and established flows
    /// are translated throughout, unless they were not before.
    ///
    /// # Errors
    /// All but [`Error::Watch`].
    pub fn ensure(&self) -> Result<Ensured, Error> {
        let before = self.table()?;
        let Expected { synproxy, blocks, .. } = self.expected()?;
        if before.as_ref() == Some(blocks) {
            // Elements are not part of the comparison; adding those that exist costs no transaction.
            self.add(&ruleset::probe_elements())?;
            return Ok(Ensured::Kept);
        }
        let attempt = "write the rules of table inet portico";
        match self.process.write(attempt, &ruleset::create(*synproxy)) {
            Ok(()) if self.present()? => {
                return Ok(if before.is_none() { Ensured::Created } else { Ensured::Repaired });
            }
            Ok(()) | Err(Error::Refused { .. }) if before.is_some() => {}
            Ok(()) => {
                let output = "the table does not look as written".to_owned();
                return Err(Error::Output { attempt, output });
            }
            Err(error) => return Err(error),
        }
        // A chain with another hook, a map of another type, something that is not ours.
        let elements = match self.load() {
            Ok(elements) => elements,
            Err(Error::Refused { .. } | Error::Output { .. }) => Vec::new(),
            Err(error) => return Err(error),
        };
        self.process.write("replace table inet portico", &ruleset::replace(*synproxy, &elements))?;
        Ok(Ensured::Replaced)
    }

    /// Whether table, maps, chains, rules and counters are what [`Nft::ensure`] writes. Elements are not looked at:
    /// it takes milliseconds whatever their number.
    ///
    /// # Errors
    /// All but [`Error::Watch`].
    pub fn present(&self) -> Result<bool, Error> {
        Ok(self.table()?.as_ref() == Some(&self.expected()?.blocks))
    }

    /// Why there is no synproxy, without which no SYN cookies are asked for; none if there is.
    ///
    /// # Errors
    /// All but [`Error::Watch`].
    pub fn lacks_synproxy(&self) -> Result<Option<&str>, Error> {
        Ok(self.expected()?.refusal.as_deref())
    }

    /// Every label with its backend, except the probe's.
    ///
    /// # Errors
    /// If there is no table, or no `nft`.
    pub fn load(&self) -> Result<Vec<(u32, SocketAddr)>, Error> {
        let probes = ruleset::probe_elements();
        let mut elements = self.elements()?;
        elements.retain(|element| !probes.contains(element));
        Ok(elements)
    }

    fn elements(&self) -> Result<Vec<(u32, SocketAddr)>, Error> {
        let attempt = "list the backends in table inet portico";
        let mut elements = Vec::new();
        for family in Family::ALL {
            // Text takes nft three quarters of the memory that JSON does.
            self.process.read(
                attempt,
                &["-n", "list", "map", "inet", "portico", ruleset::map(family)],
                |output| {
                    let mut inside = false;
                    for part in output.split(b',') {
                        let part = part.map_err(|source| self.process.failed(attempt, source))?;
                        let text = String::from_utf8_lossy(&part);
                        let text = match text.split_once("elements = {") {
                            Some((_, first)) => first,
                            None if inside => &text,
                            None => continue,
                        };
                        inside = true;
                        let text = text.split('}').next().unwrap_or_default();
                        let element = ruleset::element(text)
                            .ok_or_else(|| Error::Output { attempt, output: text.trim().to_owned() })?;
                        elements.push(element);
                    }
                    Ok(())
                },
            )?;
        }
        Ok(elements)
    }

    /// Adds elements, in one transaction. Those that exist with another backend get this one. Labels begin at
    /// [`datapath::abi::Label::FIRST`].
    ///
    /// # Errors
    /// If there is no table, or no `nft`.
    pub fn add(&self, elements: &[(u32, SocketAddr)]) -> Result<(), Error> {
        self.change(&[], elements)
    }

    /// Deletes elements, in one transaction. Those that do not exist are passed over.
    ///
    /// # Errors
    /// If there is no table, or no `nft`.
    pub fn delete(&self, labels: &[(u32, Family)]) -> Result<(), Error> {
        self.change(labels, &[])
    }

    /// Deletes and adds, in one transaction, with the tolerance of [`Nft::delete`] and [`Nft::add`].
    ///
    /// # Errors
    /// If there is no table, or no `nft`.
    pub fn change(&self, delete: &[(u32, Family)], add: &[(u32, SocketAddr)]) -> Result<(), Error> {
        let attempt = "change the backends in table inet portico";
        if delete.is_empty() && add.is_empty() {
            return Ok(());
        }
        match self.process.write(attempt, &ruleset::change(delete, add)) {
            Err(Error::Refused { .. }) => {}
            other => return other,
        }
        let actual = self.elements()?.into_iter().map(|(label, addr)| ((label, Family::of(addr.ip())), addr));
        let (delete, add) = ruleset::difference(&actual.collect(), delete, add);
        self.process.write(attempt, &ruleset::change(&delete, &add))
    }

    /// The named counters.
    ///
    /// # Errors
    /// If there is no `nft`. Without a table the list is empty.
    pub fn counters(&self) -> Result<Vec<Counter>, Error> {
        let attempt = "read the counters of table inet portico";
        let listing: Listing =
            self.process.read(attempt, &["-j", "-t", "list", "ruleset", "inet"], |output| {
                serde_json::from_reader(output)
                    .map_err(|error| Error::Output { attempt, output: error.to_string() })
            })?;
        let counters = listing.nftables.into_iter().filter_map(|item| item.counter);
        Ok(counters.filter(|c| format!("{} {}", c.family, c.table) == TABLE).map(|c| c.counter).collect())
    }

    /// Deletes the table. New flows, and established ones if this was the last NAT chain of the namespace, are no
    /// longer translated.
    ///
    /// # Errors
    /// If there is no `nft`; not if there is no table.
    pub fn remove(&self) -> Result<(), Error> {
        self.process.write("delete table inet portico", &format!("add table {TABLE}\ndelete table {TABLE}\n"))
    }

    /// Subscribes to what others commit to the ruleset of this namespace. Needs a tokio runtime.
    ///
    /// # Errors
    /// [`Error::Watch`].
    pub fn watch(&self) -> Result<Watch, Error> {
        Watch::new(self.process.own.clone())
    }
}

impl Nft {
    /// What there is of our table, in comparable form.
    fn table(&self) -> Result<Option<Vec<String>>, Error> {
        let attempt = "list table inet portico";
        // Of all ways to list, nft 1.0.6 leaves elements in the kernel for this one alone: for a table, a chain or a
        // counter it reads every element first, which takes a second and 240 MB for 200,000.
        self.process.read(attempt, &["-s", "-t", "list", "ruleset", "inet"], |output| {
            let mut listing = String::new();
            output.read_to_string(&mut listing).map_err(|source| self.process.failed(attempt, source))?;
            Ok(ruleset::blocks(&listing))
        })
    }

    /// What [`Nft::table`] returns if all is well, learned from nft itself in an empty network namespace: how it
    /// prints a rule differs between its versions.
    fn expected(&self) -> Result<&Expected, Error> {
        if let Some(expected) = self.expected.get() {
            return Ok(expected);
        }
        let learn = || {
            unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| Error::Scratch(errno.into()))?;
            let attempt = "write the rules of table inet portico";
            let write = |synproxy| self.process.write(attempt, &ruleset::create(synproxy));
            let (synproxy, refusal) = match write(Synproxy::On) {
                Ok(()) => (Synproxy::On, None),
                Err(Error::Refused { message, .. }) => {
                    write(Synproxy::Absent)?;
                    (Synproxy::Absent, Some(message))
                }
                Err(error) => return Err(error),
            };
            Ok(Expected { synproxy, refusal, blocks: self.table()?.unwrap_or_default() })
        };
        // A namespace belongs to a thread and goes away with it.
        let learned = thread::scope(|scope| scope.spawn(learn).join())
            .map_err(|_| Error::Scratch(io::Error::other("the thread panicked")))??;
        Ok(self.expected.get_or_init(|| learned))
    }
}

/// `nft -j list ruleset`, as far as we read it.
#[derive(Deserialize)]
struct Listing {
    nftables: Vec<Item>,
}

#[derive(Deserialize)]
struct Item {
    counter: Option<ListedCounter>,
}

#[derive(Deserialize)]
struct ListedCounter {
    family: String,
    table: String,
    #[serde(flatten)]
    counter: Counter,
}

//! `table inet portico`: the handful of rules that turns a packet's label into NAT, written and read over netlink.
//!
//! * Every change is one transaction: the kernel shows all of it or nothing.
//! * What is there is compared with what the kernel says of the same table in an empty network namespace
//!   ([`Nft::present`]). So a table written by another version of Portico, or changed by somebody, is recognised without
//!   a version number.
//! * Calls block, each for a stated time at most; they work in the network namespace of the calling thread.
//!
//! `nft list table inet portico` prints all of it, in every version of nft since 1.0.6. Nothing here runs `nft`.
//!
//! While one version takes over from another there are two tables, each for the labels of its own schema ([`schema`]).

mod error;
mod expression;
mod message;
mod netlink;
mod read;
pub mod ruleset;
mod schema;
mod watch;

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, OnceLock},
    thread,
};

use datapath::abi::Label;
use nix::sched::{CloneFlags, unshare};

use message::{Request, Transaction};
use netlink::{Listed, Own};
use read::{Kind, Snapshot};

pub use crate::model::Family;
pub use error::Error;
pub use ruleset::{Synproxy, TABLE, counter};
pub use schema::SECOND;
pub use watch::{Commit, Watch};

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
#[derive(Clone, Debug, PartialEq, Eq)]
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
    table: Arc<str>,
    comment: Option<Arc<str>>,
    synproxy: Synproxy,
    own: Own,
    expected: Arc<OnceLock<Expected>>,
}

/// What the table should look like, in comparable form.
#[derive(Debug)]
struct Expected {
    synproxy: Synproxy,
    /// What the kernel says of the rules with synproxy, if it does not take them.
    refusal: Option<String>,
    snapshot: Snapshot,
}

impl Default for Nft {
    fn default() -> Self {
        Self::new()
    }
}

impl Nft {
    /// For `table inet portico`, of this schema.
    #[must_use]
    pub fn new() -> Self {
        Self::with_table(TABLE).with_comment(&schema::comment())
    }

    /// For a table of another name, of family `inet`.
    #[must_use]
    pub fn with_table(name: &str) -> Self {
        let (own, expected) = (Own::default(), Arc::default());
        Self { table: name.into(), comment: None, synproxy: Synproxy::On, own, expected }
    }

    /// Writes the rules of a kernel that has no synproxy.
    #[must_use]
    pub fn without_synproxy(self) -> Self {
        Self { synproxy: Synproxy::Absent, expected: Arc::default(), ..self }
    }

    /// Has tables that it makes carry a comment, which `nft list` shows. The kernel takes up to 128 bytes, and cannot
    /// change the comment of a table that exists.
    #[must_use]
    pub fn with_comment(self, comment: &str) -> Self {
        Self { comment: Some(comment.into()), ..self }
    }

    /// The table's comment; none if it has none, or does not exist.
    ///
    /// # Errors
    /// If the table cannot be read.
    pub fn comment(&self) -> Result<Option<String>, Error> {
        Ok(self.snapshot()?.comment().map(str::to_owned))
    }

    /// Makes the table what it should be, in one transaction, without touching elements. New and established flows
    /// are translated throughout, unless they were not before.
    ///
    /// # Errors
    /// All but [`Error::Watch`].
    pub fn ensure(&self) -> Result<Ensured, Error> {
        let before = self.snapshot()?;
        let Expected { synproxy, snapshot, .. } = self.expected()?;
        // The kernel cannot change the comment of a table, which says of which schema it is.
        let same_comment =
            !before.exists() || self.comment.is_none() || before.comment() == self.comment.as_deref();
        if before.same(snapshot) && same_comment {
            // Elements are not part of the comparison; adding those that exist costs no transaction.
            self.change_labels(&[], &ruleset::probe_elements())?;
            return Ok(Ensured::Kept);
        }
        let attempt = self.attempt("write the rules of");
        let comment = self.comment.as_deref();
        let create = || match same_comment {
            true => self.commit(&attempt, |transaction| transaction.create(*synproxy, comment)),
            false => Ok(()),
        };
        match create() {
            Ok(()) | Err(Error::Lost { .. }) if same_comment && self.present()? => {
                return Ok(if before.exists() { Ensured::Repaired } else { Ensured::Created });
            }
            Ok(()) | Err(Error::Refused { .. }) if before.exists() => {}
            Ok(()) => return Err(Error::Written { attempt }),
            Err(error) => return Err(error),
        }
        // A chain with another hook, a map of another type, something that is not ours.
        let elements = match self.elements() {
            Ok(elements) => ours(elements).map(|(id, addr)| (Label::backend(id).0, addr)).collect(),
            Err(Error::Refused { .. } | Error::Answer { .. }) => Vec::new(),
            Err(error) => return Err(error),
        };
        self.commit(&self.attempt("replace"), |transaction| {
            transaction.replace(*synproxy, comment);
            transaction.add_elements(&elements);
        })?;
        Ok(Ensured::Replaced)
    }

    /// Name of the table.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.table
    }

    /// Whether table, maps, chains, rules and counters are what [`Nft::ensure`] writes. Elements are not looked at:
    /// it takes milliseconds whatever their number.
    ///
    /// # Errors
    /// All but [`Error::Watch`].
    pub fn present(&self) -> Result<bool, Error> {
        let snapshot = self.snapshot()?;
        Ok(snapshot.same(&self.expected()?.snapshot))
    }

    /// Why there is no synproxy, without which no SYN cookies are asked for; none if there is.
    ///
    /// # Errors
    /// All but [`Error::Watch`].
    pub fn lacks_synproxy(&self) -> Result<Option<&str>, Error> {
        Ok(self.expected()?.refusal.as_deref())
    }

    /// The ids of all backends with their addresses. Labels of another schema are left out.
    ///
    /// # Errors
    /// If there is no table, or it cannot be read.
    pub fn load(&self) -> Result<Vec<(u32, SocketAddr)>, Error> {
        Ok(ours(self.elements()?).collect())
    }

    fn elements(&self) -> Result<Vec<(u32, SocketAddr)>, Error> {
        let attempt = self.attempt("list the backends in");
        netlink::uninterrupted(&attempt, |wire, until| {
            let mut elements = Vec::new();
            let mut listed = [Listed::Interrupted; 2];
            for (listed, family) in listed.iter_mut().zip(Family::ALL) {
                let request = Request::Elements(&self.table, ruleset::map(family));
                *listed = netlink::list(wire, &attempt, request, until, |payload| {
                    read::elements(payload, family, &mut elements)
                })?;
            }
            let whole = !listed.contains(&Listed::Interrupted) && distinct(&elements);
            Ok(whole.then_some(elements))
        })
    }

    /// Adds backends by their ids, in one transaction. Those that exist with another address get this one. Ids are at least
    /// [`Label::FIRST`] and less than [`Label::RESERVED`].
    ///
    /// # Errors
    /// If there is no table, or it cannot be written.
    pub fn add(&self, elements: &[(u32, SocketAddr)]) -> Result<(), Error> {
        self.change(&[], elements)
    }

    /// Deletes backends, in one transaction. Those that do not exist are passed over.
    ///
    /// # Errors
    /// If there is no table, or it cannot be written.
    pub fn delete(&self, ids: &[(u32, Family)]) -> Result<(), Error> {
        self.change(ids, &[])
    }

    /// Deletes and adds, in one transaction, with the tolerance of [`Nft::delete`] and [`Nft::add`].
    ///
    /// # Errors
    /// If there is no table, or it cannot be written.
    pub fn change(&self, delete: &[(u32, Family)], add: &[(u32, SocketAddr)]) -> Result<(), Error> {
        let delete: Vec<_> = delete.iter().map(|(id, family)| (Label::backend(*id).0, *family)).collect();
        let add: Vec<_> = add.iter().map(|(id, addr)| (Label::backend(*id).0, *addr)).collect();
        self.change_labels(&delete, &add)
    }

    fn change_labels(&self, delete: &[(u32, Family)], add: &[(u32, SocketAddr)]) -> Result<(), Error> {
        let attempt = self.attempt("change the backends in");
        let change = |delete: &[(u32, Family)], add: &[(u32, SocketAddr)]| {
            if delete.is_empty() && add.is_empty() {
                return Ok(());
            }
            self.commit(&attempt, |transaction| {
                transaction.delete_elements(delete);
                transaction.add_elements(add);
            })
        };
        let refusal = match change(delete, add) {
            Err(error @ (Error::Refused { .. } | Error::Lost { .. })) => error,
            other => return other,
        };
        let actual = match self.elements() {
            Ok(elements) => elements,
            // No table, no map, another one: the first error tells more.
            Err(Error::Refused { .. } | Error::Answer { .. }) => return Err(refusal),
            Err(error) => return Err(error),
        };
        let actual = actual.into_iter().map(|(label, addr)| ((label, Family::of(addr.ip())), addr));
        let (delete, add) = ruleset::difference(&actual.collect(), delete, add);
        change(&delete, &add)
    }

    /// The named counters, in the order of [`counter::ALL`].
    ///
    /// # Errors
    /// If they cannot be read. Without a table the list is empty.
    pub fn counters(&self) -> Result<Vec<Counter>, Error> {
        let attempt = self.attempt("read the counters of");
        let mut counters = netlink::uninterrupted(&attempt, |wire, until| {
            let mut counters = Vec::new();
            let listed = netlink::list(wire, &attempt, Request::Objects(&self.table), until, |payload| {
                counters.extend(read::counter(&self.table, payload)?);
                Ok(())
            })?;
            Ok((listed != Listed::Interrupted).then_some(counters))
        })?;
        counters.sort_by_key(|counter| counter::ALL.iter().position(|name| *name == counter.name));
        Ok(counters)
    }

    /// Deletes the table. New flows, and established ones if this was the last NAT chain of the namespace, are no
    /// longer translated.
    ///
    /// # Errors
    /// If the kernel refuses; not if there is no table.
    pub fn remove(&self) -> Result<(), Error> {
        self.commit(&self.attempt("delete"), |transaction| transaction.delete_table(&self.table))
    }

    /// Subscribes to what others commit to the ruleset of this namespace. Needs a tokio runtime.
    ///
    /// # Errors
    /// [`Error::Watch`].
    pub fn watch(&self) -> Result<Watch, Error> {
        Watch::new(self.own.clone())
    }
}

impl Nft {
    fn attempt(&self, what: &str) -> String {
        format!("{what} table inet {}", self.table)
    }

    fn commit(&self, attempt: &str, fill: impl FnOnce(&mut Transaction<'_>)) -> Result<(), Error> {
        let mut transaction = Transaction::new(&self.table);
        fill(&mut transaction);
        netlink::commit(&self.own, attempt, &transaction.finish())
    }

    /// What there is of our table, without elements.
    fn snapshot(&self) -> Result<Snapshot, Error> {
        let attempt = self.attempt("list");
        let requests = [
            (Kind::Table, Request::Tables),
            (Kind::Chain, Request::Chains),
            (Kind::Rule, Request::Rules(&self.table)),
            (Kind::Set, Request::Sets),
            (Kind::Object, Request::Objects(&self.table)),
            (Kind::Flowtable, Request::Flowtables(&self.table)),
        ];
        netlink::uninterrupted(&attempt, |wire, until| {
            let mut snapshot = Snapshot::default();
            let mut generation = None;
            for (kind, request) in requests {
                let listed = netlink::list(wire, &attempt, request, until, |payload| {
                    snapshot.add(&self.table, kind, payload)
                })?;
                match listed {
                    Listed::Whole(None) => {}
                    Listed::Whole(Some(of)) if *generation.get_or_insert(of) == of => {}
                    _ => return Ok(None),
                }
            }
            Ok(Some(snapshot))
        })
    }

    /// What [`Nft::snapshot`] returns if all is well, learned from the kernel in an empty network namespace: what it
    /// adds to a message, and how it orders it, differs between its versions.
    fn expected(&self) -> Result<&Expected, Error> {
        if let Some(expected) = self.expected.get() {
            return Ok(expected);
        }
        let learn = || {
            unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| Error::Scratch(errno.into()))?;
            // Its changes are none that a watcher could see.
            let scratch = Self::with_table(&self.table);
            let attempt = self.attempt("write the rules of");
            let write = |synproxy| scratch.commit(&attempt, |transaction| transaction.create(synproxy, None));
            let (synproxy, refusal) = match write(self.synproxy) {
                Ok(()) => (self.synproxy, None),
                Err(error @ Error::Refused { .. }) => {
                    write(Synproxy::Absent)?;
                    (Synproxy::Absent, Some(crate::error::chain(&error)))
                }
                Err(error) => return Err(error),
            };
            Ok(Expected { synproxy, refusal, snapshot: scratch.snapshot()? })
        };
        // A namespace belongs to a thread and goes away with it.
        let learned = thread::scope(|scope| scope.spawn(learn).join())
            .map_err(|_| Error::Scratch(io::Error::other("the thread panicked")))??;
        Ok(self.expected.get_or_init(|| learned))
    }
}

/// Of elements by label those of this schema's backends, by id.
fn ours(elements: Vec<(u32, SocketAddr)>) -> impl Iterator<Item = (u32, SocketAddr)> {
    elements.into_iter().filter_map(|(label, addr)| Some((Label(label).id()?, addr)))
}

/// Whether no element is there twice. For each answer the kernel walks through the map anew and skips as many elements as
/// it has listed. While it enlarges the map, which it does after many additions and not in a transaction, their order
/// changes (`nft_rhash_walk`): as many are listed twice as are missed.
fn distinct(elements: &[(u32, SocketAddr)]) -> bool {
    let mut keys: Vec<(bool, u32)> = elements.iter().map(|(label, addr)| (addr.is_ipv4(), *label)).collect();
    keys.sort_unstable();
    keys.windows(2).all(|two| two[0] != two[1])
}

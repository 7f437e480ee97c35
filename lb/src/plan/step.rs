use std::net::SocketAddr;

use datapath::abi::{Addr, Backend, Frontend, FrontendKey, Name, Prefix, SourceRange};

use super::MaglevSpec;

/// What has flags in the kernel, each kind in a map of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Flagged {
    /// Where a service port's restricted frontends may be reached from; the only flag is 1.
    Source(SourceRange),
    /// An address of the node, or a cluster IP.
    Address(Addr),
    /// Networks of pods and cluster IPs.
    Network(Prefix),
    /// Index of an interface that pods are behind; the only flag is 1.
    Interface(u32),
}

/// One write to one kernel surface.
///
/// Keys come once in a step. Its items may be written in any order, one by one or at once; the kernel is consistent
/// after each of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Labels to the addresses they are translated to, in the nft map of the address's family. A label that has
    /// another address (somebody tampered with the map) is given this one.
    AddTranslations(Vec<(u32, SocketAddr)>),
    /// Backends by id.
    PutBackends(Vec<(u32, Backend)>),
    /// Names of service ports by id.
    PutServices(Vec<(u32, Name)>),
    /// Whole Maglev tables by id, each replaced atomically. The driver builds the words
    /// ([`super::maglev::build`]), so that one table at a time is in memory.
    PutTables(Vec<(u32, MaglevSpec)>),
    /// Frontends, each replaced atomically.
    PutFrontends(Vec<(FrontendKey, Frontend)>),
    /// Flags, each replaced atomically.
    PutFlags(Vec<(Flagged, u32)>),
    /// Frontends that are not served any more.
    DeleteFrontends(Vec<FrontendKey>),
    /// What has no flags any more.
    DeleteFlags(Vec<Flagged>),
    /// Tables that no frontend uses.
    DeleteTables(Vec<u32>),
    /// Names of service ports that no frontend uses.
    DeleteServices(Vec<u32>),
    /// Backends that nothing has referred to for a while.
    DeleteBackends(Vec<u32>),
    /// Labels that no backend has any more, with the address they were translated to, which says in which map
    /// they are.
    DeleteTranslations(Vec<(u32, SocketAddr)>),
}

/// Applies an expression to the list inside any step.
macro_rules! each {
    ($step:expr, $list:ident => $then:expr) => {
        match $step {
            Step::AddTranslations($list) => $then,
            Step::PutBackends($list) => $then,
            Step::PutServices($list) => $then,
            Step::PutTables($list) => $then,
            Step::PutFrontends($list) => $then,
            Step::PutFlags($list) => $then,
            Step::DeleteFrontends($list) => $then,
            Step::DeleteFlags($list) => $then,
            Step::DeleteTables($list) => $then,
            Step::DeleteServices($list) => $then,
            Step::DeleteBackends($list) => $then,
            Step::DeleteTranslations($list) => $then,
        }
    };
}

impl Step {
    /// Number of items; never zero in a step that [`super::Planner::next`] returned.
    #[must_use]
    pub fn len(&self) -> usize {
        each!(self, list => list.len())
    }

    /// Whether there is nothing to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The first `n` items, and what remains: for a driver that got as far as `n`.
    #[must_use]
    pub fn split_at(mut self, n: usize) -> (Self, Self) {
        let mut rest = self.clone();
        each!(&mut rest, list => drop(list.drain(..n.min(list.len()))));
        each!(&mut self, list => list.truncate(n));
        (self, rest)
    }

    /// Whether it takes away what nothing needs any more.
    #[must_use]
    pub const fn deletes(&self) -> bool {
        matches!(
            self,
            Self::DeleteFrontends(_)
                | Self::DeleteFlags(_)
                | Self::DeleteTables(_)
                | Self::DeleteServices(_)
                | Self::DeleteBackends(_)
                | Self::DeleteTranslations(_)
        )
    }

    /// What it does, for logs and metrics.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::AddTranslations(_) => "add_translations",
            Self::PutBackends(_) => "put_backends",
            Self::PutServices(_) => "put_services",
            Self::PutTables(_) => "put_tables",
            Self::PutFrontends(_) => "put_frontends",
            Self::PutFlags(_) => "put_flags",
            Self::DeleteFrontends(_) => "delete_frontends",
            Self::DeleteFlags(_) => "delete_flags",
            Self::DeleteTables(_) => "delete_tables",
            Self::DeleteServices(_) => "delete_services",
            Self::DeleteBackends(_) => "delete_backends",
            Self::DeleteTranslations(_) => "delete_translations",
        }
    }
}

/// What the kernel holds, as read by the drivers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Actual {
    /// Frontends.
    pub frontends: Vec<(FrontendKey, Frontend)>,
    /// Backends by id.
    pub backends: Vec<(u32, Backend)>,
    /// Names of service ports by id.
    pub services: Vec<(u32, Name)>,
    /// Ids under which there is a table, whatever it contains.
    pub tables: Vec<u32>,
    /// Flags, of all kinds.
    pub flags: Vec<(Flagged, u32)>,
    /// Labels and the addresses they are translated to, both families.
    pub translations: Vec<(u32, SocketAddr)>,
}

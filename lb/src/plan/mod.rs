//! What the kernel should hold, and the order in which to change it. Pure: no IO, no clock, no Kubernetes types.
//!
//! **Problem.** Packets are decided upon by eBPF maps and translated by nft maps that refer to one another and cannot
//! be changed together. The daemon may die between any two writes, and any write may fail.
//!
//! **Approach.** Events change the [`index`]. For each Service they touch, [`Planner::plan`] works out anew which
//! frontends and Maglev tables it needs ([`desired`], with the endpoints that [`eligible`] picks). The [`ledger`]
//! side keeps, for each surface, what is wanted apart from what is there ([`delta`]) and hands out the difference as
//! [`Step`]s in an order that is safe at each point. The driver performs them and reports back.
//!
//! **Invariants**, in the kernel after each step, whatever came before and whatever failed:
//! * no frontend refers to a table or service that is missing, no table to a missing backend, and no backend is
//!   without translation;
//! * a backend leaves, and its id is given to another, only after nothing has referred to it for [`QUARANTINE`];
//! * once all steps are done and quarantines have passed, the contents depend on the objects alone and not on the
//!   path that led there (but for who holds a contested frontend, and ids).
//!
//! **Units.** Time is a [`std::time::Duration`] since an arbitrary start that the caller picks.

pub mod attachments;
pub mod delta;
pub mod desired;
pub mod eligible;
pub mod facts;
pub mod health;
pub mod ids;
pub mod index;
mod ledger;
mod limits;
pub mod links;
pub mod maglev;
mod planner;
mod stale;
mod step;

pub use facts::NodeFacts;
pub use index::{Changes, Dirty, Index};
pub use ledger::{BATCH, Found, QUARANTINE};
pub use limits::Limits;
pub use maglev::MaglevSpec;
pub use planner::{FrontendView, Planner, ServiceView, TableView};
pub use stale::{Stale, Touched};
pub use step::{Actual, Flagged, Step};

/// Something of the configuration that is not served, and why.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rejection {
    /// `Service`, `EndpointSlice`, `Node`, or `source` for what could not even be read as an object.
    pub kind: &'static str,
    /// Namespace and name, or the place of a source.
    pub object: String,
    /// One line.
    pub reason: String,
}

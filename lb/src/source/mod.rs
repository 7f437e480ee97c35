//! Where objects come from: a Kubernetes API server, or manifests in a directory.
//!
//! A source sends [`Event`](crate::model::change::Event)s in the order it saw them. Deletions get lost when a watch breaks, so every source begins,
//! and begins again after a break, with a [`Reset`](crate::model::change::Change::Reset) for each kind: the whole set, replacing what was known.

pub mod kubernetes;
pub mod manifests;

//! Portico's daemon and command line.
//!
//! State flows one way: [`source`] watches objects, [`convert`] turns them into [`model`] types or rejects them,
//! [`plan`] computes what the kernel should hold and in which order to change it, [`driver`] writes it, and [`reconcile`]
//! joins the two; [`view`] puts in words what there is; [`daemon`] is the loop around all this, [`cli`] what the user
//! sees, [`config`] what he asks for. `model`, `plan` and `config` are pure: no IO, no clock, no Kubernetes types.
//!
//! Every import falls: `cli`; `daemon`; `reconcile`, `view`; `plan`, `source`; `driver`, `config`, `convert`; `model`,
//! `error`; `text`. [`log`] is where messages go, and [`text`] makes what others wrote fit for them.

pub mod cli;
pub mod config;
pub mod convert;
pub mod daemon;
pub mod driver;
pub mod error;
mod file;
pub mod log;
pub mod model;
pub mod plan;
pub mod reconcile;
pub mod source;
pub mod text;
pub mod view;

//! Portico's daemon and command line.
//!
//! State flows one way: [`source`] watches objects, [`convert`] turns them into [`model`] types or rejects them,
//! [`plan`] computes what the kernel should hold and in which order to change it, and [`driver`] writes it.
//! `model` and `plan` are pure: no IO, no clock, no Kubernetes types.

pub mod convert;
pub mod driver;
pub mod lab;
pub mod model;
pub mod plan;
pub mod source;

//! What `portico get` lists, a row each.

use std::net::SocketAddr;

use serde::Serialize;

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ServiceRow {
    pub(crate) service: String,
    pub(crate) protocol: &'static str,
    pub(crate) frontend: String,
    pub(crate) outside: String,
    pub(crate) pod: String,
    pub(crate) host: String,
    pub(crate) affinity: String,
    pub(crate) sources: &'static str,
    pub(crate) backends: usize,
}

/// A socket, by the cookie that `ss -e` shows in hexadecimal as `sk:`. Those that were closed stay until there is no
/// room for others.
#[derive(Debug, Serialize)]
pub(crate) struct SocketRow {
    pub(crate) cookie: u64,
    pub(crate) service: String,
    pub(crate) protocol: &'static str,
    pub(crate) peer: SocketAddr,
    pub(crate) backend: SocketAddr,
}

#[derive(Debug, Serialize)]
pub(crate) struct BackendRow {
    pub(crate) id: u32,
    pub(crate) label: String,
    pub(crate) address: SocketAddr,
    pub(crate) services: Vec<String>,
}

#[derive(Debug, Serialize)]
pub(crate) struct ShareRow {
    pub(crate) table: u32,
    pub(crate) backend: String,
    pub(crate) slots: usize,
    pub(crate) share: f64,
}

#[derive(Debug, Serialize)]
pub(crate) struct CounterRow {
    pub(crate) hook: String,
    pub(crate) reason: String,
    pub(crate) count: u64,
    pub(crate) help: String,
}

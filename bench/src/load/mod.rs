//! Load by real sockets: a server that sends back what it is sent, and a client that asks it on connections that stay
//! open, and on connections for one request each.
//!
//! In an open loop requests have times at which they are due, whether or not those before were answered, and delays
//! count from then: nothing is omitted while everything waits. In a closed loop the next request follows an answer, and
//! what counts is how many there are.

mod client;
mod connection;
mod outcome;
mod poller;
mod server;

pub(crate) use self::{
    client::{Brief, Client, Demand, Kept, PATIENCE},
    outcome::Outcome,
    server::Server,
};

/// Bytes of a request, and of its answer.
const MESSAGE: usize = 16;

#[cfg(test)]
mod tests;

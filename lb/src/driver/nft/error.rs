//! What can go wrong with the table.

use std::io;

use netlink_packet_core::DecodeError;

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The socket failed.
    #[error("cannot {attempt}: the netlink socket failed")]
    Socket {
        /// What was attempted.
        attempt: String,
        /// Why.
        source: io::Error,
    },
    /// The process may not.
    #[error(
        "cannot {attempt}: not permitted; CAP_NET_ADMIN is needed, and that no other process owns the table"
    )]
    Permission {
        /// What was attempted.
        attempt: String,
    },
    /// The kernel cannot.
    #[error("cannot {attempt}: the kernel has no nf_tables for family inet (CONFIG_NF_TABLES_INET)")]
    Missing {
        /// What was attempted.
        attempt: String,
        /// What it says.
        source: io::Error,
    },
    /// The kernel refused; of a transaction nothing was done.
    #[error("cannot {attempt}: the kernel refuses {subject}{}", words.as_deref().map(|words| format!(": {words}")).unwrap_or_default())]
    Refused {
        /// What was attempted.
        attempt: String,
        /// What part of it.
        subject: String,
        /// What the kernel says of it.
        words: Option<String>,
        /// Why.
        source: io::Error,
    },
    /// There was no answer in time. Whether a transaction was committed is not known.
    #[error("cannot {attempt}: no answer of the kernel within {seconds} s")]
    Deadline {
        /// What was attempted.
        attempt: String,
        /// How long it was waited for.
        seconds: u64,
    },
    /// The ruleset was changed while it was listed, again and again.
    #[error("cannot {attempt}: others change the ruleset without a pause of {seconds} s")]
    Interrupted {
        /// What was attempted.
        attempt: String,
        /// For how long it was tried.
        seconds: u64,
    },
    /// The kernel had more answers to a transaction than there was room for. Whether it was committed is not known.
    #[error("cannot {attempt}: answers of the kernel were lost")]
    Lost {
        /// What was attempted.
        attempt: String,
    },
    /// The kernel's answer is not what was asked for.
    #[error("cannot {attempt}: the kernel's answer is not understood")]
    Answer {
        /// What was attempted.
        attempt: String,
        /// The odd part.
        source: DecodeError,
    },
    /// The table does not look as it was written.
    #[error("cannot {attempt}: the table does not look as written")]
    Written {
        /// What was attempted.
        attempt: String,
    },
    /// An empty network namespace could not be had; `CAP_SYS_ADMIN` is needed.
    #[error("cannot make a network namespace to learn how the kernel lists the table")]
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

//! Asking a running daemon how it is.

use std::{
    io::{self, Read as _},
    os::{
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixStream},
    },
    time::Duration,
};

use anyhow::{Context as _, bail};
use nix::{
    sys::socket::{getsockopt, sockopt::PeerCredentials},
    unistd::getuid,
};

use super::report::Report;

/// For how long the daemon may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where the daemon of the network namespace of the calling thread answers.
pub(crate) fn address() -> io::Result<SocketAddr> {
    SocketAddr::from_abstract_name("portico")
}

/// Makes sure that a daemon could be at the other end: a process of root, or of the same user.
pub(crate) fn owner(stream: &UnixStream) -> anyhow::Result<()> {
    let peer = getsockopt(stream, PeerCredentials).context("cannot tell who has the status socket")?;
    if peer.uid() != 0 && peer.uid() != getuid().as_raw() {
        bail!("the status socket is not the daemon's: process {} of user {} has it", peer.pid(), peer.uid());
    }
    Ok(())
}

/// The report of the daemon that runs in the network namespace of the calling thread; none if there is no daemon.
///
/// # Errors
///
/// There is one, but it does not answer, or answers nonsense; or somebody else has taken its name.
pub(crate) fn query() -> anyhow::Result<Option<Report>> {
    let mut stream = match address().and_then(|address| UnixStream::connect_addr(&address)) {
        Ok(stream) => stream,
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => return Ok(None),
        Err(error) => return Err(error).context("cannot reach the daemon"),
    };
    owner(&stream)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut text = Vec::new();
    stream.read_to_end(&mut text).context("the daemon does not answer")?;
    serde_json::from_slice(&text).context("the daemon's answer is not understood").map(Some)
}

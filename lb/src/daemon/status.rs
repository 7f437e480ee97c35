//! Asking a running daemon how it is.
//!
//! The daemon answers on an abstract Unix socket, which belongs to its network namespace as everything else of it does
//! and leaves nothing behind. Whoever connects gets one JSON document.

use std::{
    io::{self, Read as _},
    os::{
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixListener as StdListener, UnixStream as StdStream},
    },
    time::Duration,
};

use anyhow::{Context as _, bail};
use tokio::{
    io::AsyncWriteExt as _,
    net::{UnixListener, UnixStream},
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::{sleep, timeout},
};
use tracing::debug;

use super::Report;

/// For how long one side waits for the other.
const PATIENCE: Duration = Duration::from_secs(5);

/// A request for a report.
pub(super) type Reply = oneshot::Sender<Report>;

/// Requests for reports, from the socket and from other parts of the daemon.
pub(super) struct Requests {
    sender: mpsc::Sender<Reply>,
    receiver: mpsc::Receiver<Reply>,
}

impl Requests {
    pub(super) async fn next(&mut self) -> Option<Reply> {
        self.receiver.recv().await
    }

    pub(super) fn sender(&self) -> mpsc::Sender<Reply> {
        self.sender.clone()
    }
}

/// Asks the daemon's loop.
pub(super) async fn ask(requests: &mpsc::Sender<Reply>) -> Option<Report> {
    let (sender, receiver) = oneshot::channel();
    requests.send(sender).await.ok()?;
    timeout(PATIENCE, receiver).await.ok()?.ok()
}

fn address() -> io::Result<SocketAddr> {
    SocketAddr::from_abstract_name("portico")
}

/// The network namespace, claimed for this process: its nft table has room for one daemon.
pub(super) struct Claim(StdListener);

/// Claims the namespace of the calling thread, until the process ends.
pub(super) fn claim() -> anyhow::Result<Claim> {
    match address().and_then(|address| StdListener::bind_addr(&address)) {
        Ok(listener) => Ok(Claim(listener)),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            bail!("another portico daemon runs in this network namespace")
        }
        Err(error) => Err(error).context("cannot open the status socket"),
    }
}

pub(super) fn serve(Claim(listener): Claim) -> anyhow::Result<(Requests, JoinHandle<()>)> {
    listener.set_nonblocking(true)?;
    let listener = UnixListener::from_std(listener)?;
    let (sender, receiver) = mpsc::channel(16);
    let requests = sender.clone();
    let task = tokio::spawn(async move {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => drop(tokio::spawn(answer(stream, requests.clone()))),
                Err(error) => {
                    // Out of descriptors, most likely: do not spin until there are some again.
                    debug!(%error, "status socket");
                    sleep(PATIENCE).await;
                }
            }
        }
    });
    Ok((Requests { sender, receiver }, task))
}

/// Tells nobody but root and the daemon's own user.
async fn answer(mut stream: UnixStream, requests: mpsc::Sender<Reply>) {
    let allowed =
        stream.peer_cred().is_ok_and(|peer| peer.uid() == 0 || peer.uid() == nix::unistd::getuid().as_raw());
    if !allowed {
        return;
    }
    let report = ask(&requests).await.and_then(|report| serde_json::to_vec(&report).ok());
    if let Some(report) = report {
        // A client that went away needs no answer.
        let _ = timeout(PATIENCE, stream.write_all(&report)).await;
    }
}

/// The report of the daemon that runs in the network namespace of the calling thread; none if there is no daemon.
///
/// # Errors
///
/// There is one, but it does not answer, or answers nonsense.
pub fn query() -> anyhow::Result<Option<Report>> {
    let mut stream = match address().and_then(|address| StdStream::connect_addr(&address)) {
        Ok(stream) => stream,
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => return Ok(None),
        Err(error) => return Err(error).context("cannot reach the daemon"),
    };
    stream.set_read_timeout(Some(2 * PATIENCE))?;
    let mut text = Vec::new();
    stream.read_to_end(&mut text).context("the daemon does not answer")?;
    serde_json::from_slice(&text).context("the daemon's answer is not understood").map(Some)
}

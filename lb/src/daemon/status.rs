//! Answering who asks how the daemon is.
//!
//! The daemon answers on an abstract Unix socket, which belongs to its network namespace as everything else of it does
//! and leaves nothing behind. Whoever connects gets one JSON document.

use std::{
    io,
    os::unix::net::{UnixListener as StdListener, UnixStream as StdStream},
    time::Duration,
};

use anyhow::{Context as _, bail};
use nix::unistd::getuid;
use tokio::{
    io::AsyncWriteExt as _,
    net::{UnixListener, UnixStream},
    sync::{mpsc, oneshot},
    time::{sleep, timeout},
};
use tracing::{debug, warn};

use crate::view::{Report, address, owner};

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

/// The network namespace, claimed for this process: its nft table has room for one daemon. Without the socket if an
/// unprivileged process has taken its name, as any process of the namespace can: that is no reason not to balance load.
pub(super) struct Claim(Option<StdListener>);

/// Claims the namespace of the calling thread, until the process ends.
pub(super) fn claim() -> anyhow::Result<Claim> {
    match listen() {
        Ok(listener) => Ok(Claim(Some(listener))),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            let holder = address().and_then(|address| StdStream::connect_addr(&address));
            if holder.is_ok_and(|stream| owner(&stream).is_ok()) {
                bail!("another portico daemon runs in this network namespace");
            }
            Ok(Claim(None))
        }
        Err(error) => Err(error).context("cannot open the status socket"),
    }
}

fn listen() -> io::Result<StdListener> {
    let listener = StdListener::bind_addr(&address()?)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

impl Requests {
    pub(super) fn new() -> Self {
        let (sender, receiver) = mpsc::channel(16);
        Self { sender, receiver }
    }
}

/// Wait before a name that could not be had is tried again.
const RETRY: Duration = Duration::from_secs(10);

/// Serves until the task is aborted.
pub(super) async fn serve(Claim(mut claimed): Claim, requests: mpsc::Sender<Reply>) {
    let listener = loop {
        let listener = claimed.take().map_or_else(listen, Ok);
        match listener.and_then(UnixListener::from_std) {
            Ok(listener) => break listener,
            Err(error) => warn!(%error, "cannot open the status socket, will try again"),
        }
        sleep(RETRY).await;
    };
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
}

/// Tells nobody but root and the daemon's own user.
async fn answer(mut stream: UnixStream, requests: mpsc::Sender<Reply>) {
    let allowed = stream.peer_cred().is_ok_and(|peer| peer.uid() == 0 || peer.uid() == getuid().as_raw());
    if !allowed {
        return;
    }
    let report = ask(&requests).await.and_then(|report| serde_json::to_vec(&report).ok());
    if let Some(report) = report {
        // A client that went away needs no answer.
        let _ = timeout(PATIENCE, stream.write_all(&report)).await;
    }
}

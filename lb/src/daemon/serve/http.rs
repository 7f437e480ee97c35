//! As much of an HTTP server as health checks and scrapers ask for.

use std::{
    convert::Infallible,
    io,
    net::{Ipv6Addr, SocketAddr},
    time::Duration,
};

use http_body_util::Full;
use hyper::{
    Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{CONTENT_TYPE, HeaderName, HeaderValue, X_CONTENT_TYPE_OPTIONS},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use nix::sys::socket::{setsockopt, sockopt::Ipv6V6Only};
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    task::JoinSet,
    time::sleep,
};
use tracing::debug;

/// What is answered.
pub(super) type Answer = Response<Full<Bytes>>;

pub(super) const JSON: HeaderValue = HeaderValue::from_static("application/json");
pub(super) const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// Wait for descriptors when there are none.
const EXHAUSTED: Duration = Duration::from_secs(1);
/// For the head of a request, the time between two on one connection included.
const PATIENCE: Duration = Duration::from_secs(30);
/// Connections at a time; others wait in the backlog. Anybody can connect, and the daemon has other uses for
/// descriptors.
const CONNECTIONS: usize = 256;
const BACKLOG: u32 = 128;

/// An answer with the headers that kube-proxy's have.
pub(super) fn answer(code: StatusCode, kind: HeaderValue, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = code;
    answer.headers_mut().insert(CONTENT_TYPE, kind);
    answer.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}

/// For a path that is not served.
pub(super) fn not_found() -> Answer {
    answer(StatusCode::NOT_FOUND, TEXT, "404 page not found\n")
}

/// Adds a header with a number.
pub(super) fn with_number(mut answer: Answer, name: &'static str, number: usize) -> Answer {
    answer.headers_mut().insert(HeaderName::from_static(name), HeaderValue::from(number));
    answer
}

/// Takes an address; the unspecified one of either family stands for both, as in Go.
///
/// # Errors
///
/// Somebody has it, or the host does not.
pub(super) fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    if !address.ip().is_unspecified() {
        return bind_exactly(address);
    }
    let any = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), address.port());
    match listen(any, false) {
        Err(error) if address.is_ipv4() && lacks_ipv6(&error) => bind_exactly(address),
        outcome => outcome,
    }
}

/// Takes an address; the unspecified one stands for its own family.
///
/// # Errors
///
/// Somebody has it, or the host does not.
pub(super) fn bind_exactly(address: SocketAddr) -> io::Result<TcpListener> {
    listen(address, true)
}

fn listen(address: SocketAddr, one_family: bool) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        let socket = TcpSocket::new_v6()?;
        setsockopt(&socket, Ipv6V6Only, &one_family)?;
        socket
    };
    // Connections of a former process may linger.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

fn lacks_ipv6(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL))
}

/// Serves until the task is aborted, which ends the connections, too.
pub(super) async fn serve<F: Future<Output = Answer> + Send + 'static>(
    listener: TcpListener,
    handler: impl Fn(Request<Incoming>) -> F + Clone + Send + 'static,
) {
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        if connections.len() >= CONNECTIONS {
            connections.join_next().await;
            continue;
        }
        match listener.accept().await {
            Ok((stream, _)) => drop(connections.spawn(connection(stream, handler.clone()))),
            Err(error) => {
                debug!(%error, "cannot accept a connection");
                sleep(EXHAUSTED).await;
            }
        }
    }
}

async fn connection<F: Future<Output = Answer> + Send>(
    stream: TcpStream,
    handler: impl Fn(Request<Incoming>) -> F,
) {
    let service = service_fn(move |request| {
        let answer = handler(request);
        async { Ok::<_, Infallible>(answer.await) }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(PATIENCE);
    if let Err(error) = builder.serve_connection(TokioIo::new(stream), service).await {
        debug!(%error, "connection");
    }
}

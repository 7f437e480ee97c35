//! A small API server: lists in pages, watches with versions and bookmarks, creates, replaces and deletes. On top of
//! what a real one does it has switches for what a real one does on a bad day.
//!
//! Not modelled: validation, defaults other than the cluster IP, authentication, subresources, finalizers.

use std::{
    collections::{BTreeMap, HashMap},
    convert::Infallible,
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
};

use http_body_util::{BodyExt as _, Full, StreamBody, combinators::BoxBody};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Frame, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    sync::watch,
    task::{AbortHandle, JoinHandle},
};

type Body = BoxBody<Bytes, io::Error>;

/// Plural, `apiVersion` and kind of what is served.
const KINDS: [(&str, &str, &str); 5] = [
    ("services", "v1", "Service"),
    ("endpointslices", "discovery.k8s.io/v1", "EndpointSlice"),
    ("nodes", "v1", "Node"),
    ("namespaces", "v1", "Namespace"),
    ("servicecidrs", "networking.k8s.io/v1", "ServiceCIDR"),
];

/// The server; gone when dropped.
pub(crate) struct Server {
    address: SocketAddr,
    state: Arc<State>,
    listener: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct State {
    store: Mutex<Store>,
    /// The newest version.
    version: watch::Sender<u64>,
    connections: Mutex<Vec<AbortHandle>>,
    faults: Faults,
}

#[derive(Default)]
struct Store {
    /// By plural, namespace and name.
    objects: BTreeMap<(String, String, String), Value>,
    history: Vec<Change>,
    /// Changes up to this version are forgotten.
    forgotten: u64,
}

struct Change {
    version: u64,
    plural: String,
    old: Option<Value>,
    new: Option<Value>,
}

/// What goes wrong.
#[derive(Default)]
struct Faults {
    internal_error: AtomicBool,
    /// Plural, and the status with which requests for it are answered.
    refused: Mutex<Option<(String, u16)>>,
    /// Watch requests still to be answered with status 410.
    gone: AtomicUsize,
    /// List pages still to be answered with status 410, if they continue a list.
    expired: AtomicUsize,
    cut_event: AtomicUsize,
    requests: Mutex<Vec<String>>,
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::serve(TcpListener::bind("127.0.0.1:0").await.expect("bind"))
    }

    /// On a socket that may belong to another network namespace. To be called within a runtime.
    pub(crate) fn serve(listener: TcpListener) -> Self {
        let address = listener.local_addr().expect("address");
        let state = Arc::<State>::default();
        state.version.send_replace(100);
        let listener = Some(tokio::spawn(accept(listener, Arc::clone(&state))));
        Self { address, state, listener }
    }

    /// Refuses connections from now on, and breaks those there are.
    pub(crate) async fn stop(&mut self) {
        if let Some(listener) = self.listener.take() {
            listener.abort();
            assert!(listener.await.is_err(), "a listener runs until it is aborted");
        }
        self.drop_connections();
    }

    /// Undoes [`Self::stop`].
    pub(crate) async fn resume(&mut self) {
        let listener = TcpListener::bind(self.address).await.expect("bind again");
        self.listener = Some(tokio::spawn(accept(listener, Arc::clone(&self.state))));
    }

    /// Breaks all connections.
    pub(crate) fn drop_connections(&self) {
        for connection in self.state.connections.lock().expect("lock").drain(..) {
            connection.abort();
        }
    }

    /// Answers everything with status 500.
    pub(crate) fn internal_error(&self, on: bool) {
        self.state.faults.internal_error.store(on, SeqCst);
    }

    /// Answers requests for a plural with a status: 403 if it is forbidden, 404 if there is no such kind.
    pub(crate) fn refuse(&self, plural: Option<(&str, u16)>) {
        *self.state.faults.refused.lock().expect("lock") =
            plural.map(|(plural, code)| (plural.to_owned(), code));
    }

    /// Answers the next watch requests with status 410.
    pub(crate) fn gone(&self, requests: usize) {
        self.state.faults.gone.store(requests, SeqCst);
    }

    /// Answers the next requests for a further page of a list with status 410.
    pub(crate) fn expire_pages(&self, requests: usize) {
        self.state.faults.expired.store(requests, SeqCst);
    }

    /// Breaks the connection in the middle of the next event.
    pub(crate) fn cut_next_event(&self) {
        self.state.faults.cut_event.store(1, SeqCst);
    }

    /// Forgets all changes up to now, so that a watch from an older version gets an event with code 410.
    pub(crate) fn forget(&self) {
        let mut store = self.state.store.lock().expect("lock");
        store.forgotten = *self.state.version.borrow();
        store.history.clear();
    }

    /// The requests so far, as path and query, and forgets them.
    pub(crate) fn take_requests(&self) -> Vec<String> {
        std::mem::take(&mut self.state.faults.requests.lock().expect("lock"))
    }

    /// Creates or replaces an object.
    pub(crate) fn put(&self, plural: &str, namespace: &str, name: &str, object: Value) {
        self.state.change(plural, namespace, name, Some(object));
    }

    /// Removes an object behind the back of everyone.
    pub(crate) fn delete(&self, plural: &str, namespace: &str, name: &str) {
        self.state.change(plural, namespace, name, None);
    }

    /// Writes a kubeconfig for this server into a directory.
    pub(crate) fn kubeconfig(&self, directory: &Path) -> PathBuf {
        let path = directory.join("kubeconfig");
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "c",
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "clusters": [{"name": "c", "cluster": {"server": format!("http://{}", self.address)}}],
            "users": [{"name": "u", "user": {}}],
        });
        std::fs::write(&path, config.to_string()).expect("write");
        path
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(listener) = &self.listener {
            listener.abort();
        }
        self.drop_connections();
    }
}

async fn accept(listener: TcpListener, state: Arc<State>) {
    loop {
        let (stream, _) = listener.accept().await.expect("accept");
        let answering = Arc::clone(&state);
        let service = service_fn(move |request| answer(Arc::clone(&answering), request));
        let connection = tokio::spawn(async move {
            // A broken connection is what some tests are about.
            drop(http1::Builder::new().serve_connection(TokioIo::new(stream), service).await);
        });
        state.connections.lock().expect("lock").push(connection.abort_handle());
    }
}

async fn answer(state: Arc<State>, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let (parts, body) = request.into_parts();
    let query: HashMap<String, String> = parts
        .uri
        .query()
        .unwrap_or_default()
        .split('&')
        .filter_map(|p| p.split_once('='))
        .map(decode)
        .collect();
    let segments: Vec<_> = parts.uri.path().split('/').filter(|s| !s.is_empty()).collect();
    state.faults.requests.lock().expect("lock").push(parts.uri.to_string());
    let rest = match segments.as_slice() {
        ["api", "v1", rest @ ..] | ["apis", "discovery.k8s.io" | "networking.k8s.io", "v1", rest @ ..] => {
            rest
        }
        _ => return Ok(status(404, "no such path")),
    };
    let (namespace, plural, name) = match rest {
        ["namespaces", namespace, plural, name @ ..] => (*namespace, *plural, name.first().copied()),
        [plural, name @ ..] => ("", *plural, name.first().copied()),
        [] => return Ok(status(404, "no such path")),
    };
    if state.faults.internal_error.load(SeqCst) {
        return Ok(status(500, "a bad day"));
    }
    match state.faults.refused.lock().expect("lock").as_ref() {
        Some((refused, 403)) if refused == plural => {
            return Ok(status(403, &format!("{plural} is forbidden")));
        }
        Some((refused, code)) if refused == plural => return Ok(status(*code, "no such kind")),
        _ => {}
    }
    let body = body.collect().await.map(|b| b.to_bytes()).unwrap_or_default();
    let object = || serde_json::from_slice::<Value>(&body).expect("a JSON body");
    let asked = |key: &str| query.get(key).is_some_and(|v| v == "true" || v == "1");
    Ok(match (&parts.method, name) {
        (&Method::GET, None) if asked("watch") => state.watch(plural, &query),
        (&Method::GET, None) => state.list(plural, &query),
        (&Method::GET, Some(name)) => match state.get(plural, namespace, name) {
            Some(object) => reply(200, &object),
            None => status(404, "not found"),
        },
        (&Method::POST, None) => {
            let object = object();
            let name = object["metadata"]["name"].as_str().expect("a name").to_owned();
            if state.get(plural, namespace, &name).is_some() {
                return Ok(status(409, "already exists"));
            }
            reply(201, &state.change(plural, namespace, &name, Some(object)).expect("the new object"))
        }
        (&Method::PUT, Some(name)) if state.get(plural, namespace, name).is_some() => {
            reply(200, &state.change(plural, namespace, name, Some(object())).expect("the new object"))
        }
        (&Method::DELETE, Some(name)) if state.get(plural, namespace, name).is_some() => {
            state.change(plural, namespace, name, None);
            reply(200, &json!({"kind": "Status", "apiVersion": "v1", "status": "Success"}))
        }
        _ => status(404, "not found"),
    })
}

impl State {
    fn get(&self, plural: &str, namespace: &str, name: &str) -> Option<Value> {
        let key = (plural.to_owned(), namespace.to_owned(), name.to_owned());
        self.store.lock().expect("lock").objects.get(&key).cloned()
    }

    /// Stores or deletes an object, and returns it as it was stored.
    fn change(&self, plural: &str, namespace: &str, name: &str, new: Option<Value>) -> Option<Value> {
        let mut store = self.store.lock().expect("lock");
        let version = *self.version.borrow() + 1;
        let key = (plural.to_owned(), namespace.to_owned(), name.to_owned());
        let old = store.objects.get(&key).cloned();
        let (_, api_version, kind) = KINDS.iter().find(|k| k.0 == plural).expect("a kind that is served");
        let new = new.map(|mut new| {
            new["apiVersion"] = json!(api_version);
            new["kind"] = json!(kind);
            new["metadata"]["resourceVersion"] = json!(version.to_string());
            new["metadata"]["creationTimestamp"] = json!("2026-01-01T00:00:00Z");
            if !namespace.is_empty() {
                new["metadata"]["namespace"] = json!(namespace);
            }
            if plural == "services" && new["spec"]["clusterIP"].is_null() {
                let ip = old.as_ref().map(|o| o["spec"]["clusterIP"].clone());
                new["spec"]["clusterIP"] = ip.unwrap_or_else(|| json!(format!("10.96.0.{}", version % 256)));
            }
            new
        });
        match &new {
            Some(new) => store.objects.insert(key, new.clone()),
            None => store.objects.remove(&key),
        };
        store.history.push(Change { version, plural: plural.to_owned(), old, new: new.clone() });
        drop(store);
        self.version.send_replace(version);
        new
    }

    fn list(&self, plural: &str, query: &HashMap<String, String>) -> Response<Body> {
        let start = query.get("continue").map(String::as_str).filter(|c| !c.is_empty());
        if start.is_some() && take_one(&self.faults.expired) {
            return status(410, "the continue token has expired");
        }
        let store = self.store.lock().expect("lock");
        let items: Vec<_> =
            store.objects.iter().filter(|((p, ..), o)| p == plural && selects(query, o)).collect();
        let start: usize = start.map_or(0, |s| s.parse().expect("our own token"));
        let limit = query.get("limit").and_then(|l| l.parse().ok()).filter(|l| *l > 0).unwrap_or(usize::MAX);
        let page: Vec<_> = items.iter().skip(start).take(limit).map(|(_, o)| (*o).clone()).collect();
        let next = start.saturating_add(page.len());
        let token = if next < items.len() { next.to_string() } else { String::new() };
        let (_, api_version, kind) = KINDS.iter().find(|k| k.0 == plural).expect("a kind that is served");
        reply(
            200,
            &json!({
                "apiVersion": api_version,
                "kind": format!("{kind}List"),
                "metadata": {"resourceVersion": self.version.borrow().to_string(), "continue": token},
                "items": page,
            }),
        )
    }

    fn watch(self: &Arc<Self>, plural: &str, query: &HashMap<String, String>) -> Response<Body> {
        if take_one(&self.faults.gone) {
            return status(410, "too old resource version");
        }
        let since = query.get("resourceVersion").and_then(|v| v.parse().ok()).unwrap_or(0);
        let watcher = Watcher {
            state: Arc::clone(self),
            changed: self.version.subscribe(),
            plural: plural.to_owned(),
            query: query.clone(),
            since,
            end: None,
        };
        let events =
            futures::stream::unfold(watcher, |mut w| async { w.next().await.map(|event| (event, w)) });
        Response::new(StreamBody::new(events).boxed())
    }
}

struct Watcher {
    state: Arc<State>,
    changed: watch::Receiver<u64>,
    plural: String,
    query: HashMap<String, String>,
    since: u64,
    end: Option<End>,
}

/// How a watch ends after what was sent last.
enum End {
    Orderly,
    Cut,
}

impl Watcher {
    /// The next piece of the response, which holds all events there are.
    async fn next(&mut self) -> Option<Result<Frame<Bytes>, io::Error>> {
        match self.end {
            None => {}
            Some(End::Orderly) => return None,
            Some(End::Cut) => {
                // What was sent before gets out only when there is nothing more to send for the moment.
                tokio::task::yield_now().await;
                return Some(Err(io::Error::other("cut")));
            }
        }
        loop {
            let now = *self.changed.borrow_and_update();
            let mut text = self.events(now);
            if self.since < now
                && self.end.is_none()
                && self.query.get("allowWatchBookmarks").is_some_and(|b| b == "true")
            {
                let (_, api_version, kind) =
                    KINDS.iter().find(|k| k.0 == self.plural).expect("a kind that is served");
                let metadata = json!({"resourceVersion": now.to_string(), "creationTimestamp": null});
                text += &event(
                    "BOOKMARK",
                    &json!({"apiVersion": api_version, "kind": kind, "metadata": metadata}),
                );
            }
            self.since = self.since.max(now);
            if !text.is_empty() {
                return Some(Ok(Frame::data(Bytes::from(text))));
            }
            self.changed.changed().await.ok()?;
        }
    }

    fn events(&mut self, now: u64) -> String {
        let store = self.state.store.lock().expect("lock");
        if self.since < store.forgotten {
            self.end = Some(End::Orderly);
            let message = "too old resource version";
            return event(
                "ERROR",
                &json!({"kind": "Status", "status": "Failure", "code": 410, "reason": "Expired", "message": message}),
            );
        }
        let mut text = String::new();
        for change in &store.history {
            if change.plural != self.plural || change.version <= self.since || change.version > now {
                continue;
            }
            let selected = |o: &Option<Value>| o.clone().filter(|o| selects(&self.query, o));
            let line = match (selected(&change.old), selected(&change.new)) {
                (None, Some(new)) => event("ADDED", &new),
                (Some(_), Some(new)) => event("MODIFIED", &new),
                (Some(mut old), None) => {
                    old["metadata"]["resourceVersion"] = json!(change.version.to_string());
                    event("DELETED", &old)
                }
                (None, None) => continue,
            };
            if take_one(&self.state.faults.cut_event) {
                self.end = Some(End::Cut);
                text += &line[..line.len() / 2];
                break;
            }
            text += &line;
        }
        text
    }
}

fn event(kind: &str, object: &Value) -> String {
    format!("{}\n", json!({"type": kind, "object": object}))
}

/// Whether the selectors of a request select an object: `!label`, `label=value` and `metadata.name=NAME`.
fn selects(query: &HashMap<String, String>, object: &Value) -> bool {
    let labels = query.get("labelSelector").into_iter().flat_map(|s| s.split(',')).filter(|s| !s.is_empty());
    let fields = query.get("fieldSelector").into_iter().flat_map(|s| s.split(',')).filter(|s| !s.is_empty());
    let label = |key: &str| object["metadata"]["labels"][key].as_str();
    labels.map(|l| (l, l.split_once('='))).all(|(l, pair)| match pair {
        Some((key, value)) => label(key) == Some(value),
        None => label(l.strip_prefix('!').expect("an absent label")).is_none(),
    }) && fields
        .map(|f| f.strip_prefix("metadata.name=").expect("a name"))
        .all(|name| object["metadata"]["name"] == name)
}

fn take_one(counter: &AtomicUsize) -> bool {
    counter.fetch_update(SeqCst, SeqCst, |n| n.checked_sub(1)).is_ok()
}

fn decode((key, value): (&str, &str)) -> (String, String) {
    let mut bytes = Vec::new();
    let mut rest = value.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let hex: Vec<u8> = rest.by_ref().take(2).collect();
                u8::from_str_radix(&String::from_utf8_lossy(&hex), 16).expect("two hexadecimal digits")
            }
            b'+' => b' ',
            other => other,
        });
    }
    (key.to_owned(), String::from_utf8(bytes).expect("UTF-8"))
}

fn reply(code: u16, value: &Value) -> Response<Body> {
    let body = Full::from(value.to_string()).map_err(|never| match never {}).boxed();
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(code).expect("a status code");
    response.headers_mut().insert("content-type", "application/json".parse().expect("a header"));
    response
}

fn status(code: u16, message: &str) -> Response<Body> {
    let reason = if code == 410 { "Expired" } else { "Other" };
    let value = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": message});
    reply(code, &value)
}

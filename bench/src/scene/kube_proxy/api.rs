//! An API server in which nothing changes.

use std::{
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::Context as _;
use lab::{Netns, Spawned, manifest::NAMESPACE};
use serde_json::{Value, json};

use super::NODE;
use crate::scene::objects::{Family, PORT, Services, TARGET};

/// How often it looks whether it is to stop.
const LOOK: Duration = Duration::from_millis(50);

/// What is served, by resource.
struct Lists([(&'static str, Value); 4]);

/// Runs until it is dropped.
pub(super) struct Api {
    port: u16,
    _thread: Spawned,
}

impl Api {
    /// On the loopback of a namespace.
    pub(super) fn start(ns: &Netns, services: &Services) -> anyhow::Result<Self> {
        let listener = ns.run(|| {
            let listener = TcpListener::bind("127.0.0.1:0")?;
            listener.set_nonblocking(true)?;
            Ok::<_, io::Error>(listener)
        })?;
        let listener = listener.context("cannot listen on a loopback")?;
        let port = listener.local_addr()?.port();
        let lists = Arc::new(Lists::of(services));
        let thread = ns.spawn("api", move |stop| {
            while !stop.load(Ordering::Relaxed) {
                let Ok((stream, _)) = listener.accept() else {
                    thread::sleep(LOOK);
                    continue;
                };
                let (lists, stop) = (Arc::clone(&lists), Arc::clone(stop));
                // A connection that fails is the client's to notice.
                thread::spawn(move || serve(stream, &lists, &stop));
            }
        })?;
        Ok(Self { port, _thread: thread })
    }

    pub(super) const fn port(&self) -> u16 {
        self.port
    }
}

impl Lists {
    fn of(services: &Services) -> Self {
        let (mut all, mut slices) = (Vec::new(), Vec::new());
        let family = if services.family == Family::V4 { "IPv4" } else { "IPv6" };
        let protocol = services.protocol().to_uppercase();
        for number in 0..services.number {
            let (name, address) = (format!("service-{number}"), services.address(number).to_string());
            all.push(json!({
                "metadata": { "name": name, "namespace": NAMESPACE, "uid": name, "resourceVersion": "1" },
                "spec": {
                    "type": "ClusterIP", "clusterIP": address, "clusterIPs": [address], "ipFamilies": [family],
                    "ports": [{ "name": "main", "protocol": protocol, "port": PORT, "targetPort": TARGET }],
                },
            }));
            let endpoints = services.endpoints(number).map(
                |address| json!({ "addresses": [address.to_string()], "conditions": { "ready": true } }),
            );
            slices.push(json!({
                "metadata": {
                    "name": format!("{name}-1"), "namespace": NAMESPACE, "uid": format!("{name}-1"),
                    "resourceVersion": "1", "labels": { "kubernetes.io/service-name": name },
                },
                "addressType": family,
                "ports": [{ "name": "main", "protocol": protocol, "port": TARGET }],
                "endpoints": endpoints.collect::<Vec<_>>(),
            }));
        }
        let node = json!({
            "metadata": { "name": NODE, "uid": NODE, "resourceVersion": "1" },
            "status": { "addresses": [
                { "type": "InternalIP", "address": "198.51.100.1" },
                { "type": "InternalIP", "address": "2001:db8:c::1" },
            ] },
        });
        Self([
            ("services", list("v1", "ServiceList", all)),
            ("endpointslices", list("discovery.k8s.io/v1", "EndpointSliceList", slices)),
            ("nodes", list("v1", "NodeList", vec![node])),
            ("servicecidrs", list("networking.k8s.io/v1", "ServiceCIDRList", Vec::new())),
        ])
    }

    /// The status and the body of an answer; no body: a watch.
    fn answer(&self, method: &str, target: &str) -> (&'static str, Option<Value>) {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        if method != "GET" {
            return (
                "201 Created",
                Some(json!({ "kind": "Status", "apiVersion": "v1", "status": "Success" })),
            );
        }
        let mut parts = path.rsplit('/');
        let (last, before) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let find = |name| self.0.iter().find(|(resource, _)| *resource == name).map(|(_, list)| list);
        if let Some(list) = find(last) {
            // Clients that would have the list in the watch ask for a list when that is refused.
            if query.contains("sendInitialEvents=true") {
                return ("400 Bad Request", Some(status("BadRequest", 400)));
            }
            return ("200 OK", (!query.contains("watch=")).then(|| list.clone()));
        }
        let named = |object: &&Value| object.pointer("/metadata/name").and_then(Value::as_str) == Some(last);
        let items = find(before).and_then(|list| list.get("items")?.as_array());
        match items.and_then(|items| items.iter().find(named)) {
            Some(object) => ("200 OK", Some(object.clone())),
            None => ("404 Not Found", Some(status("NotFound", 404))),
        }
    }
}

fn list(version: &str, kind: &str, items: Vec<Value>) -> Value {
    let mut all = json!({ "apiVersion": version, "kind": kind, "metadata": { "resourceVersion": "1" } });
    let kind = kind.trim_end_matches("List");
    let items = items.into_iter().map(|mut item| {
        item["apiVersion"] = version.into();
        item["kind"] = kind.into();
        item
    });
    all["items"] = items.collect();
    all
}

fn status(reason: &str, code: u16) -> Value {
    json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "code": code })
}

/// Answers what comes on a connection, until a watch.
fn serve(stream: TcpStream, lists: &Lists, stop: &AtomicBool) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(Duration::from_secs(300)))?;
    let mut reader = BufReader::new(stream);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let mut words = line.split_whitespace();
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let mut length = 0;
        loop {
            let mut header = String::new();
            reader.read_line(&mut header)?;
            let Some((name, value)) = header.split_once(':') else { break };
            if name.eq_ignore_ascii_case("content-length") {
                length = value.trim().parse().unwrap_or(0);
            }
        }
        io::copy(&mut (&mut reader).take(length), &mut io::sink())?;
        let (status, body) = lists.answer(method, target);
        let head = format!("HTTP/1.1 {status}\r\nContent-Type: application/json\r\n");
        let stream = reader.get_mut();
        let Some(body) = body else {
            stream.write_all(format!("{head}Transfer-Encoding: chunked\r\n\r\n").as_bytes())?;
            while !stop.load(Ordering::Relaxed) {
                thread::sleep(LOOK);
            }
            return Ok(());
        };
        let body = body.to_string();
        stream.write_all(format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).as_bytes())?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: Services =
        Services { family: Family::V4, udp: false, number: 2, endpoints: 3, masquerade: false };

    #[test]
    fn lists_watches_and_objects_are_told_apart() {
        let lists = Lists::of(&TWO);
        let get = |target| lists.answer("GET", target);
        let (status, body) = get("/api/v1/services?limit=500&resourceVersion=0");
        let body = body.unwrap();
        assert_eq!((status, body["items"].as_array().unwrap().len()), ("200 OK", 2));
        assert_eq!(body["items"][1]["spec"]["clusterIP"], "10.0.1.1");
        assert_eq!(get("/api/v1/services?watch=true&resourceVersion=1"), ("200 OK", None));
        assert_eq!(get("/api/v1/services?sendInitialEvents=true&watch=true").0, "400 Bad Request");
        assert_eq!(get("/api/v1/nodes/gateway").1.unwrap()["kind"], "Node");
        assert_eq!(get("/api/v1/nodes/other").0, "404 Not Found");
        let slices = get("/apis/discovery.k8s.io/v1/endpointslices").1.unwrap();
        assert_eq!(slices["items"][0]["endpoints"][2]["addresses"][0], "172.16.1.2");
        assert_eq!(lists.answer("POST", "/apis/events.k8s.io/v1/namespaces/default/events").0, "201 Created");
    }

    #[test]
    fn connections_are_answered_again_and_again() {
        assert!(nix::unistd::geteuid().is_root(), "this test makes network namespaces and must run as root");
        let ns = Netns::new("api").unwrap();
        let api = Api::start(&ns, &TWO).unwrap();
        let port = api.port();
        let mut stream = ns.run(move || TcpStream::connect(("127.0.0.1", port)).unwrap()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        for _ in 0..2 {
            stream.write_all(b"GET /api/v1/nodes/gateway HTTP/1.1\r\nHost: api\r\n\r\n").unwrap();
            let mut buffer = [0; 4096];
            let length = stream.read(&mut buffer).unwrap();
            let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
            assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
        }
    }
}

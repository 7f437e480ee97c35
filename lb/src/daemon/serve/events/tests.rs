use std::sync::Mutex;

use http_body_util::{BodyExt as _, Full};
use hyper::{Method, Response, StatusCode};
use kube::Config;
use serde_json::{Value, json};

use super::*;
use crate::daemon::serve::http;

fn notice(name: &str, note: &str) -> Notice {
    Notice {
        about: About::Object { kind: "Service", name: ObjectName::new("default", name) },
        normal: false,
        reason: "ObjectRejected",
        action: "Convert",
        note: note.to_owned(),
    }
}

#[test]
fn the_same_is_told_once_in_a_while() {
    let start = Instant::now();
    let mut filter = Filter::new(start);
    assert!(filter.admits(&notice("a", "x"), start));
    assert!(!filter.admits(&notice("a", "x"), start + QUIET / 2));
    assert!(filter.admits(&notice("a", "y"), start + QUIET / 2));
    assert!(filter.admits(&notice("b", "x"), start + QUIET / 2));
    assert!(filter.admits(&notice("a", "x"), start + QUIET));
}

#[test]
fn many_at_once_are_cut_short() {
    let start = Instant::now();
    let mut filter = Filter::new(start);
    let mut admitted =
        |from: u32, at| (from..from + 100).filter(|n| filter.admits(&notice(&n.to_string(), ""), at)).count();
    assert_eq!(admitted(0, start), BURST as usize);
    assert_eq!(admitted(100, start + REFILL / 2), 0);
    assert_eq!(admitted(200, start + REFILL * 3), 3);
    assert_eq!(admitted(300, start + REFILL * 3_000), BURST as usize);
}

#[test]
fn notes_are_cut_to_what_is_allowed() {
    assert_eq!(shortened("short"), "short");
    let long = "ä".repeat(NOTE);
    let cut = shortened(&long);
    assert!(cut.len() <= NOTE && cut.ends_with("ä..."), "{cut}");
}

/// Answers lists with one object and takes what is posted.
async fn api_server(requests: Arc<Mutex<Vec<(Method, String, Value)>>>) -> Client {
    let listener = http::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(http::serve(listener, move |request| {
        let requests = Arc::clone(&requests);
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            let object: Value = serde_json::from_slice(&body).unwrap_or_default();
            let answer = match head.method {
                Method::GET => json!({
                    "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadataList", "metadata": {},
                    "items": [{
                        "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata",
                        "metadata": { "name": "web", "uid": "u-1" },
                    }],
                }),
                _ => object.clone(),
            };
            requests.lock().unwrap().push((head.method, head.uri.to_string(), object));
            let mut response = Response::new(Full::from(answer.to_string()));
            *response.status_mut() = StatusCode::OK;
            response
        }
    }));
    Client::try_from(Config::new(url.parse().unwrap())).unwrap()
}

#[tokio::test]
async fn events_name_the_object_so_that_describe_finds_them() {
    let requests = Arc::default();
    let events = Events::publish_with("gateway", api_server(Arc::clone(&requests)).await);
    for _ in 0..3 {
        events.tell(notice("web", "port 0"));
    }
    events.tell(Notice { about: About::Node, normal: true, ..notice("", "started") });
    let posted = async {
        loop {
            let all: Vec<_> = requests.lock().unwrap().clone();
            let posted: Vec<_> = all.into_iter().filter(|(method, ..)| method == Method::POST).collect();
            if posted.len() == 2 {
                return posted;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let posted = timeout(Duration::from_secs(20), posted).await.unwrap();

    let (_, path, event) = &posted[0];
    assert!(path.starts_with("/apis/events.k8s.io/v1/namespaces/default/events"), "{path}");
    let about =
        json!({ "apiVersion": "v1", "kind": "Service", "namespace": "default", "name": "web", "uid": "u-1" });
    assert_eq!(event["regarding"], about);
    assert_eq!((&event["type"], &event["reason"]), (&json!("Warning"), &json!("ObjectRejected")));
    assert_eq!((&event["note"], &event["action"]), (&json!("port 0"), &json!("Convert")));
    assert_eq!(event["reportingController"], "portico");
    assert_eq!(event["reportingInstance"], "portico-gateway");

    let (_, path, event) = &posted[1];
    assert!(path.starts_with("/apis/events.k8s.io/v1/namespaces/default/events"), "{path}");
    assert_eq!(
        event["regarding"],
        json!({ "apiVersion": "v1", "kind": "Node", "name": "gateway", "uid": "gateway" })
    );
    assert_eq!(event["type"], "Normal");
}

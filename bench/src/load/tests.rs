use std::time::{Duration, Instant};

use lab::Netns;

use super::{Brief, Client, Demand, Kept, Outcome, Server};

const PORT: u16 = 8080;

fn lab() -> (Netns, Server) {
    assert!(nix::unistd::geteuid().is_root(), "this test makes network namespaces and must run as root");
    let ns = Netns::new("load").unwrap();
    let server = Server::start(&ns, &[PORT]).unwrap();
    (ns, server)
}

fn run(ns: &Netns, kept: Kept, brief: Brief, port: u16) -> Outcome {
    let from = "127.0.0.2".parse().unwrap();
    let to = ([127, 0, 0, 1], port).into();
    let mut client = Client::new(ns, Demand { to, from, addresses: 8, kept, brief }).unwrap();
    client.open().unwrap();
    let begin = Instant::now() + Duration::from_millis(20);
    client.run(begin, begin + Duration::from_millis(200)).unwrap()
}

#[test]
fn paced_requests_are_all_answered() {
    let (ns, _server) = lab();
    let kept = Kept { number: 10, pace: Some(Duration::from_millis(10)) };
    let outcome = run(&ns, kept, Brief::Every(Duration::from_millis(2)), PORT);
    // A thousand requests a second, and five hundred connections.
    assert!((150..=201).contains(&outcome.delays.len()), "{}", outcome.delays.len());
    assert!((70..=101).contains(&outcome.opening.len()), "{}", outcome.opening.len());
    assert_eq!(outcome.stalls.len(), 10);
    assert_eq!((outcome.broken, outcome.stuck, outcome.failed), (0, 0, 0));
}

#[test]
fn closed_loops_ask_as_fast_as_they_are_answered() {
    let (ns, _server) = lab();
    let outcome = run(&ns, Kept { number: 2, pace: None }, Brief::Workers(2), PORT);
    assert!(outcome.requests() > 500.0, "{}", outcome.requests());
    assert!(outcome.connections() > 200.0, "{}", outcome.connections());
    assert_eq!((outcome.broken, outcome.failed), (0, 0));
}

#[test]
fn refused_connections_fail() {
    let (ns, _server) = lab();
    let outcome = run(&ns, Kept { number: 0, pace: None }, Brief::Every(Duration::from_millis(10)), PORT + 1);
    assert!((15..=21).contains(&outcome.failed), "{}", outcome.failed);
    assert_eq!(outcome.opening.len(), 0);
}

#[test]
fn connections_break_with_their_server() {
    let (ns, server) = lab();
    let from = "::1".parse().unwrap();
    let to = ([0, 0, 0, 0, 0, 0, 0, 1], PORT).into();
    let kept = Kept { number: 5, pace: Some(Duration::from_millis(5)) };
    let demand = Demand { to, from, addresses: 1, kept, brief: Brief::Never };
    let mut client = Client::new(&ns, demand).unwrap();
    client.open().unwrap();
    drop(server);
    let begin = Instant::now();
    let outcome = client.run(begin, begin + Duration::from_millis(100)).unwrap();
    assert_eq!(outcome.broken, 5);
    assert!(client.open().is_err());
}

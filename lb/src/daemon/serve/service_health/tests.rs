use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{sleep, timeout},
};

use super::*;
use crate::daemon::serve::health::Moment;
use lab::Netns;

const PORT: u16 = 32_000;
const SOON: Duration = Duration::from_secs(10);

fn check(port: u16, local_ready: &[(Family, usize)]) -> HealthCheck {
    HealthCheck { port, local_ready: local_ready.iter().copied().collect() }
}

fn name(name: &str) -> ObjectName {
    ObjectName::new("default", name)
}

#[test]
fn answers_are_those_of_kube_proxy() {
    for (count, healthy, code) in [(1, true, 200), (0, true, 503), (2, false, 503), (0, false, 503)] {
        let answer = render(&name("web"), count, healthy);
        assert_eq!(answer.status().as_u16(), code, "{count} {healthy}");
        let header = |name| answer.headers().get(name).unwrap().to_str().unwrap().to_owned();
        assert_eq!(header("content-type"), "application/json");
        assert_eq!(header("x-content-type-options"), "nosniff");
        assert_eq!(header("x-load-balancing-endpoint-weight"), count.to_string());
    }
}

#[test]
fn families_are_told_apart_where_the_service_has_both() {
    let hosts = Hosts { v4: Some(vec!["192.0.2.1".parse().unwrap()]), v6: None };
    let both = check(1, &[(Family::V4, 1), (Family::V6, 2)]);
    let one = check(2, &[(Family::V6, 3)]);
    let wanted = Wanted { checks: [(name("both"), both), (name("one"), one)].into(), hosts };
    let sockets = wanted.sockets().into_iter();
    let sockets: Vec<_> = sockets.map(|(s, n)| (s.address.to_string(), s.both_families, n)).collect();
    let expected = [("192.0.2.1:1", false, 1), ("[::]:1", false, 2), ("[::]:2", true, 3)];
    assert_eq!(sockets, expected.map(|(address, both, n)| (address.to_owned(), both, n)));
}

/// The answer's head and body; none if nobody listens.
async fn get(host: &str, port: u16) -> Option<String> {
    let mut stream = TcpStream::connect((host, port)).await.ok()?;
    stream.write_all(b"GET /any/path HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n").await.ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await.ok()?;
    Some(text)
}

async fn until(what: &str, host: &str, port: u16, good: impl Fn(Option<&str>) -> bool) {
    let mut last = None;
    let wait = async {
        loop {
            last = get(host, port).await;
            if good(last.as_deref()) {
                return;
            }
            sleep(Duration::from_millis(10)).await;
        }
    };
    let outcome = timeout(SOON, wait).await;
    assert!(outcome.is_ok(), "{what}, not {last:?}");
}

fn says(answer: Option<&str>, code: u16, count: usize) -> bool {
    answer.is_some_and(|text| {
        text.starts_with(&format!("HTTP/1.1 {code} "))
            && text.contains(&format!("\"localEndpoints\": {count},"))
    })
}

/// A server in a namespace of its own.
fn served<F: Future<Output = ()>>(test: impl FnOnce(watch::Sender<Wanted>, Arc<Health>) -> F + Send) {
    assert!(nix::unistd::geteuid().is_root(), "this test makes network namespaces and must run as root");
    let ns = Netns::new("health").unwrap();
    ns.run(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (wanted, receiver) = watch::channel(Wanted::default());
            let health = Arc::new(Health::new(Duration::ZERO));
            tokio::spawn(run(receiver, Arc::clone(&health), Events::nowhere("node")));
            test(wanted, health).await;
        });
    })
    .unwrap();
}

#[test]
fn ports_follow_their_services() {
    served(|wanted, health| async move {
        let put = |services: &[(&str, u16, usize, usize)]| {
            let checks = services.iter().map(|(service, port, v4, v6)| {
                (name(service), check(*port, &[(Family::V4, *v4), (Family::V6, *v6)]))
            });
            wanted.send_replace(Wanted { checks: checks.collect(), hosts: Hosts::default() });
        };
        put(&[("web", PORT, 2, 0)]);
        until("2 endpoints", "127.0.0.1", PORT, |answer| says(answer, 200, 2)).await;
        until("no endpoints", "::1", PORT, |answer| says(answer, 503, 0)).await;

        // A connection that stays gets the new number, too.
        let mut kept = TcpStream::connect(("127.0.0.1", PORT)).await.unwrap();
        put(&[("web", PORT, 0, 1)]);
        until("no endpoints", "127.0.0.1", PORT, |answer| says(answer, 503, 0)).await;
        until("1 endpoint", "::1", PORT, |answer| says(answer, 200, 1)).await;
        kept.write_all(b"GET / HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut text = String::new();
        kept.read_to_string(&mut text).await.unwrap();
        assert!(says(Some(&text), 503, 0), "{text}");

        // The port goes over to another Service, in one step.
        put(&[("api", PORT, 3, 3), ("web", PORT + 1, 4, 4)]);
        until("the other", "127.0.0.1", PORT, |answer| {
            says(answer, 200, 3) && answer.is_some_and(|text| text.contains("\"api\""))
        })
        .await;
        until("the first", "::1", PORT + 1, |answer| says(answer, 200, 4)).await;

        health.updated(Moment::now());
        health.queued(Moment::now());
        until("unhealthy", "127.0.0.1", PORT, |answer| {
            says(answer, 503, 3) && answer.is_some_and(|text| text.contains("\"serviceProxyHealthy\": false"))
        })
        .await;

        let idle = TcpStream::connect(("127.0.0.1", PORT)).await.unwrap();
        put(&[]);
        until("nobody", "127.0.0.1", PORT, |answer| answer.is_none()).await;
        until("nobody", "::1", PORT + 1, |answer| answer.is_none()).await;
        idle.readable().await.unwrap();
        assert_eq!(idle.try_read(&mut [0; 1]).unwrap_or_default(), 0, "its connections are closed, too");
    });
}

#[test]
fn a_port_that_somebody_has_is_taken_when_it_is_free() {
    served(|wanted, _| async move {
        let other = http::bind(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), PORT)).unwrap();
        let hosts = Hosts {
            v4: Some(vec![Ipv4Addr::LOCALHOST.into()]),
            v6: Some(vec![Ipv6Addr::LOCALHOST.into(), "2001:db8::1".parse().unwrap()]),
        };
        let both = [(Family::V4, 1), (Family::V6, 1)];
        let checks = [(name("web"), check(PORT, &both)), (name("api"), check(PORT + 1, &both))];
        wanted.send_replace(Wanted { checks: checks.into(), hosts });
        // The host has not got one of the addresses, which is no reason not to serve the others.
        until("the other port", "::1", PORT + 1, |answer| says(answer, 200, 1)).await;
        drop(other);
        for host in ["127.0.0.1", "::1"] {
            until("taken over", host, PORT, |answer| says(answer, 200, 1)).await;
        }
    });
}

#[test]
fn one_family_is_told_of_on_all_addresses() {
    served(|wanted, _| async move {
        let checks = [(name("web"), check(PORT, &[(Family::V6, 1)]))];
        wanted.send_replace(Wanted { checks: checks.into(), hosts: Hosts::default() });
        for host in ["127.0.0.1", "::1"] {
            until("both", host, PORT, |answer| says(answer, 200, 1)).await;
        }
    });
}

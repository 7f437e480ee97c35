//! `/metrics` in the OpenMetrics text format.

use std::{convert::Infallible, net::SocketAddr, time::Duration};

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::CONTENT_TYPE,
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::{
    encoding::text::encode,
    metrics::{counter::ConstCounter, family::Family, gauge::Gauge},
    registry::{Registry, Unit},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
    time::sleep,
};
use tracing::{debug, info, warn};

use super::{
    report::Report,
    status::{Reply, ask},
};

type Labels = Vec<(&'static str, String)>;

/// Wait before an address that could not be had is tried again.
const RETRY: Duration = Duration::from_secs(10);

/// Serves until the task is aborted. An address that cannot be had, as while a former process still has it, is no
/// reason not to balance load: it is tried again.
pub(super) async fn serve(address: SocketAddr, requests: mpsc::Sender<Reply>) {
    let listener = loop {
        match TcpListener::bind(address).await {
            Ok(listener) => break listener,
            Err(error) => warn!(%address, %error, "cannot serve metrics, will try again"),
        }
        sleep(RETRY).await;
    };
    info!(%address, "serving metrics");
    loop {
        match listener.accept().await {
            Ok((stream, _)) => drop(tokio::spawn(connection(stream, requests.clone()))),
            Err(error) => {
                // Out of descriptors, most likely: do not spin until there are some again.
                debug!(%error, "metrics listener");
                sleep(RETRY).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, requests: mpsc::Sender<Reply>) {
    let service = service_fn(move |request| respond(request, requests.clone()));
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(Duration::from_secs(10));
    if let Err(error) = builder.serve_connection(TokioIo::new(stream), service).await {
        debug!(%error, "metrics connection");
    }
}

async fn respond(
    request: Request<Incoming>,
    requests: mpsc::Sender<Reply>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let mut response = Response::default();
    match (request.method(), request.uri().path()) {
        (&Method::GET, "/metrics") => match ask(&requests).await.and_then(|report| text(&report).ok()) {
            Some(text) => {
                let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
                response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
                *response.body_mut() = Full::from(text);
            }
            None => *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE,
        },
        (_, "/metrics") => *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED,
        _ => *response.status_mut() = StatusCode::NOT_FOUND,
    }
    Ok(response)
}

fn text(report: &Report) -> Result<String, std::fmt::Error> {
    let mut registry = Registry::with_prefix("portico");
    let gauge = |value: usize| {
        let gauge: Gauge = Gauge::default();
        gauge.set(value as i64);
        gauge
    };
    registry.register(
        "synced",
        "Whether the kernel holds what the objects ask for",
        gauge(report.synced.into()),
    );
    registry.register("services", "Service ports that are served", gauge(report.services));
    registry.register("frontends", "Addresses and ports that are served", gauge(report.frontends));
    registry.register(
        "pending_entries",
        "Entries of the kernel that are not as they should be",
        gauge(report.pending),
    );
    registry.register("sync_rounds", "Rounds of writes", ConstCounter::new(report.rounds));
    registry.register("sync_entries", "Entries written or deleted", ConstCounter::new(report.entries));
    let seconds = Gauge::<f64, std::sync::atomic::AtomicU64>::default();
    seconds.set(report.latest_round_milliseconds / 1_000.0);
    registry.register_with_unit(
        "latest_round",
        "Duration of the latest round of writes",
        Unit::Seconds,
        seconds,
    );
    let repairs = ConstCounter::new(report.translation.repairs);
    registry.register("nft_repairs", "Times the nft table had to be mended", repairs);

    let translation = Family::<Labels, Gauge>::default();
    for (family, state) in [("ipv4", &report.translation.ipv4), ("ipv6", &report.translation.ipv6)] {
        let labels = vec![("family", family.to_owned())];
        translation.get_or_create(&labels).set(i64::from(state == "active"));
    }
    registry.register("translation_active", "Whether the kernel translated the latest probe", translation);

    let rejected = Family::<Labels, Gauge>::default();
    for trouble in &report.rejected {
        let labels = vec![
            ("kind", trouble.kind.clone()),
            ("object", trouble.object.clone()),
            ("reason", trouble.reason.clone()),
        ];
        rejected.get_or_create(&labels).set(1);
    }
    registry.register("rejected_objects", "What is not served, and why", rejected);

    let packets = Family::<Labels, prometheus_client::metrics::counter::Counter>::default();
    for counter in &report.counters {
        let labels = vec![("hook", counter.hook.clone()), ("reason", counter.reason.clone())];
        packets.get_or_create(&labels).inc_by(counter.count);
    }
    registry.register(
        "verdicts",
        "Packets, or calls for hook socket, by why they were treated as they were",
        packets,
    );

    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::report::{CounterReport, Trouble};

    #[test]
    fn rejections_and_verdicts_are_told_with_their_reasons() {
        let report = Report {
            synced: true,
            rejected: vec![Trouble {
                kind: "Service".to_owned(),
                object: "default/web".to_owned(),
                reason: "port 0".to_owned(),
            }],
            counters: vec![CounterReport { hook: "tc".to_owned(), reason: "forward".to_owned(), count: 7 }],
            ..Report::default()
        };
        let text = text(&report).unwrap();
        for line in [
            "portico_synced 1",
            "portico_rejected_objects{kind=\"Service\",object=\"default/web\",reason=\"port 0\"} 1",
            "portico_verdicts_total{hook=\"tc\",reason=\"forward\"} 7",
        ] {
            assert!(text.lines().any(|candidate| candidate == line), "no line {line:?} in:\n{text}");
        }
    }
}

//! Objects from a Kubernetes API server.
//!
//! Each kind has its own watch, so that trouble with one does not hold up the others. While the server cannot be
//! reached nothing is removed: the last state stands until a list says otherwise. Objects are converted as they arrive,
//! a page at a time; the much larger Kubernetes objects are never kept.

use std::{
    error::Error as _,
    path::{Path, PathBuf},
    time::Duration,
};

use futures::StreamExt;
use k8s_openapi::api::{
    core::v1::{Node, Service},
    discovery::v1::EndpointSlice,
    networking::v1::ServiceCIDR,
};
use kube::{
    Api, Client, Config, Resource,
    api::ListParams,
    config::{KubeConfigOptions, Kubeconfig},
    core::DeserializeGuard,
    runtime::{
        utils::Backoff as _,
        watcher::{self, DefaultBackoff, watcher},
    },
};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc::{Sender, error::SendError};

use crate::{
    convert::{self, Selector},
    file,
    model::{
        ObjectName,
        change::{Change, Event, Outcome},
    },
    text::{self, quote},
};

/// The server ends a watch after this many seconds and we begin the next. A connection that died silently is noticed
/// no later than 5 seconds after, which bounds how long stale endpoints can be served.
const WATCH_SECONDS: u32 = 120;
/// The most bytes of a kubeconfig.
const KUBECONFIG: u64 = 1 << 20;
/// Longest silence within a response. Only a request that has no end of its own needs it.
const READ_TIMEOUT: Duration = Duration::from_secs(150);
/// Wait between attempts to find out whether the server answers again.
const PROBE: Duration = Duration::from_millis(500);
/// Waits between attempts to list a kind that the server does not have or does not let us see, from the first to the
/// longest: the first since rights may be given a moment after we were started.
const ABSENT: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(300)];

/// Which server to ask, and for what.
#[derive(Clone, Debug)]
pub struct Options {
    /// The kubeconfig file. None: `$KUBECONFIG`, `~/.kube/config`, or the service account of the pod we run in.
    pub kubeconfig: Option<PathBuf>,
    /// URL of the server, instead of the one in the kubeconfig. If there is no kubeconfig, it is asked anonymously.
    pub server: Option<String>,
    /// The Node that is watched; no other Nodes are.
    pub node: String,
    /// Which Services and EndpointSlices are watched.
    pub selector: Selector,
}

/// Why there is no way to ask a server at all.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The given kubeconfig is unusable.
    #[error("cannot use kubeconfig {path}")]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: kube::config::KubeconfigError,
    },
    /// The given kubeconfig cannot be one.
    #[error("cannot use kubeconfig {path}: {reason}")]
    NoKubeconfig {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The given URL of the server is none.
    #[error("{} is not the URL of an API server: {reason}", quote(url))]
    Server {
        /// The URL.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// No kubeconfig was given and none was found.
    #[error("found neither a kubeconfig nor a service account")]
    Infer(#[source] kube::config::InferConfigError),
    /// The configuration makes no client (certificates, proxy).
    #[error("cannot set up a client for {url}")]
    Client {
        /// The API server.
        url: String,
        /// What is wrong.
        source: kube::Error,
    },
}

/// Follows Services, EndpointSlices, one Node and ServiceCIDRs until the receiver of `events` is gone.
///
/// ServiceCIDRs are done without where the server has none (before Kubernetes 1.33) or forbids to see them.
///
/// # Errors
/// If the configuration is unusable. A server out of reach is no error: it is told as [`Event::Trouble`], and asked
/// again until it answers.
pub async fn run(options: Options, events: Sender<Event>) -> Result<(), Error> {
    let (client, url) = connect(options.kubeconfig, options.server).await?;

    let all = watcher::Config::default().timeout(WATCH_SECONDS);
    let ours = all.clone().labels(&options.selector.to_string());
    let own = all.clone().fields(&format!("metadata.name={}", options.node));
    let selector = options.selector.clone();
    let service = move |service: &_| convert::service(service, &selector);
    let slice = move |slice: &_| convert::slice(slice, &options.selector);
    let services = Watch::<Service, _, _>::new(&client, &url, ours.clone(), service, Event::Service);
    let slices = Watch::<EndpointSlice, _, _>::new(&client, &url, ours, slice, Event::Slice);
    let nodes = Watch::<Node, _, _>::new(&client, &url, own, convert::node, Event::Node);
    let cidrs =
        Watch::<ServiceCIDR, _, _>::new(&client, &url, all, convert::service_cidr, Event::ServiceCidr);
    let cidrs = Watch { optional: true, ..cidrs };
    let watches = futures::future::join4(
        services.run(&events),
        slices.run(&events),
        nodes.run(&events),
        cidrs.run(&events),
    );
    tokio::select! {
        // The watches end only because the receiver is gone, too.
        _ = watches => {}
        () = events.closed() => {}
    }
    Ok(())
}

/// Whether the configuration names an API server. It need not be up.
///
/// # Errors
/// If it is unusable, or there is none.
pub async fn check(kubeconfig: Option<&Path>, server: Option<&str>) -> Result<(), Error> {
    configuration(kubeconfig.map(Path::to_owned), server.map(str::to_owned)).await.map(drop)
}

/// A client of the API server, for other purposes than to follow objects.
///
/// # Errors
/// If the configuration is unusable, or there is none.
pub async fn client(kubeconfig: Option<PathBuf>, server: Option<String>) -> Result<Client, Error> {
    connect(kubeconfig, server).await.map(|(client, _)| client)
}

/// A client and the server's URL.
async fn connect(kubeconfig: Option<PathBuf>, server: Option<String>) -> Result<(Client, String), Error> {
    let mut config = configuration(kubeconfig, server).await?;
    config.read_timeout = config.read_timeout.or(Some(READ_TIMEOUT));
    let url = config.cluster_url.to_string();
    let client = Client::try_from(config).map_err(|source| Error::Client { url: url.clone(), source })?;
    Ok((client, url))
}

async fn configuration(kubeconfig: Option<PathBuf>, server: Option<String>) -> Result<Config, Error> {
    let server = match server {
        // As client-go completes it.
        Some(url) if !url.contains("://") => Some(format!("http://{url}")),
        server => server,
    };
    let url = server.map(|url| {
        url.parse().map_err(|error| Error::Server { reason: format!("{error}"), url: url.clone() })
    });
    match (kubeconfig, url.transpose()?) {
        (None, None) => Config::infer().await.map_err(Error::Infer),
        (None, Some(url)) => Ok(Config::new(url)),
        (Some(path), url) => {
            if let Some(reason) = file::unfit(&path, KUBECONFIG) {
                return Err(Error::NoKubeconfig { path, reason });
            }
            let load = async {
                let kubeconfig = Kubeconfig::read_from(&path)?;
                Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await
            };
            let mut config = load.await.map_err(|source| Error::Kubeconfig { path, source })?;
            config.cluster_url = url.unwrap_or(config.cluster_url);
            Ok(config)
        }
    }
}

/// The watch of a kind `K`, which `F` makes a `T`.
struct Watch<K, T, F> {
    /// Guarded, or one object that is not as it should be would hide all others.
    api: Api<DeserializeGuard<K>>,
    config: watcher::Config,
    /// The URL that is watched.
    place: String,
    convert: F,
    event: fn(Change<T>) -> Event,
    /// Whether it is no trouble if the server does not have the kind, or forbids to see it. Nothing that is served
    /// comes of such a kind.
    optional: bool,
}

impl<K, T, F> Watch<K, T, F>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug + Send + 'static,
    F: Fn(&K) -> Outcome<T>,
{
    fn new(
        client: &Client,
        url: &str,
        config: watcher::Config,
        convert: F,
        event: fn(Change<T>) -> Event,
    ) -> Self {
        let place = format!("{}{}", url.trim_end_matches('/'), K::url_path(&(), None));
        Self { api: Api::all(client.clone()), config, place, convert, event, optional: false }
    }

    /// Ends only when the receiver is gone.
    async fn run(&self, events: &Sender<Event>) -> Result<(), SendError<Event>> {
        let mut stream = watcher(self.api.clone(), self.config.clone()).boxed();
        let mut backoff = DefaultBackoff::default();
        let mut listed = Vec::new();
        let mut trouble: Option<String> = None;
        let mut absent: Option<Duration> = None;
        loop {
            let item = tokio::select! {
                biased;
                item = stream.next() => item,
                // A watch taken up again says nothing until something changes.
                () = self.answers(), if trouble.is_some() => None,
            };
            match item {
                Some(Err(error)) if self.optional && is_absent(&error) => {
                    if trouble.take().is_some() {
                        events.send(self.trouble(Vec::new())).await?;
                    }
                    let [first, longest] = ABSENT;
                    let wait = absent.map_or(first, |wait| (2 * wait).min(longest));
                    if absent.replace(wait).is_none() {
                        tracing::info!(place = self.place, reason = with_sources(&error), "done without");
                    }
                    tokio::time::sleep(wait).await;
                    continue;
                }
                Some(Err(error)) => {
                    if is_gone(&error) {
                        stream = watcher(self.api.clone(), self.config.clone()).boxed();
                    }
                    let problem = with_sources(&error);
                    if trouble.as_ref() != Some(&problem) {
                        tracing::warn!(place = self.place, reason = problem, "watch failed, trying again");
                        events.send(self.trouble(vec![problem.clone()])).await?;
                        trouble = Some(problem);
                    }
                    tokio::time::sleep(backoff.next().unwrap_or(PROBE)).await;
                    continue;
                }
                // This only announces that a list will be asked for.
                Some(Ok(watcher::Event::Init)) => {
                    listed = Vec::new();
                    continue;
                }
                Some(Ok(watcher::Event::InitApply(object))) => {
                    listed.push((name(&object), self.read(object)));
                    continue;
                }
                Some(Ok(watcher::Event::InitDone)) => {
                    tracing::debug!(place = self.place, objects = listed.len(), "listed");
                    events.send((self.event)(Change::Reset(std::mem::take(&mut listed)))).await?;
                }
                Some(Ok(watcher::Event::Apply(object))) => {
                    let name = name(&object);
                    events.send((self.event)(Change::Apply(name, self.read(object)))).await?;
                }
                Some(Ok(watcher::Event::Delete(object))) => {
                    events.send((self.event)(Change::Delete(name(&object)))).await?;
                }
                None => {}
            }
            backoff.reset();
            if absent.take().is_some() {
                tracing::info!(place = self.place, "there now");
            }
            if trouble.take().is_some() {
                tracing::info!(place = self.place, "watch works again");
                events.send(self.trouble(Vec::new())).await?;
            }
        }
    }

    fn read(&self, object: DeserializeGuard<K>) -> Outcome<T> {
        object.0.map_err(|invalid| text::line(invalid.error)).and_then(|object| (self.convert)(&object))
    }

    fn trouble(&self, problems: Vec<String>) -> Event {
        Event::Trouble { place: self.place.clone(), problems, incomplete: !self.optional }
    }

    /// Completes when the server answers a small request for this kind.
    async fn answers(&self) {
        let any = ListParams { limit: Some(1), ..ListParams::default().match_any() };
        loop {
            tokio::time::sleep(PROBE).await;
            if self.api.list_metadata(&any).await.is_ok() {
                return;
            }
        }
    }
}

/// Whether the server no longer knows the version from which to go on, so that only a new list helps. As an event in
/// the stream the watcher handles this itself; as the response to a watch request it would ask for the same forever.
fn is_gone(error: &watcher::Error) -> bool {
    matches!(error, watcher::Error::WatchStartFailed(kube::Error::Api(status)) if status.code == 410)
}

/// Whether the server does not have the kind, or does not let us see it.
fn is_absent(error: &watcher::Error) -> bool {
    use watcher::Error::{InitialListFailed, WatchFailed, WatchStartFailed};
    matches!(
        error,
        InitialListFailed(kube::Error::Api(status)) | WatchStartFailed(kube::Error::Api(status)) | WatchFailed(kube::Error::Api(status))
            if matches!(status.code, 403 | 404)
    )
}

fn name(object: &impl Resource) -> ObjectName {
    let meta = object.meta();
    ObjectName::new(meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default())
}

/// An error and what caused it on one line; many of these errors repeat their source in their own text.
fn with_sources(error: &watcher::Error) -> String {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let text = cause.to_string();
        if !line.contains(&text) {
            line = format!("{line}: {text}");
        }
        source = cause.source();
    }
    text::line(line.replace('\n', " "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_server_s_url_is_completed_and_checked() {
        for (given, url) in
            [("https://10.0.0.1:6443", "https://10.0.0.1:6443/"), ("10.0.0.1:8080", "http://10.0.0.1:8080/")]
        {
            let config = configuration(None, Some(given.to_owned())).await.unwrap();
            assert_eq!(config.cluster_url.to_string(), url);
        }
        let error = configuration(None, Some("http://a b".to_owned())).await.unwrap_err();
        assert!(matches!(error, Error::Server { .. }), "{error}");
    }
}

//! The source of objects that the options name.

use std::fs;

use anyhow::Context as _;
use tokio::sync::mpsc;

use crate::{
    config::{Options, Source},
    convert::Selector,
    model::change::Event,
    source::{kubernetes, manifests},
};

/// Whether there is anything to follow at all, before the host is changed for it.
pub(super) async fn check(source: &Source, api_server: Option<&str>) -> anyhow::Result<()> {
    match source {
        Source::Manifests(dir) => {
            fs::read_dir(dir).with_context(|| format!("cannot read manifests in {}", dir.display()))?;
        }
        Source::Kubernetes(kubeconfig) => kubernetes::check(kubeconfig.as_deref(), api_server)
            .await
            .context("no objects to serve; name their source with --kubeconfig or --manifests")?,
    }
    Ok(())
}

/// Sends what the source tells, until it breaks down.
pub(super) async fn follow(options: Options, events: mpsc::Sender<Event>) -> anyhow::Result<()> {
    let selector = Selector::new(options.service_proxy_name);
    match options.source {
        Source::Manifests(dir) => manifests::run(dir, selector, events).await?,
        Source::Kubernetes(kubeconfig) => {
            let options = kubernetes::Options {
                kubeconfig,
                server: options.api_server,
                node: options.node_name,
                selector,
            };
            kubernetes::run(options, events).await?;
        }
    }
    Ok(())
}

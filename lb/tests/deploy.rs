//! The DaemonSet in `deploy/` calls the command line that there is.

#![expect(clippy::expect_used, clippy::panic, reason = "a panic is how a test fails")]

use clap::Parser as _;
use k8s_openapi::api::{apps::v1::DaemonSet, core::v1::Container};
use portico::cli::Cli;

const MANIFEST: &str = include_str!("../../deploy/portico.yaml");

fn container() -> Container {
    let document = MANIFEST.split("\n---\n").find(|document| document.contains("\nkind: DaemonSet\n"));
    let set: DaemonSet = serde_saphyr::from_str(document.expect("a DaemonSet")).expect("valid");
    let pod = set.spec.and_then(|spec| spec.template.spec).expect("a pod");
    <[Container; 1]>::try_from(pod.containers).map(|[container]| container).expect("one container")
}

fn parse(arguments: &[String]) {
    if let Err(error) = Cli::try_parse_from(arguments) {
        panic!("{arguments:?}: {error}");
    }
}

#[test]
fn arguments_are_understood() {
    let mut arguments = vec!["portico".to_owned()];
    arguments.extend(container().args.expect("arguments"));
    parse(&arguments);
}

#[test]
fn probes_are_understood() {
    let container = container();
    for probe in [container.readiness_probe, container.liveness_probe] {
        let command = probe.and_then(|probe| probe.exec).and_then(|exec| exec.command);
        parse(&command.expect("a command"));
    }
}

//! What becomes of flows, stated case by case in `cases/*.yaml`: whether a Kubernetes Service behaves as kube-proxy
//! makes it behave. Each case runs twice on a laboratory of its own, with objects from manifests and from an API
//! server. `docs/testing.md` describes the format.
//!
//! `cargo test --test parity NAME` runs those whose names contain `NAME`. They need root, and fail without.

mod ask;
mod case;
mod flow;
mod names;
mod objects;
mod scene;

#[path = "../support/api_server.rs"]
#[expect(dead_code, clippy::expect_used, reason = "it can do more, and fails by panicking")]
mod api_server;

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, Result, ensure};
use case::{Case, Step};
use lab::eventually_ok;
use libtest_mimic::{Arguments, Failed, Trial};
use scene::{Origin, SOON, Scene};

/// Laboratories at the same time: much of their time is waiting.
const LABORATORIES: usize = 6;

fn main() -> Result<ExitCode> {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(LABORATORIES);
    let cases = files(&scene::directory().join("cases"))?;
    ensure!(!cases.is_empty(), "there are no cases");
    let trials: Vec<Trial> = cases.iter().flat_map(|path| trials(path)).collect();
    Ok(libtest_mimic::run(&arguments, trials).exit_code())
}

/// Case files by name.
fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    let list = fs::read_dir(directory).with_context(|| format!("cannot list {}", directory.display()))?;
    let mut paths = list.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    paths.sort();
    Ok(paths)
}

fn name(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

fn trials(path: &Path) -> [Trial; 2] {
    [(Origin::Manifests, "manifests"), (Origin::Kubernetes, "kubernetes")].map(|(origin, label)| {
        let path = path.to_owned();
        Trial::test(format!("{}::{label}", name(&path)), move || run(&path, origin).map_err(failed))
    })
}

fn failed(error: anyhow::Error) -> Failed {
    format!("{error:#}").into()
}

fn run(path: &Path, origin: Origin) -> Result<()> {
    ensure!(nix::unistd::geteuid().is_root(), "this test makes network namespaces and must run as root");
    let case = Case::read(path).with_context(|| format!("{} is no case", path.display()))?;
    let first = case.steps.first().context("no steps")?;
    let mut scene = Scene::start(origin, &case.arguments, &first.objects)
        .with_context(|| format!("{}: cannot start", case.description.trim()))?;
    match play(&case, &mut scene) {
        Ok(()) => scene.finish(),
        Err(error) => Err(error.context(format!("{}{}", scene.state(), case.description.trim()))),
    }
}

fn play(case: &Case, scene: &mut Scene) -> Result<()> {
    let mut kept = flow::KeptFlows::default();
    let mut before = None;
    for step in &case.steps {
        if let Some(before) = before.replace(step) {
            scene.change(&step.objects)?;
            // Nothing tells when the daemon has seen an object of another kind.
            let others =
                |(key, _): &(&objects::Key, _)| !matches!(key.0.as_str(), "Service" | "EndpointSlice");
            let Step { objects, .. } = before;
            if step.objects.changes_from(objects).iter().any(others) {
                eventually_ok("the change is in force", SOON, || {
                    flow::check(scene, &step.flows, &mut flow::KeptFlows::default())
                        .map_err(|e| format!("{e:#}"))
                })?;
            }
        }
        let place = || format!("step {:?}", step.description);
        for established in &step.established {
            flow::check_kept(established, &mut kept).with_context(place)?;
        }
        flow::check(scene, &step.flows, &mut kept).with_context(place)?;
    }
    Ok(())
}

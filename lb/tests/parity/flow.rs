//! Compares what became of flows with what a case expects.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use lab::{
    Surroundings,
    addr::{self, Pair},
};

use crate::{
    ask::{Ask, Failure, Kept, Outcome, Socket},
    case::{Established, Expectation, Flow, From, Source, Verdict},
    names,
    scene::Scene,
};

/// For an answer that is due, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(5);
/// For one that is not: many times what an answer takes.
const SILENCE: Duration = Duration::from_millis(500);
/// Times each flow is opened at least. A backend too many among two goes unseen in one of 256 runs, and no flow of a
/// case is the only one to show it.
const ROUND: u32 = 8;
/// Rounds until every backend must have been seen: one of two is missed in one of 2^64 runs.
const ROUNDS: u32 = 8;
/// Times a flow is opened that nobody should answer.
const TRIES: u32 = 2;

/// Flows kept open, by name.
pub(crate) type KeptFlows = BTreeMap<String, Vec<Kept>>;

/// Asks all, at the same time, and collects what is not as expected.
pub(crate) fn check(scene: &Scene, flows: &[Flow], kept: &mut KeptFlows) -> Result<()> {
    let mut questions = Vec::new();
    for flow in flows {
        let expectation = flow.expectation()?;
        for asks in asks(flow)? {
            questions.push((asks, expectation.clone()));
        }
    }
    let failures: Vec<String> = thread::scope(|scope| {
        let threads: Vec<_> = questions
            .iter()
            .map(|(asks, expected)| scope.spawn(move || answer(scene, asks, expected)))
            .collect();
        let results = threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| bail!("panicked")));
        results.filter_map(|result| result.err().map(|error| format!("{error:#}"))).collect()
    });
    ensure!(failures.is_empty(), "{}", failures.join("\n"));
    for flow in flows {
        let Some(name) = &flow.keep else { continue };
        let named = |ask: &Ask| flow.protocols.contains(&ask.socket.protocol());
        for ask in asks(flow)?.concat().into_iter().filter(named) {
            kept.entry(name.clone()).or_default().push(ask.keep(scene, PATIENCE)?);
        }
    }
    Ok(())
}

/// The questions of a flow. Those in one list are asked one after the other, as they have to have one answer.
fn asks(flow: &Flow) -> Result<Vec<Vec<Ask>>> {
    let mut asks = Vec::new();
    for from in &flow.from {
        for socket in flow.protocols.iter().flat_map(|protocol| Socket::of(*from, *protocol)) {
            for family in flow.families() {
                let mut together = Vec::new();
                for to in &flow.to {
                    let destinations = names::destinations(to, &[family])?;
                    together.extend(destinations.into_iter().map(|to| Ask { from: *from, socket, to }));
                }
                if matches!(flow.expectation()?, Expectation::Served { same_backend: true, .. }) {
                    asks.push(together);
                } else {
                    asks.extend(together.into_iter().map(|ask| vec![ask]));
                }
            }
        }
    }
    Ok(asks)
}

fn answer(scene: &Scene, asks: &[Ask], expected: &Expectation) -> Result<()> {
    let mut answered = BTreeSet::new();
    for ask in asks {
        match expected {
            Expectation::Served { backends, source, same_backend } => {
                answered.extend(served(scene, *ask, backends, *source, *same_backend)?);
                ensure!(!same_backend || answered.len() == 1, "{ask}: not one backend but {answered:?}");
            }
            Expectation::Verdict(Verdict::Untouched) => {
                let by = names::untouched(ask.to.ip()).to_owned();
                served(scene, *ask, &[by], Source::Kept, true)?;
            }
            Expectation::Verdict(Verdict::Reject) => {
                unserved(scene, *ask, PATIENCE, "a rejection", |failure| *failure == Failure::Refused)?;
            }
            Expectation::Verdict(Verdict::Drop) => {
                unserved(scene, *ask, SILENCE, "silence", |failure| {
                    *failure == Failure::Silence || ask.from.hooked() && *failure == Failure::NotPermitted
                })?;
            }
        }
    }
    Ok(())
}

fn served(
    scene: &Scene,
    ask: Ask,
    backends: &[String],
    source: Source,
    any: bool,
) -> Result<BTreeSet<String>> {
    let wanted: BTreeSet<String> = backends.iter().cloned().collect();
    let mut answered = BTreeSet::new();
    for _ in 0..ROUNDS {
        for outcome in ask.times(scene, ROUND, PATIENCE)? {
            let seen = outcome.map_err(|failure| anyhow!("{ask}: {failure:?} instead of {wanted:?}"))?;
            ensure!(
                wanted.contains(&seen.backend),
                "{ask}: answered by {} instead of {wanted:?}",
                seen.backend
            );
            let right = sources(ask, &seen.backend, source)?;
            ensure!(
                right.contains(&seen.source),
                "{ask}: {} sees {} instead of {right:?}: it should be {source:?}",
                seen.backend,
                seen.source
            );
            answered.insert(seen.backend);
        }
        if any || answered == wanted {
            return Ok(answered);
        }
    }
    bail!("{ask}: of {wanted:?} only {answered:?} answered")
}

fn unserved(
    scene: &Scene,
    ask: Ask,
    patience: Duration,
    what: &str,
    right: impl Fn(&Failure) -> bool,
) -> Result<()> {
    let wrong = |outcome: &Outcome| !outcome.as_ref().is_err_and(&right);
    match ask.times(scene, TRIES, patience)?.into_iter().find(wrong) {
        Some(outcome) => bail!("{ask}: {outcome:?} instead of {what}"),
        None => Ok(()),
    }
}

/// The addresses that a backend may see as the client's.
fn sources(ask: Ask, backend: &str, source: Source) -> Result<Vec<IpAddr>> {
    let gateway = match backend {
        "backend1" => addr::backend_gateway(1),
        "backend2" => addr::backend_gateway(2),
        Surroundings::POD => addr::POD_GATEWAY,
        Surroundings::UPSTREAM => addr::UPSTREAM_GATEWAY,
        _ => addr::GATEWAY,
    };
    let own: Pair = match ask.from {
        From::Outside => addr::CLIENT,
        From::Pod | From::PodPackets => addr::POD,
        From::OtherPod => addr::OTHER_POD,
        From::Backend1 => addr::backend(1),
        From::Backend2 => addr::backend(2),
        // A process on the gateway has the address of whatever interface leads to the backend; towards the gateway it
        // is the same address or the interface's first.
        From::Host if backend == Surroundings::NODE => addr::GATEWAY,
        From::Host => gateway,
    };
    let pair = if source == Source::Kept { own } else { gateway };
    let same_family = |ip: &IpAddr| ip.is_ipv4() == ask.to.is_ipv4();
    let itself = (ask.from == From::Host && backend == Surroundings::NODE).then_some(ask.to.ip());
    Ok(pair.both().into_iter().filter(same_family).chain(itself).collect())
}

/// Asks again on flows that were kept.
pub(crate) fn check_kept(expected: &Established, kept: &mut KeptFlows) -> Result<()> {
    for name in &expected.flow {
        let flows = kept.get_mut(name).with_context(|| format!("no flow {name:?} was kept"))?;
        let of_kind = |flow: &&mut Kept| expected.protocols.contains(&flow.ask.socket.protocol());
        for flow in flows.iter_mut().filter(of_kind) {
            let outcome = flow.again()?;
            let ask = flow.ask;
            let seen = outcome.map_err(|failure| anyhow!("{ask}, kept as {name:?}: {failure:?}"))?;
            let right = match expected.backends.as_slice() {
                [] => seen.backend == flow.backend,
                some => some.contains(&seen.backend),
            };
            ensure!(
                right,
                "{ask}, kept as {name:?}: now answered by {}, at first by {}",
                seen.backend,
                flow.backend
            );
        }
    }
    Ok(())
}

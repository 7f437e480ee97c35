//! `/healthz` and `/livez`: kube-proxy's `pkg/proxy/healthcheck/proxy_health.go`.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use hyper::StatusCode;
use k8s_openapi::jiff::Timestamp;
use serde::Serialize;

use crate::model::Family;

/// How Go writes a time that never was.
const NEVER: &str = "0001-01-01T00:00:00Z";

/// A point in time, for measuring and for telling.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    pub(super) instant: Instant,
    pub(super) wall: Timestamp,
}

impl Moment {
    pub(super) fn now() -> Self {
        Self { instant: Instant::now(), wall: Timestamp::now() }
    }
}

/// What the daemon's loop says, for servers that answer when it does not.
#[derive(Debug)]
pub(super) struct Health {
    state: Mutex<State>,
    node_eligible: AtomicBool,
    /// For how long a change may wait, or something may be missing.
    patience: Duration,
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    /// The latest round that left nothing to do.
    updated: Option<Moment>,
    /// The first change since.
    queued: Option<Instant>,
    /// Since when something of ours has been missing.
    missing: Option<Instant>,
}

impl Health {
    pub(super) fn new(patience: Duration) -> Self {
        Self { state: Mutex::default(), node_eligible: AtomicBool::new(true), patience }
    }

    /// Something changed that has to be written.
    pub(super) fn queued(&self, now: Moment) {
        self.state().queued.get_or_insert(now.instant);
    }

    /// All is written.
    pub(super) fn updated(&self, now: Moment) {
        let mut state = self.state();
        *state = State { updated: Some(now), queued: None, ..*state };
    }

    /// An attachment, a pin or a named interface is missing, or none is.
    pub(super) fn missing(&self, missing: bool, now: Moment) {
        let mut state = self.state();
        state.missing = missing.then(|| state.missing.unwrap_or(now.instant));
    }

    /// Whether load balancers may send traffic to this node.
    pub(super) fn set_node_eligible(&self, eligible: bool) {
        self.node_eligible.store(eligible, Ordering::Relaxed);
    }

    /// Whatever is to be said of the node.
    pub(super) fn is_healthy(&self) -> bool {
        self.view(Moment::now()).healthy
    }

    /// The answer at `/healthz`.
    pub(super) fn healthz(&self) -> (StatusCode, String) {
        render(self.view(Moment::now()), Some(self.node_eligible.load(Ordering::Relaxed)))
    }

    /// The answer at `/livez`, for which the node does not matter; nor does what is missing, since a restart would not
    /// bring it back.
    pub(super) fn livez(&self) -> (StatusCode, String) {
        let state = State { missing: None, ..*self.state() };
        render(view(state, Moment::now(), self.patience), None)
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn view(&self, now: Moment) -> View {
        view(*self.state(), now, self.patience)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct View {
    updated: Option<Timestamp>,
    now: Timestamp,
    healthy: bool,
}

/// Healthy while it starts up: its first round may take long, and a restart would not make it shorter.
fn view(State { updated, queued, missing }: State, now: Moment, patience: Duration) -> View {
    let late = [queued, missing]
        .into_iter()
        .flatten()
        .any(|since| now.instant.saturating_duration_since(since) >= patience);
    View { updated: updated.map(|at| at.wall), now: now.wall, healthy: updated.is_none() || !late }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Body {
    last_updated: String,
    current_time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    node_eligible: Option<bool>,
    healthy: bool,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    status: BTreeMap<&'static str, Status>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    last_updated: String,
    healthy: bool,
}

fn render(view: View, node_eligible: Option<bool>) -> (StatusCode, String) {
    let View { updated, now, healthy } = view;
    let good = healthy && node_eligible != Some(false);
    // Both are written together, so they are as healthy as each other.
    let status =
        updated.map(|at| Family::ALL.map(|f| (f.name(), Status { last_updated: at.to_string(), healthy })));
    let body = Body {
        // Older versions of kube-proxy told when the loop last ran, changes or not, and some go by it.
        last_updated: if good { Some(now) } else { updated }.map_or(NEVER.to_owned(), |at| at.to_string()),
        current_time: now.to_string(),
        node_eligible,
        healthy,
        status: status.into_iter().flatten().collect(),
    };
    let code = if good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    // Strings and booleans can be written as JSON, whatever they are.
    (code, serde_json::to_string(&body).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);

    fn state(start: Instant, updated: Option<u64>, queued: Option<u64>) -> State {
        State {
            updated: updated.map(|s| at(start, s)),
            queued: queued.map(|s| start + Duration::from_secs(s)),
            missing: None,
        }
    }

    fn at(start: Instant, seconds: u64) -> Moment {
        let wall = "2026-01-02T03:00:00.25Z".parse::<Timestamp>().unwrap();
        Moment { instant: start + Duration::from_secs(seconds), wall: wall + Duration::from_secs(seconds) }
    }

    #[test]
    fn a_change_that_waits_too_long_is_unhealthy() {
        let start = Instant::now();
        for (updated, queued, healthy) in [
            (None, None, true),
            (None, Some(0), true),
            (Some(0), None, true),
            (Some(0), Some(41), true),
            (Some(0), Some(40), false),
            (Some(99), Some(1), false),
        ] {
            let view = view(state(start, updated, queued), at(start, 100), PATIENCE);
            assert_eq!(view.healthy, healthy, "{updated:?} {queued:?}");
        }
    }

    #[test]
    fn only_the_first_of_several_changes_counts_and_a_round_settles_all() {
        let start = Instant::now();
        let health = Health::new(PATIENCE);
        let healthy = |seconds| health.view(at(start, seconds)).healthy;
        health.updated(at(start, 0));
        assert!(healthy(1_000));
        health.queued(at(start, 10));
        health.queued(at(start, 60));
        assert!(healthy(69) && !healthy(70));
        health.updated(at(start, 71));
        assert!(healthy(1_000));
    }

    #[test]
    fn what_is_missing_for_long_is_unhealthy_whatever_is_written() {
        let start = Instant::now();
        let health = Health::new(PATIENCE);
        let healthy = |seconds| health.view(at(start, seconds)).healthy;
        health.updated(at(start, 0));
        health.missing(true, at(start, 10));
        health.missing(true, at(start, 60));
        health.updated(at(start, 65));
        assert!(healthy(69) && !healthy(70));
        health.missing(false, at(start, 71));
        assert!(healthy(1_000));
    }

    #[test]
    fn bodies_are_those_of_kube_proxy() {
        let start = Instant::now();
        let render = |updated, queued, eligible| {
            let (code, body) =
                render(view(state(start, updated, queued), at(start, 100), PATIENCE), eligible);
            (code.as_u16(), body)
        };
        let (early, now) = ("2026-01-02T03:00:01.25Z", "2026-01-02T03:01:40.25Z");
        let status = |healthy: bool| {
            let status = format!(r#"{{"lastUpdated":"{early}","healthy":{healthy}}}"#);
            format!(r#","status":{{"IPv4":{status},"IPv6":{status}}}"#)
        };
        for (updated, queued, eligible, code, last, rest) in [
            (None, None, Some(true), 200, now, r#""nodeEligible":true,"healthy":true"#.to_owned()),
            (None, Some(0), Some(false), 503, NEVER, r#""nodeEligible":false,"healthy":true"#.to_owned()),
            (None, None, None, 200, now, r#""healthy":true"#.to_owned()),
            (
                Some(1),
                None,
                Some(true),
                200,
                now,
                r#""nodeEligible":true,"healthy":true"#.to_owned() + &status(true),
            ),
            (
                Some(1),
                None,
                Some(false),
                503,
                early,
                r#""nodeEligible":false,"healthy":true"#.to_owned() + &status(true),
            ),
            (
                Some(1),
                Some(2),
                Some(true),
                503,
                early,
                r#""nodeEligible":true,"healthy":false"#.to_owned() + &status(false),
            ),
            (Some(1), Some(2), None, 503, early, r#""healthy":false"#.to_owned() + &status(false)),
            (Some(1), None, None, 200, now, r#""healthy":true"#.to_owned() + &status(true)),
        ] {
            let expected = format!(r#"{{"lastUpdated":"{last}","currentTime":"{now}",{rest}}}"#);
            assert_eq!(render(updated, queued, eligible), (code, expected));
        }
    }
}

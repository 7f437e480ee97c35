//! The client: one thread that asks on many connections.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use lab::Netns;

use super::{
    connection::Connection,
    outcome::{Outcome, record},
    poller::{Poller, exact_timers},
};

/// How long answers may take before a connection counts as failed: less than TCP takes to try a third time.
pub(crate) const PATIENCE: Duration = Duration::from_secs(2);
/// How long a kept connection may take to open.
const OPEN: Duration = Duration::from_secs(3);
/// Between two looks for connections that had no answer for too long.
const SWEEP: Duration = Duration::from_millis(100);

/// What the client is to do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Demand {
    pub(crate) to: SocketAddr,
    /// The client's first address; connections take turns with those after it.
    pub(crate) from: IpAddr,
    pub(crate) addresses: u32,
    pub(crate) kept: Kept,
    pub(crate) brief: Brief,
}

/// Connections that stay open.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kept {
    pub(crate) number: u32,
    /// From one request to the next of the same connection; none: the next follows the answer.
    pub(crate) pace: Option<Duration>,
}

/// Connections for one request each.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Brief {
    /// None.
    Never,
    /// So many at any time.
    Workers(u32),
    /// One in so long.
    Every(Duration),
}

/// A client with its kept connections.
pub(crate) struct Client {
    ns: Netns,
    demand: Demand,
    poller: Poller,
    /// Kept ones by their number; none if it is broken.
    kept: Vec<Option<Connection>>,
    /// The others, by tokens beyond those of kept ones.
    brief: HashMap<u64, Connection>,
    /// The next token, and what says which address is next.
    next: u64,
}

impl Client {
    /// No connection is open yet.
    pub(crate) fn new(ns: &Netns, demand: Demand) -> anyhow::Result<Self> {
        let kept = (0..demand.kept.number).map(|_| None).collect();
        let poller = Poller::new().context("cannot make an epoll instance")?;
        let next = demand.kept.number.into();
        Ok(Self { ns: ns.clone(), demand, poller, kept, brief: HashMap::new(), next })
    }

    /// Opens kept connections that are not open.
    pub(crate) fn open(&mut self) -> anyhow::Result<()> {
        let ns = self.ns.clone();
        ns.run(|| {
            for number in 0..self.kept.len() {
                if self.kept.get(number).is_some_and(Option::is_some) {
                    continue;
                }
                let to = self.demand.to;
                let connection = Connection::open(self.source(), to, Some(OPEN))
                    .with_context(|| format!("cannot connect to {to}"))?;
                self.poller.add(connection.socket(), number as u64)?;
                if let Some(place) = self.kept.get_mut(number) {
                    *place = Some(connection);
                }
            }
            Ok(())
        })?
    }

    /// Asks from now on, and counts what is due from `begin` to `end`.
    pub(crate) fn run(&mut self, begin: Instant, end: Instant) -> anyhow::Result<Outcome> {
        let ns = self.ns.clone();
        ns.run(|| self.ask(begin, end))?
    }

    fn ask(&mut self, begin: Instant, end: Instant) -> anyhow::Result<Outcome> {
        let mut run = Run { begin, outcome: Outcome::new()?, pace: self.demand.kept.pace, closing: false };
        exact_timers();
        let started = Instant::now();
        for connection in self.kept.iter_mut().flatten() {
            connection.answered = started.max(begin);
            connection.longest = Duration::ZERO;
        }
        let mut due_kept = Schedule::new(started, self.pace_of_all());
        let mut due_brief = Schedule::new(
            started,
            match self.demand.brief {
                Brief::Every(interval) => Some(interval),
                _ => None,
            },
        );
        self.start(&mut run, started);
        let mut swept = started;
        loop {
            let now = Instant::now();
            // What is under way at the end is waited for.
            run.closing = now >= end;
            if run.closing && (now >= end + PATIENCE || !self.waits()) {
                break;
            }
            while let Some((number, due)) = due_kept.take(now).filter(|_| !run.closing) {
                let number = (number % u64::from(self.demand.kept.number.max(1))) as usize;
                self.request(&mut run, number, due);
            }
            while let Some((_, due)) = due_brief.take(now).filter(|_| !run.closing) {
                self.dial(&mut run, due);
            }
            if now.duration_since(swept) > SWEEP {
                swept = now;
                self.sweep(&mut run, now);
            }
            let next = [due_kept.next(), due_brief.next()].into_iter().flatten().fold(end, Instant::min);
            let next = if run.closing { end + PATIENCE } else { next };
            let longest = next.saturating_duration_since(Instant::now()).min(SWEEP);
            for token in self.poller.wait(longest).context("cannot wait for sockets")? {
                self.news(&mut run, token);
            }
        }
        Ok(self.finish(run, end))
    }

    /// Whether any answer is missing.
    fn waits(&self) -> bool {
        !self.brief.is_empty() || self.kept.iter().flatten().any(|connection| connection.oldest().is_some())
    }

    /// From one request to the next over all kept connections.
    fn pace_of_all(&self) -> Option<Duration> {
        Some(self.demand.kept.pace? / self.demand.kept.number.max(1))
    }

    /// In a closed loop, what everything else follows from.
    fn start(&mut self, run: &mut Run, now: Instant) {
        if self.demand.kept.pace.is_none() {
            for number in 0..self.kept.len() {
                let idle = |connection: &Connection| connection.oldest().is_none();
                if self.kept.get(number).and_then(Option::as_ref).is_some_and(idle) {
                    self.request(run, number, now);
                }
            }
        }
        if let Brief::Workers(number) = self.demand.brief {
            for _ in 0..number {
                self.dial(run, now);
            }
        }
    }

    fn request(&mut self, run: &mut Run, number: usize, due: Instant) {
        let Some(place) = self.kept.get_mut(number) else { return };
        if place.as_mut().is_some_and(|connection| connection.ask(due).is_err()) {
            *place = None;
            run.outcome.broken += 1;
        }
    }

    fn dial(&mut self, run: &mut Run, due: Instant) {
        let token = self.next;
        let opened = Connection::open(self.source(), self.demand.to, None).and_then(|mut connection| {
            connection.ask(due)?;
            self.poller.add(connection.socket(), token)?;
            Ok(connection)
        });
        match opened {
            Ok(connection) => drop(self.brief.insert(token, connection)),
            Err(_) => run.failed(due),
        }
    }

    fn source(&mut self) -> IpAddr {
        let number = (self.next % u64::from(self.demand.addresses.max(1))) as u32;
        self.next += 1;
        match self.demand.from {
            IpAddr::V4(first) => Ipv4Addr::from_bits(first.to_bits().wrapping_add(number)).into(),
            IpAddr::V6(first) => Ipv6Addr::from_bits(first.to_bits().wrapping_add(number.into())).into(),
        }
    }

    fn news(&mut self, run: &mut Run, token: u64) {
        if let Some(place) = self.kept.get_mut(token as usize) {
            let Some(connection) = place else { return };
            let now = Instant::now();
            let answers = connection.flush().and_then(|()| connection.answers());
            let Ok(answers) = answers else {
                *place = None;
                run.outcome.broken += 1;
                return;
            };
            for due in &answers {
                run.answered(connection, *due, now);
            }
            if run.pace.is_none() && !run.closing && !answers.is_empty() {
                self.request(run, token as usize, now);
            }
        } else if let Some(connection) = self.brief.get_mut(&token) {
            let due = connection.oldest();
            match connection.flush().and_then(|()| connection.answers()) {
                Ok(answers) if answers.is_empty() => return,
                Ok(answers) => answers.iter().for_each(|due| run.opened(*due)),
                Err(_) => run.failed(due.unwrap_or(run.begin)),
            }
            self.brief.remove(&token);
            self.follow(run);
        }
    }

    /// In a closed loop, the connection after one that has ended.
    fn follow(&mut self, run: &mut Run) {
        if matches!(self.demand.brief, Brief::Workers(_)) && !run.closing {
            self.dial(run, Instant::now());
        }
    }

    /// Gives up connections that wait for too long.
    fn sweep(&mut self, run: &mut Run, now: Instant) {
        let late = |connection: &Connection| {
            connection.oldest().is_some_and(|due| now.saturating_duration_since(due) > PATIENCE)
        };
        let gone: Vec<_> = self.brief.extract_if(|_, connection| late(connection)).collect();
        for (_, connection) in gone {
            run.failed(connection.oldest().unwrap_or(now));
            connection.abort();
            self.follow(run);
        }
    }

    fn finish(&mut self, mut run: Run, end: Instant) -> Outcome {
        let now = Instant::now();
        for (_, connection) in self.brief.drain() {
            run.failed(connection.oldest().unwrap_or(end));
            connection.abort();
        }
        let pace = run.pace.unwrap_or_default();
        for connection in self.kept.iter().flatten() {
            // What has not come to an end yet is as long as it is so far.
            let silence = if connection.oldest().is_some() {
                run.outcome.stuck += 1;
                now.saturating_duration_since(connection.answered)
            } else {
                Duration::ZERO
            };
            record(&mut run.outcome.stalls, connection.longest.max(silence).saturating_sub(pace));
        }
        // What waits for an answer will have none that counts, and would be in the way of the next run.
        for place in &mut self.kept {
            if let Some(connection) = place.take_if(|connection| connection.oldest().is_some()) {
                connection.abort();
            }
        }
        run.outcome.elapsed = end.saturating_duration_since(run.begin);
        run.outcome
    }
}

/// Counts what happens in a run.
struct Run {
    begin: Instant,
    outcome: Outcome,
    pace: Option<Duration>,
    /// Nothing more is asked.
    closing: bool,
}

impl Run {
    fn answered(&mut self, connection: &mut Connection, due: Instant, now: Instant) {
        if now < self.begin {
            return;
        }
        connection.longest = connection.longest.max(now.saturating_duration_since(connection.answered));
        connection.answered = now;
        if due >= self.begin {
            record(&mut self.outcome.delays, now.saturating_duration_since(due));
        }
    }

    fn opened(&mut self, due: Instant) {
        if due >= self.begin {
            record(&mut self.outcome.opening, due.elapsed());
        }
    }

    fn failed(&mut self, due: Instant) {
        if due >= self.begin {
            self.outcome.failed += 1;
        }
    }
}

/// Times at equal distances.
struct Schedule {
    start: Instant,
    interval: Option<Duration>,
    taken: u64,
}

impl Schedule {
    const fn new(start: Instant, interval: Option<Duration>) -> Self {
        Self { start, interval, taken: 0 }
    }

    /// The next time, if it has come, and its number.
    fn take(&mut self, now: Instant) -> Option<(u64, Instant)> {
        let due = self.next().filter(|due| *due <= now)?;
        self.taken += 1;
        Some((self.taken - 1, due))
    }

    fn next(&self) -> Option<Instant> {
        let offset = self.interval?.as_nanos().checked_mul(self.taken.into())?;
        Some(self.start + Duration::from_nanos(u64::try_from(offset).ok()?))
    }
}

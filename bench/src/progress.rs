//! What is being done, on standard error: a line that is written anew on a terminal, a line each elsewhere.
//!
//! Nothing ticks between two steps: a thread that wakes up would be measured too.

use std::{
    fmt::Display,
    io::{IsTerminal as _, Write as _, stderr},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use terminal_size::{Width, terminal_size_of};

/// Standard error is one for all threads, and so is this.
static STATE: Mutex<Option<State>> = Mutex::new(None);

/// Sections ahead, and how far they are.
#[derive(Debug)]
struct State {
    /// How long each should take, in the order of their turns.
    expected: Vec<Duration>,
    /// The number of those begun.
    begun: usize,
    start: Instant,
    section: Instant,
}

/// As long as it lives, lines say what time is left.
pub(crate) struct Expected(());

/// Tells how long each section should take.
pub(crate) fn expect(expected: Vec<Duration>) -> Expected {
    let now = Instant::now();
    *lock() = Some(State { expected, begun: 0, start: now, section: now });
    Expected(())
}

/// Leaves the terminal to results and errors.
impl Drop for Expected {
    fn drop(&mut self) {
        *lock() = None;
        let mut stderr = stderr().lock();
        if stderr.is_terminal() {
            let _ = write!(stderr, "\r\x1b[2K");
        }
    }
}

/// The next of the sections begins.
pub(crate) fn enter() {
    if let Some(state) = lock().as_mut() {
        state.begun += 1;
        state.section = Instant::now();
    }
}

/// Says what is being done.
pub(crate) fn progress(text: impl Display) {
    let state = lock();
    let mut stderr = stderr().lock();
    let text = state.as_ref().map_or_else(|| text.to_string(), |state| state.line(&text));
    // Nobody listening is no reason to stop.
    let _ = match terminal_size_of(&stderr).filter(|_| stderr.is_terminal()) {
        Some((Width(width), _)) => write!(stderr, "\r\x1b[2K{}", fit(&text, width.into())),
        None => writeln!(stderr, "portico-bench: {text}"),
    };
    let _ = stderr.flush();
}

fn lock() -> std::sync::MutexGuard<'static, Option<State>> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    fn line(&self, text: &dyn Display) -> String {
        let done = self.section.duration_since(self.start);
        let left = left(&self.expected, self.begun, done, self.section.elapsed());
        let (begun, all) = (self.begun.max(1), self.expected.len());
        format!("[{begun}/{all}, about {} left] {text}", spoken(left))
    }
}

/// What the section that runs and those after it will take, given what those before it took (`done`) and should have.
fn left(expected: &[Duration], begun: usize, done: Duration, running: Duration) -> Duration {
    let (before, ahead) = expected.split_at(begun.saturating_sub(1).min(expected.len()));
    let before: Duration = before.iter().sum();
    // A slow machine is slow at everything; a short section says little of it.
    let pace = (done.as_secs_f64() + 10.0) / (before.as_secs_f64() + 10.0);
    let scaled = |section: &Duration| section.mul_f64(pace);
    let now = ahead.first().map(scaled).unwrap_or_default().saturating_sub(running);
    now + ahead.iter().skip(1).map(scaled).sum::<Duration>()
}

/// Rounded as befits an estimate.
fn spoken(duration: Duration) -> String {
    match duration.as_secs() {
        seconds if seconds < 10 => "10 s".to_owned(),
        seconds if seconds < 100 => format!("{} s", seconds.next_multiple_of(10)),
        seconds => format!("{} min", (seconds + 30) / 60),
    }
}

/// What of a text fits on a line. The last column stays empty, since some terminals begin a new line after it.
fn fit(text: &str, width: usize) -> String {
    text.chars().take(width.saturating_sub(1)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECONDS: fn(u64) -> Duration = Duration::from_secs;

    #[test]
    fn time_left_follows_the_pace_so_far() {
        let expected = [SECONDS(10), SECONDS(20), SECONDS(30)];
        assert_eq!(left(&expected, 1, SECONDS(0), SECONDS(4)), SECONDS(56));
        // Twice as slow as expected, as far as ten seconds can tell.
        assert_eq!(left(&expected, 2, SECONDS(30), SECONDS(10)), SECONDS(90));
        assert_eq!(left(&expected, 3, SECONDS(30), SECONDS(500)), SECONDS(0));
        assert_eq!(left(&[], 1, SECONDS(0), SECONDS(5)), SECONDS(0));
    }

    #[test]
    fn estimates_are_round() {
        assert_eq!(spoken(SECONDS(3)), "10 s");
        assert_eq!(spoken(SECONDS(61)), "70 s");
        assert_eq!(spoken(SECONDS(290)), "5 min");
    }

    #[test]
    fn lines_are_cut_between_characters() {
        assert_eq!(fit("µs, µs", 4), "µs,");
    }
}

use std::{
    fmt, thread,
    time::{Duration, Instant},
};

use super::LabError;

/// Pause between two looks. Short against anything a person would notice, long against the cost of a look.
const PAUSE: Duration = Duration::from_millis(20);

/// Looks again and again until `look` returns something.
///
/// # Errors
///
/// [`LabError::Deadline`] with `what` when `deadline` has passed.
pub fn eventually<T>(
    what: &str,
    deadline: Duration,
    mut look: impl FnMut() -> Option<T>,
) -> Result<T, LabError> {
    eventually_ok(what, deadline, || look().ok_or(Absent)).map_err(|e| match e {
        LabError::Deadline { what, after, last: _ } => LabError::Deadline { what, after, last: None },
        other => other,
    })
}

/// As [`eventually`], for a look that says why it is not satisfied; the last reason becomes part of the error.
///
/// # Errors
///
/// [`LabError::Deadline`] with `what` and the last reason when `deadline` has passed.
pub fn eventually_ok<T, E: fmt::Display>(
    what: &str,
    deadline: Duration,
    mut look: impl FnMut() -> Result<T, E>,
) -> Result<T, LabError> {
    let start = Instant::now();
    loop {
        match look() {
            Ok(found) => return Ok(found),
            Err(reason) if start.elapsed() >= deadline => {
                return Err(LabError::Deadline {
                    what: what.to_owned(),
                    after: deadline,
                    last: Some(reason.to_string()),
                });
            }
            Err(_) => thread::sleep(PAUSE),
        }
    }
}

struct Absent;

impl fmt::Display for Absent {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        Ok(())
    }
}

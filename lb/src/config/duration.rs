//! Durations as Go writes them.

use std::time::Duration;

use crate::text::quote;

/// Units with their nanoseconds; those that are the beginning of others come later.
const UNITS: [(&str, u64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("\u{b5}s", 1_000),
    ("\u{3bc}s", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// Parses what Go's `time.ParseDuration` takes, such as `1h30m`, `1.5s`, `0`.
///
/// # Errors
/// What is wrong with it; negative durations are, since none makes sense here.
pub(super) fn parse(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{} is not a duration such as \"1h30m\"", quote(text));
    if let Some(positive) = text.strip_prefix('-') {
        return match parse(positive) {
            Ok(Duration::ZERO) => Ok(Duration::ZERO),
            Ok(_) => Err(format!("{} is less than 0", quote(text))),
            Err(_) => Err(wrong()),
        };
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err(wrong());
    }
    let mut total = 0_u128;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
        let (number, tail) = rest.split_at(end);
        let (unit, nanoseconds) = UNITS.iter().find(|(unit, _)| tail.starts_with(unit)).ok_or_else(wrong)?;
        let part = scaled(number, *nanoseconds).ok_or_else(wrong)?;
        total = total
            .checked_add(part)
            .filter(|total| i64::try_from(*total).is_ok())
            .ok_or_else(|| format!("{} is longer than 292 years", quote(text)))?;
        rest = &tail[unit.len()..];
    }
    Ok(Duration::from_nanos(u64::try_from(total).unwrap_or(u64::MAX)))
}

/// A decimal number of units of `nanoseconds`; fractions of a nanosecond are cut off.
fn scaled(number: &str, nanoseconds: u64) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return None;
    }
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let mut total = u128::from(whole) * u128::from(nanoseconds);
    let mut scale = u128::from(nanoseconds);
    for digit in fraction.bytes() {
        scale /= 10;
        total += u128::from(digit - b'0') * scale;
    }
    Some(total)
}

/// Writes it as Go's `Duration.String` does: `24h0m0s`, `1.5s`, `50ms`, `0s`.
#[must_use]
pub(super) fn format(duration: Duration) -> String {
    let nanoseconds = duration.as_nanos();
    let decimal = |unit: u128| {
        let text = format!("{}.{:09}", nanoseconds / unit, nanoseconds % unit * (1_000_000_000 / unit));
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    match nanoseconds {
        0 => "0s".to_owned(),
        1..1_000 => format!("{nanoseconds}ns"),
        1_000..1_000_000 => format!("{}\u{b5}s", decimal(1_000)),
        1_000_000..1_000_000_000 => format!("{}ms", decimal(1_000_000)),
        _ => {
            let (seconds, below) = (duration.as_secs(), duration.subsec_nanos());
            let rest = format!("{}.{below:09}", seconds % 60);
            let rest = rest.trim_end_matches('0').trim_end_matches('.');
            // A whole number of tens of seconds ends in 0, too.
            let rest = if below == 0 { (seconds % 60).to_string() } else { rest.to_owned() };
            match (seconds / 3_600, seconds / 60 % 60) {
                (0, 0) => format!("{rest}s"),
                (0, minutes) => format!("{minutes}m{rest}s"),
                (hours, minutes) => format!("{hours}h{minutes}m{rest}s"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_go_writes_and_writes_it_again() {
        for (text, nanoseconds, again) in [
            ("0", 0, "0s"),
            ("0s", 0, "0s"),
            ("-0s", 0, "0s"),
            ("+5s", 5_000_000_000, "5s"),
            ("50ms", 50_000_000, "50ms"),
            ("1.5ms", 1_500_000, "1.5ms"),
            ("10us", 10_000, "10\u{b5}s"),
            ("10\u{b5}s", 10_000, "10\u{b5}s"),
            ("10\u{3bc}s", 10_000, "10\u{b5}s"),
            ("999ns", 999, "999ns"),
            ("30s", 30_000_000_000, "30s"),
            (".5s", 500_000_000, "500ms"),
            ("2.s", 2_000_000_000, "2s"),
            ("1.25s", 1_250_000_000, "1.25s"),
            ("90s", 90_000_000_000, "1m30s"),
            ("1h30m", 5_400_000_000_000, "1h30m0s"),
            ("24h0m0s", 86_400_000_000_000, "24h0m0s"),
            ("1h0m20.5s", 3_620_500_000_000, "1h0m20.5s"),
        ] {
            let duration = parse(text).expect(text);
            assert_eq!(duration, Duration::from_nanos(nanoseconds), "{text}");
            assert_eq!(format(duration), again, "{text}");
            assert_eq!(parse(again), Ok(duration));
        }
    }

    #[test]
    fn refuses_the_rest() {
        for text in ["", "+", "-", "5", "s", "5x", "1h30", "5 s", "..5s", "1.2.3s", "1d", "--5s", "tomorrow"]
        {
            let problem = parse(text).expect_err(text);
            assert!(problem.contains("is not a duration"), "{problem}");
        }
        assert_eq!(parse("-5s"), Err("\"-5s\" is less than 0".to_owned()));
        assert!(parse("9999999h").expect_err("too long").contains("longer"));
    }
}

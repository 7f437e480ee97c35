//! Text from outside, made fit for a log, a terminal and `status`: on one line, nothing that steers a terminal, and no
//! longer than is stated here. Pure.
//!
//! A string of a manifest, a file name or a message of the API server may be of any size and hold any character.
//! [`quote`] is for such a string within a message, [`line`] for a whole message.

use std::{fmt, ops::Deref};

/// The most bytes of a string that [`quote`] shows. The longest name of an object, 253 bytes, fits.
pub const QUOTED: usize = 256;
/// The most bytes of a message that [`line`] makes.
pub const LINE: usize = 2_048;
/// The most messages about one file, or one object, that are kept.
pub const LINES: usize = 50;

/// A string in quotation marks, with escapes as Rust writes them; what is beyond [`QUOTED`] bytes is left out, and the
/// size of the whole said.
#[must_use]
pub fn quote(text: &str) -> Quoted<'_> {
    Quoted(text)
}

/// See [`quote`].
#[derive(Clone, Copy, Debug)]
pub struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(text) = self;
        let shown = &text[..text.floor_char_boundary(QUOTED)];
        write!(f, "{shown:?}")?;
        if shown.len() < text.len() { write!(f, "... ({} bytes)", text.len()) } else { Ok(()) }
    }
}

/// As [`quote`], without quotation marks.
#[must_use]
pub fn name(text: &str) -> String {
    let shown = &text[..text.floor_char_boundary(QUOTED)];
    let cut = if shown.len() < text.len() { format!("... ({} bytes)", text.len()) } else { String::new() };
    clean(shown) + &cut
}

/// Whether a character moves the cursor, changes how a terminal shows what follows, or cannot be seen.
fn is_unfit(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

fn push(text: &mut String, c: char) {
    if is_unfit(c) {
        text.extend(c.escape_debug());
    } else {
        text.push(c);
    }
}

/// A text with escapes for all that may not be shown as it is, line breaks included; of any length.
#[must_use]
pub fn clean(text: &str) -> String {
    let mut cleaned = String::with_capacity(text.len());
    text.chars().for_each(|c| push(&mut cleaned, c));
    cleaned
}

/// A message: on one line, and no longer than [`LINE`] bytes. Of a longer one the middle is left out, since its beginning
/// says what was attempted and its end why it failed.
#[must_use]
pub fn line(text: impl Into<String>) -> String {
    let text = text.into();
    if text.len() <= LINE && !text.contains(is_unfit) {
        return text;
    }
    let text = text.trim();
    if fitting(text.chars(), LINE) == text.len() {
        return clean(text);
    }
    let cut = format!(" ... ({} bytes) ... ", text.len());
    let room = LINE - cut.len();
    let head = fitting(text.chars(), room / 4 * 3);
    let tail = text.len() - fitting(text.chars().rev(), room / 4);
    clean(&text[..head]) + &cut + &clean(&text[tail..])
}

/// Bytes of the first characters that take no more than `room` bytes with their escapes.
fn fitting(chars: impl Iterator<Item = char>, room: usize) -> usize {
    let (mut bytes, mut shown) = (0, 0);
    for c in chars {
        shown += if is_unfit(c) { c.escape_debug().count() } else { c.len_utf8() };
        if shown > room {
            break;
        }
        bytes += c.len_utf8();
    }
    bytes
}

/// Messages, each as [`line`] makes it; of more than [`LINES`] the first, and how many more there are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lines {
    lines: Vec<String>,
    more: usize,
}

impl Lines {
    /// Adds a message.
    pub fn push(&mut self, text: impl Into<String>) {
        if self.lines.len() < LINES {
            self.lines.push(line(text));
        } else {
            self.count(1);
        }
    }

    /// Adds what another has.
    pub fn append(&mut self, other: Self) {
        let shown = other.lines.len() - usize::from(other.more > 0);
        other.lines.into_iter().take(shown).for_each(|line| self.push(line));
        self.count(other.more);
    }

    fn count(&mut self, more: usize) {
        if more > 0 {
            self.more += more;
            self.lines.truncate(LINES);
            self.lines.push(format!("{} more like these", self.more));
        }
    }
}

impl Deref for Lines {
    type Target = Vec<String>;

    fn deref(&self) -> &Vec<String> {
        &self.lines
    }
}

impl From<Lines> for Vec<String> {
    fn from(lines: Lines) -> Self {
        lines.lines
    }
}

impl<T: Into<String>> Extend<T> for Lines {
    fn extend<I: IntoIterator<Item = T>>(&mut self, lines: I) {
        lines.into_iter().for_each(|line| self.push(line));
    }
}

impl<T: Into<String>> FromIterator<T> for Lines {
    fn from_iter<I: IntoIterator<Item = T>>(lines: I) -> Self {
        let mut all = Self::default();
        all.extend(lines);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quotation_is_bounded_and_steers_no_terminal() {
        assert_eq!(quote("web").to_string(), "\"web\"");
        assert_eq!(quote("\u{1b}[31m\n\u{202e}").to_string(), r#""\u{1b}[31m\n\u{202e}""#);
        let name = "a".repeat(253);
        assert_eq!(quote(&name).to_string(), format!("{name:?}"));
        let long = quote(&"\u{e4}".repeat(50_000_000)).to_string();
        assert!(long.ends_with("... (100000000 bytes)") && long.len() < QUOTED + 32, "{long}");
        let escapes = quote(&"\u{1b}".repeat(1_000)).to_string();
        assert!(escapes.len() < 6 * QUOTED + 32 && !escapes.contains('\u{1b}'), "{escapes}");
    }

    #[test]
    fn a_message_is_one_line_of_limited_length() {
        assert_eq!(line("cannot read x: no such file"), "cannot read x: no such file");
        assert_eq!(line("a\u{1b}[2Jb\nc\u{9b}d\u{2028}e\n"), r"a\u{1b}[2Jb\nc\u{9b}d\u{2028}e");
        assert_eq!(line("Stra\u{df}e \"x\" \\n"), "Stra\u{df}e \"x\" \\n", "what is fit stays, escapes too");
        for filler in ["x", "\u{e4}", "\u{1b}", "\u{202e}"] {
            let text = format!("cannot write{}: no room", filler.repeat(1_000_000));
            let shown = line(text.clone());
            assert!(shown.len() <= LINE && shown.len() > LINE / 2, "{} bytes", shown.len());
            assert!(shown.starts_with("cannot write") && shown.ends_with(": no room"), "{shown}");
            assert!(shown.contains(&format!("({} bytes)", text.len())), "{shown}");
            assert!(!shown.contains(is_unfit));
            assert_eq!(line(shown.clone()), shown, "once is enough");
        }
    }

    #[test]
    fn messages_are_counted_beyond_the_first() {
        let few = || (0..LINES).map(|i| format!("line {i}")).collect::<Lines>();
        let mut lines = few();
        assert_eq!(lines.len(), LINES);
        lines.extend(["a", "b"]);
        let mut all = few();
        all.append(lines);
        all.push("c");
        assert_eq!(all.len(), LINES + 1);
        assert_eq!(all.last().map(String::as_str), Some("53 more like these"));
    }
}

//! Annotations that say how many connections a Service takes.

use std::collections::BTreeMap;

use super::Remarks;
use crate::model::GuardWish;
use crate::text::quote;

/// From how many SYNs a second on clients have to prove their address: a number, `always` or `never`.
pub const SYN_COOKIES: &str = "portico.dev/syn-cookies";
/// The most new connections a second; 0: any number.
pub const MAX_NEW_FLOWS: &str = "portico.dev/max-new-flows";
/// The most new connections of one source a second; 0: any number.
pub const MAX_NEW_FLOWS_PER_SOURCE: &str = "portico.dev/max-new-flows-per-source";

/// What a Service's annotations say. A mistake is no defect: the rest of the Service is served as it is now.
pub(super) fn guard(annotations: Option<&BTreeMap<String, String>>, remarks: &mut Remarks) -> GuardWish {
    let mut number = |name: &str, words: &[(&str, u32)]| {
        let text = annotations?.get(name)?.trim();
        let word = words.iter().find(|(word, _)| *word == text).map(|(_, number)| *number);
        let number = word.or_else(|| text.parse().ok());
        if number.is_none() {
            let words: Vec<_> = words.iter().map(|(word, _)| format!(" or {word}")).collect();
            let note = format!(
                "metadata.annotations[{name}]: {} is not a number from 0 to {}{}, and is skipped",
                quote(text),
                u32::MAX,
                words.concat()
            );
            remarks.notes.push(note);
        }
        number
    };
    GuardWish {
        cookies: number(SYN_COOKIES, &[("always", 1), ("never", 0)]),
        flows: number(MAX_NEW_FLOWS, &[]),
        source_flows: number(MAX_NEW_FLOWS_PER_SOURCE, &[]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(entries: &[(&str, &str)]) -> (GuardWish, Vec<String>) {
        let annotations =
            entries.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
        let mut remarks = Remarks::default();
        (guard(Some(&annotations), &mut remarks), remarks.notes.into())
    }

    #[test]
    fn annotations_are_numbers_or_words() {
        let (wish, notes) =
            read(&[(SYN_COOKIES, "always"), (MAX_NEW_FLOWS, " 500 "), (MAX_NEW_FLOWS_PER_SOURCE, "0")]);
        assert_eq!(wish, GuardWish { cookies: Some(1), flows: Some(500), source_flows: Some(0) });
        assert!(notes.is_empty(), "{notes:?}");
        assert_eq!(read(&[(SYN_COOKIES, "never")]).0.cookies, Some(0));
        assert_eq!(read(&[(SYN_COOKIES, "20000")]).0.cookies, Some(20_000));
        assert_eq!(read(&[("portico.dev/other", "x")]), (GuardWish::default(), Vec::new()));
    }

    #[test]
    fn what_is_no_number_is_skipped_and_said() {
        for text in ["", "-1", "many", "4294967296", "1.5"] {
            let (wish, notes) = read(&[(MAX_NEW_FLOWS, text), (SYN_COOKIES, text)]);
            assert_eq!(wish, GuardWish::default(), "{text:?}");
            assert_eq!(notes.len(), 2, "{notes:?}");
            assert!(notes[0].contains("always"), "{notes:?}");
        }
    }
}

//! Errors in words.

use crate::text;

/// An error with its sources, on one line of limited length: see [`text::line`].
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let sources = std::iter::successors(error.source(), |error| error.source());
    let chain = sources.fold(error.to_string(), |mut text, source| {
        let source = source.to_string();
        if !text.ends_with(&source) {
            text.push_str(": ");
            text.push_str(&source);
        }
        text
    });
    text::line(chain)
}

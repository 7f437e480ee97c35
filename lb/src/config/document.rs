//! The text of a configuration file to trees, one for each document. Nothing is interpreted yet, not even duplicates.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Number;

use crate::text::quote;

/// A value as it was written.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Tree {
    Null,
    Bool(bool),
    Number(Number),
    Text(String),
    List(Vec<Tree>),
    /// With keys in their order, some perhaps more than once.
    Map(Vec<(String, Tree)>),
}

impl fmt::Display for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Number(value) => write!(f, "{value}"),
            Self::Text(value) => quote(value).fmt(f),
            Self::List(_) => f.write_str("a list"),
            Self::Map(_) => f.write_str("a mapping"),
        }
    }
}

impl Tree {
    /// The text of a key of a mapping, if it is one.
    pub(super) fn text(&self, key: &str) -> Option<&str> {
        let Self::Map(entries) = self else { return None };
        entries.iter().find_map(|(name, value)| match value {
            Self::Text(text) if name == key => Some(text.as_str()),
            _ => None,
        })
    }
}

/// The documents of a file that are not empty, or what is wrong with one.
pub(super) fn read(text: &str) -> Vec<Result<Tree, String>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.trim_start().starts_with('{')
        && let Ok(tree) = serde_json::from_str(text)
    {
        return vec![Ok(tree)];
    }
    let mut documents = Vec::new();
    for (line, part) in split(text) {
        let tree = serde_saphyr::from_str_with_options::<Tree>(
            part,
            serde_saphyr::options! {
                with_snippet: false,
                emit_comments: false,
                duplicate_keys: serde_saphyr::DuplicateKeyPolicy::PassThrough,
                // Or `off` would be `false`.
                strict_booleans: true,
            },
        );
        match tree {
            Ok(Tree::Null) => {}
            Ok(tree) => documents.push(Ok(tree)),
            Err(error) => documents.push(Err(error.render_with_options(serde_saphyr::render_options! {
                formatter: &serde_saphyr::UserMessageFormatter,
                snippets: serde_saphyr::SnippetMode::Off,
                line_offset: line,
            }))),
        }
    }
    documents
}

/// Splits at the lines that begin with `---`, which YAML allows nowhere within a document, so that a mistake in one does
/// not hide the others; each with the number of lines ahead of it.
fn split(text: &str) -> Vec<(u64, &str)> {
    let (mut parts, mut start, mut first, mut offset) = (Vec::new(), 0, 0, 0);
    for (line, number) in text.split_inclusive('\n').zip(0..) {
        let rest = line.strip_prefix("---");
        if rest.is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n'])) {
            parts.push((first, &text[start..offset]));
            (start, first) = (offset, number);
        }
        offset += line.len();
    }
    parts.push((first, &text[start..]));
    // Comments and directives alone are no document.
    let blank = |line: &str| {
        let line = line.trim();
        line.is_empty() || line.starts_with('#') || line.starts_with('%') || line == "---" || line == "..."
    };
    parts.retain(|(_, part)| !part.lines().all(blank));
    parts
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Grower)
    }
}

struct Grower;

impl<'de> Visitor<'de> for Grower {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Null)
    }

    fn visit_none<E>(self) -> Result<Tree, E> {
        Ok(Tree::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Tree, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Tree, E> {
        Ok(Tree::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Tree, E> {
        Ok(Tree::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Tree, E> {
        Ok(Tree::Number(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Tree, E> {
        Number::from_f64(value).map(Tree::Number).ok_or_else(|| E::custom("not a finite number"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Tree, E> {
        Ok(Tree::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Tree, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Tree::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Tree, A::Error> {
        let mut map = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            map.push(entry);
        }
        Ok(Tree::Map(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(entries: &[(&str, Tree)]) -> Tree {
        Tree::Map(entries.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect())
    }

    #[test]
    fn keeps_what_was_written() {
        let text =
            "# first\n---\na: 1\nb: off\na: -2\n--- # second\nc: [x, 1.5, null, true]\n---\n# none\n...\n";
        assert_eq!(
            read(text),
            [
                Ok(map(&[
                    ("a", Tree::Number(1.into())),
                    ("b", Tree::Text("off".to_owned())),
                    ("a", Tree::Number((-2).into())),
                ])),
                Ok(map(&[(
                    "c",
                    Tree::List(vec![
                        Tree::Text("x".to_owned()),
                        Tree::Number(Number::from_f64(1.5).expect("finite")),
                        Tree::Null,
                        Tree::Bool(true),
                    ])
                )])),
            ]
        );
        assert_eq!(read("{\"a\": 1,\n\t\"a\": 2}").len(), 1, "JSON may be indented with tabs");
        assert_eq!(read(" \n# nothing\n"), []);
    }

    #[test]
    fn one_broken_document_does_not_hide_the_next() {
        let documents = read("a: 1\n---\nb: [\n---\nc: 1\n");
        assert_eq!(documents.len(), 3, "{documents:?}");
        let problem = documents[1].as_ref().expect_err("broken");
        assert!(problem.contains("line "), "{problem}");
        assert!(documents[2].is_ok());
    }
}

//! The fields of one kind of document that are set, by a file or by flags.

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Map, Value};

use super::{
    Given, Mistake, Note,
    document::Tree,
    duration,
    field::{Field, Preset, Used, is_zero},
    kind::Kind,
};

/// Fields and where else they may be.
#[derive(Debug)]
pub(super) struct Schema {
    pub(super) fields: &'static [Field],
    pub(super) renamed: &'static [(&'static str, &'static str)],
}

/// Where a value is from; flags have precedence.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Origin {
    /// The file, and the path in it.
    File(String, String),
    Flag(&'static str),
}

impl Origin {
    /// As people know it.
    pub(super) fn name(&self) -> String {
        match self {
            Self::File(file, path) => format!("{file}: {path}"),
            Self::Flag(flag) => format!("--{flag}"),
        }
    }

    pub(super) fn mistake(&self, problem: impl Into<String>) -> Mistake {
        let (place, path) = match self {
            Self::File(file, path) => (file.clone(), path.clone()),
            Self::Flag(flag) => (format!("--{flag}"), String::new()),
        };
        Mistake { place, path, problem: problem.into() }
    }
}

#[derive(Debug)]
pub(super) struct Settings {
    schema: &'static Schema,
    set: BTreeMap<&'static str, (Value, Origin)>,
}

impl Settings {
    pub(super) const fn new(schema: &'static Schema) -> Self {
        Self { schema, set: BTreeMap::new() }
    }

    /// Takes the fields of a document.
    pub(super) fn read_document(&mut self, file: &str, tree: &Tree, mistakes: &mut Vec<Mistake>) {
        if let Tree::Map(entries) = tree {
            let at = Mistake { place: file.to_owned(), ..Mistake::default() };
            self.read_section(entries, &at, mistakes);
        }
    }

    fn read_section(&mut self, entries: &[(String, Tree)], at: &Mistake, mistakes: &mut Vec<Mistake>) {
        for (i, (key, value)) in entries.iter().enumerate() {
            let here = at.below(key);
            if entries[..i].iter().any(|(earlier, _)| earlier == key) {
                mistakes.push(here.because("is there twice".to_owned()));
            } else if at.path.is_empty() && matches!(key.as_str(), "apiVersion" | "kind") {
                // They chose the schema.
            } else {
                self.read_entry(value, &here, mistakes);
            }
        }
    }

    fn read_entry(&mut self, value: &Tree, here: &Mistake, mistakes: &mut Vec<Mistake>) {
        let schema = self.schema;
        let fields: Vec<&Field> =
            schema.fields.iter().filter(|field| schema.names(field).any(|name| name == here.path)).collect();
        if let Some(field) = fields.first() {
            let Some(value) = field.kind.read(value, here, mistakes) else { return };
            for field in fields {
                if matches!(field.default, Preset::Unset(_) | Preset::Gone) && is_zero(&value) {
                    continue;
                }
                let origin = Origin::File(here.place.clone(), here.path.clone());
                if let Some((_, Origin::File(_, other))) =
                    self.set.insert(field.path, (value.clone(), origin))
                {
                    mistakes.push(here.because(format!("is the same as {other}")));
                }
            }
        } else if schema.is_section(&here.path) {
            match value {
                Tree::Null => {}
                Tree::Map(entries) => self.read_section(entries, here, mistakes),
                other => mistakes.push(here.because(format!("{other} is not a mapping"))),
            }
        } else {
            mistakes.push(here.because(schema.unknown(&here.path)));
        }
    }

    /// Takes the flags that are for its fields.
    pub(super) fn read_flags(&mut self, flags: &[Given], mistakes: &mut Vec<Mistake>) {
        for Given { flag, values } in flags {
            let fields = self.schema.fields.iter().filter(|field| field.flag == Some(flag));
            for (i, field) in fields.enumerate() {
                let origin = Origin::Flag(flag);
                let mut found = Vec::new();
                let value = match field.kind.given(values) {
                    Ok(tree) => field.kind.read(&tree, &origin.mistake(""), &mut found),
                    Err(problem) => {
                        found.push(origin.mistake(problem));
                        None
                    }
                };
                if i == 0 {
                    mistakes.append(&mut found);
                }
                // As of a variable that is not set.
                if let Some(value) = value.filter(|value| !is_nothing(value)) {
                    self.set.insert(field.path, (value, origin));
                }
            }
        }
    }

    /// Where a field was set, if it was.
    pub(super) fn origin(&self, path: &str) -> Option<&Origin> {
        self.set.get(path).map(|(_, origin)| origin)
    }

    /// Whether anything was set.
    pub(super) fn is_empty(&self) -> bool {
        self.set.is_empty()
    }

    pub(super) fn value(&self, path: &str) -> Value {
        let preset = || self.schema.fields.iter().find(|field| field.path == path)?.default.value();
        self.set.get(path).map(|(value, _)| value.clone()).or_else(preset).unwrap_or_default()
    }

    pub(super) fn text(&self, path: &str) -> String {
        self.value(path).as_str().unwrap_or_default().to_owned()
    }

    pub(super) fn bool(&self, path: &str) -> bool {
        self.value(path).as_bool().unwrap_or_default()
    }

    pub(super) fn int(&self, path: &str) -> i64 {
        self.value(path).as_i64().unwrap_or_default()
    }

    pub(super) fn duration(&self, path: &str) -> Duration {
        duration::parse(&self.text(path)).unwrap_or_default()
    }

    pub(super) fn texts(&self, path: &str) -> Vec<String> {
        let value = self.value(path);
        let items = value.as_array().map(Vec::as_slice).unwrap_or_default();
        items.iter().filter_map(Value::as_str).map(str::to_owned).collect()
    }

    /// A note on each field that was set to something and means nothing.
    pub(super) fn notes(&self) -> impl Iterator<Item = Note> {
        self.schema.fields.iter().filter_map(|field| {
            let (value, origin) = self.set.get(field.path)?;
            match field.used {
                Used::Meaningless(reason) if !field.default.says(value) => {
                    Some(Note { object: origin.name(), reason: format!("means nothing here: {reason}") })
                }
                _ => None,
            }
        })
    }

    /// The whole document, defaults included.
    pub(super) fn document(&self, version: &str, kind: &str) -> Value {
        let mut root = Map::new();
        root.insert("apiVersion".to_owned(), version.into());
        root.insert("kind".to_owned(), kind.into());
        for field in self.schema.fields {
            if field.default != Preset::Gone {
                put(&mut root, field.path, self.value(field.path));
            }
        }
        Value::Object(root)
    }
}

/// Puts a value where a path with dots leads.
pub(super) fn put(section: &mut Map<String, Value>, path: &str, value: Value) {
    match path.split_once('.') {
        None => drop(section.insert(path.to_owned(), value)),
        Some((first, rest)) => {
            let below = section.entry(first).or_insert_with(|| Value::Object(Map::new()));
            if let Value::Object(below) = below {
                put(below, rest, value);
            }
        }
    }
}

fn is_nothing(value: &Value) -> bool {
    match value {
        Value::String(text) => text.is_empty(),
        value => value.as_array().is_some_and(Vec::is_empty) || value.as_object().is_some_and(Map::is_empty),
    }
}

impl Schema {
    /// All paths of a field.
    fn names<'a>(&'a self, field: &'a Field) -> impl Iterator<Item = &'a str> {
        let renamed = self.renamed.iter().filter(|(_, path)| *path == field.path).map(|(name, _)| *name);
        std::iter::once(field.path).chain(renamed)
    }

    fn paths(&self) -> impl Iterator<Item = &str> {
        self.fields.iter().flat_map(|field| self.names(field))
    }

    fn is_section(&self, path: &str) -> bool {
        self.paths().any(|field| field.strip_prefix(path).is_some_and(|rest| rest.starts_with('.')))
    }

    /// What is wrong with a path that does not exist.
    fn unknown(&self, path: &str) -> String {
        let sections = self.paths().flat_map(|field| {
            field.char_indices().filter(|(_, c)| *c == '.').map(|(end, _)| &field[..end]).chain([field])
        });
        match sections.into_iter().find(|name| name.eq_ignore_ascii_case(path)) {
            Some(name) => format!("unknown field; is it {name}?"),
            None => "unknown field".to_owned(),
        }
    }

    /// Flags with their fields, each once.
    pub(super) fn flags(&self) -> impl Iterator<Item = (&'static str, &'static Field)> {
        let fields: &'static [Field] = self.fields;
        fields.iter().enumerate().filter_map(move |(i, field)| {
            let flag = field.flag?;
            fields[..i].iter().all(|earlier| earlier.flag != Some(flag)).then_some((flag, field))
        })
    }
}

/// What the command line must know of a flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flag {
    /// Without dashes.
    pub name: &'static str,
    /// How help names its value.
    pub value: &'static str,
    /// Whether it may be given without a value, and has one only after `=`.
    pub bool: bool,
    /// Whether a value may begin with `-`.
    pub number: bool,
    /// What it does; none: nothing.
    pub help: Option<&'static str>,
    /// Whether kube-proxy has it, too.
    pub kube_proxy: bool,
}

impl Flag {
    pub(super) fn of(name: &'static str, field: &Field, kube_proxy: bool) -> Self {
        Self {
            name,
            value: field.kind.name(),
            bool: field.kind == Kind::Bool,
            number: matches!(field.kind, Kind::Int(..) | Kind::Number),
            help: match field.used {
                Used::Honoured(help) => Some(help),
                Used::Meaningless(_) => None,
            },
            kube_proxy,
        }
    }
}

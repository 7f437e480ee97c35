//! A document to objects. Pure.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use k8s_openapi::{
    api::{
        core::v1::{Node, Service},
        discovery::v1::EndpointSlice,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::{
    document::{Document, Entry, Format, OBJECTS},
    object::{Kind, Object},
};
use crate::{
    convert::{self, Selector},
    model::ObjectName,
    text::{self, Lines, quote},
};

/// What a document holds.
#[derive(Default)]
pub(super) struct Page {
    pub(super) entries: Vec<Entry>,
    pub(super) problems: Lines,
    pub(super) incomplete: bool,
}

/// Fills a [`Page`].
struct Reader<'a> {
    name: &'a str,
    line: usize,
    selector: &'a Selector,
    room: &'a Room,
    page: Page,
}

/// For how many more objects of the file there is room.
pub(super) struct Room(AtomicUsize);

impl Room {
    pub(super) fn new() -> Self {
        Self(AtomicUsize::new(OBJECTS))
    }

    fn take(&self) -> bool {
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |room| room.checked_sub(1)).is_ok()
    }
}

impl Reader<'_> {
    /// Adds an object, or one of a list's, whose `apiVersion` and `kind` may be those that the list implies.
    fn add(&mut self, place: &str, implied: Option<Kind>, value: Value) {
        let Value::Object(mut object) = value else {
            return self.lose(place, "not an object");
        };
        let kind = match (text(&object, "apiVersion"), text(&object, "kind"), implied) {
            ("", "", Some(kind)) => kind,
            (_, "", _) => return self.lose(place, "kind is missing"),
            ("", _, _) => return self.lose(place, "apiVersion is missing"),
            (version, kind, _) => match Kind::of(version, kind) {
                Some(kind) => kind,
                // Cut short, a kind of ours may look like another's; but then the name is missing, too.
                None if !is_named(&object) && !object.contains_key("items") => {
                    let (version, kind) = (text::name(version), text::name(kind));
                    return self.lose(place, &format!("{version} {kind} without a name"));
                }
                // No such kind exists, so it may be one of ours, misspelt.
                None if !exists(version, kind) => {
                    let (version, kind) = (text::name(version), text::name(kind));
                    return self.lose(place, &format!("{version} {kind} is not read here"));
                }
                // What else a cluster is made of is often in the same files.
                None => {
                    let Self { name, line, .. } = self;
                    let (version, kind) = (text::name(version), text::name(kind));
                    return tracing::debug!(file = name, line, "{place}{version} {kind} is skipped");
                }
            },
        };
        match default_namespace(kind, &mut object) {
            Ok(_) if !self.room.take() => {
                self.lose(place, &format!("more than {OBJECTS} objects in one file"));
            }
            Ok(name) => {
                let object = Object::read(kind, Value::Object(object), self.selector);
                let object = object.map_rejection(|reason| {
                    text::line(format!("{} line {}: {place}{reason}", self.name, self.line))
                });
                self.page.entries.push(((kind, name), Arc::new(object)));
            }
            Err(reason) => self.lose(place, &format!("{kind}: {reason}")),
        }
    }

    /// Notes that there may be an object of which not even the name can be made out.
    fn lose(&mut self, place: &str, problem: &str) {
        self.page.problems.push(format!("line {}: {place}{problem}", self.line));
        self.page.incomplete = true;
    }
}

/// The kinds of the core group that are not read.
const CORE: [&str; 15] = [
    "Binding",
    "ComponentStatus",
    "ConfigMap",
    "Endpoints",
    "Event",
    "LimitRange",
    "Namespace",
    "PersistentVolume",
    "PersistentVolumeClaim",
    "Pod",
    "PodTemplate",
    "ReplicationController",
    "ResourceQuota",
    "Secret",
    "ServiceAccount",
];

/// Whether there is such a kind; of groups from which nothing is read all are thought to exist.
fn exists(version: &str, kind: &str) -> bool {
    match version.rsplit_once('/') {
        None => version == "v1" && CORE.contains(&kind.strip_suffix("List").unwrap_or(kind)),
        Some((group, _)) => group != "discovery.k8s.io",
    }
}

fn is_named(object: &Map<String, Value>) -> bool {
    let metadata = object.get("metadata");
    ["name", "generateName"].iter().any(|key| metadata.and_then(|m| m.get(key)).is_some_and(Value::is_string))
}

/// The name, after the namespace has been set to what `kubectl` would set it to.
fn default_namespace(kind: Kind, object: &mut Map<String, Value>) -> Result<ObjectName, String> {
    let Some(Value::Object(metadata)) = object.get_mut("metadata") else {
        return Err("metadata is missing".to_owned());
    };
    if !kind.is_namespaced() {
        metadata.remove("namespace");
    } else {
        match metadata.get("namespace") {
            Some(Value::String(namespace)) if !namespace.is_empty() => {}
            None | Some(Value::Null | Value::String(_)) => {
                metadata.insert("namespace".to_owned(), Value::from("default"));
            }
            Some(_) => return Err("metadata.namespace is not a string".to_owned()),
        }
    }
    convert::object_name(&ObjectMeta {
        name: Some(text(metadata, "name").to_owned()),
        namespace: Some(text(metadata, "namespace").to_owned()),
        ..ObjectMeta::default()
    })
}

fn text<'a>(object: &'a Map<String, Value>, key: &str) -> &'a str {
    object.get(key).and_then(Value::as_str).unwrap_or_default()
}

pub(super) fn parse(
    name: &str,
    document: &Document<'_>,
    format: Format,
    selector: &Selector,
    room: &Room,
) -> Page {
    let mut reader = Reader { name, line: document.line, selector, room, page: Page::default() };
    let failed = match format {
        Format::Json => {
            let mut json = serde_json::Deserializer::from_str(document.text);
            let read = Manifest(&mut reader).deserialize(&mut json).and_then(|()| json.end());
            read.err().map(|e| e.to_string())
        }
        Format::Yaml => {
            let read = serde_saphyr::with_deserializer_from_str_with_options(
                document.text,
                options(document.text),
                |yaml| Manifest(&mut reader).deserialize(yaml),
            );
            read.err().map(|e| render(&e, document))
        }
    };
    let mut page = reader.page;
    if let Some(problem) = failed {
        // Half of a list is as good as nothing: what was good before counts for the whole document.
        let mut problems = Lines::default();
        problems.push(problem);
        return Page { problems, incomplete: true, ..Page::default() };
    }
    if format == Format::Yaml
        && let [((kind, _), object)] = page.entries.as_mut_slice()
        && object.rejected().is_some()
        && let Err(error) = read_typed(document.text, *kind)
    {
        let located = object
            .as_ref()
            .clone()
            .map_rejection(|_| text::line(format!("{name}: {}", render(&error, document))));
        *object = Arc::new(located);
    }
    page
}

/// Reads an object once more straight to its type, for the sake of the error: it names line and column, where the error
/// made from a value in memory can only say what it did not expect.
fn read_typed(text: &str, kind: Kind) -> Result<(), serde_saphyr::Error> {
    fn read<T: DeserializeOwned>(text: &str) -> Result<(), serde_saphyr::Error> {
        serde_saphyr::from_str_with_options::<T>(text, options(text)).map(drop)
    }
    match kind {
        Kind::Service => read::<Service>(text),
        Kind::Slice => read::<EndpointSlice>(text),
        Kind::Node => read::<Node>(text),
        // It has two versions, of which the type knows one.
        Kind::ServiceCidr => Ok(()),
    }
}

/// The error, with the line in the file.
fn render(error: &serde_saphyr::Error, document: &Document<'_>) -> String {
    let text = error.render_with_options(serde_saphyr::render_options! {
        formatter: &serde_saphyr::UserMessageFormatter,
        snippets: serde_saphyr::SnippetMode::Off,
        line_offset: document.first as u64 - 1,
    });
    if error.location().is_some() { text } else { format!("line {}: {text}", document.line) }
}

/// Limits that no honest document meets. A node takes at least two bytes, so the limits on them follow from the size of
/// the text; what must stay limited is what a few bytes could make many of, aliases.
fn options(text: &str) -> serde_saphyr::Options {
    serde_saphyr::options! {
        with_snippet: false,
        emit_comments: false,
        budget: serde_saphyr::budget! {
            max_events: 1_000_000 + 2 * text.len(),
            max_nodes: 1_000_000 + 2 * text.len(),
            max_total_scalar_bytes: (64 << 20) + text.len(),
        },
    }
}

/// A document: an object, or a list of them, whose items are converted one by one as they are read, because a whole
/// list in memory takes a multiple of its file.
struct Manifest<'a, 'b>(&'a mut Reader<'b>);

impl<'de> DeserializeSeed<'de> for Manifest<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Manifest<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a Kubernetes object")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut object = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            if object.contains_key(&key) {
                return Err(A::Error::custom(format!("{} is there twice", quote(&key))));
            }
            if key == "items"
                && let Some(implied) = list(&object)
            {
                map.next_value_seed(Items { reader: &mut *self.0, implied })?;
                object.insert(key, Value::Null);
            } else {
                object.insert(key, map.next_value()?);
            }
        }
        match (list(&object), object.remove("items")) {
            (Some(_), None | Some(Value::Null)) => {}
            // The kind came after the items.
            (Some(implied), Some(Value::Array(items))) => {
                for (i, item) in items.into_iter().enumerate() {
                    self.0.add(&format!("items[{i}]: "), implied, item);
                }
            }
            (Some(_), Some(_)) => self.0.lose("", "items is not a list"),
            (None, items) => {
                object.extend(items.map(|i| ("items".to_owned(), i)));
                self.0.add("", None, Value::Object(object));
            }
        }
        Ok(())
    }
}

/// Whether this is a list, and the kind that it implies of its items.
fn list(object: &Map<String, Value>) -> Option<Option<Kind>> {
    let kind = text(object, "kind").strip_suffix("List")?;
    let version = text(object, "apiVersion");
    if kind.is_empty() && version == "v1" { Some(None) } else { Kind::of(version, kind).map(Some) }
}

/// The `items` of a list.
struct Items<'a, 'b> {
    reader: &'a mut Reader<'b>,
    implied: Option<Kind>,
}

impl<'de> DeserializeSeed<'de> for Items<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Items<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of objects")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let mut i = 0_usize;
        while let Some(item) = items.next_element::<Value>()? {
            self.reader.add(&format!("items[{i}]: "), self.implied, item);
            i += 1;
        }
        Ok(())
    }
}

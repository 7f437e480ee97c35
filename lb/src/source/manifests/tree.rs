//! What all files together say, and how it differs from what was told. Pure.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    contents::{Clean, Contents},
    object::{Key, Kind, Object},
};
use crate::{
    model::change::{Change, Event, Outcome},
    text::Lines,
};

/// The files, by name, and what was told of them.
#[derive(Default)]
pub(super) struct Tree {
    files: BTreeMap<String, File>,
    /// Troubles that are no file's, by place.
    troubles: BTreeMap<String, String>,
    told: Told,
}

#[derive(Default)]
struct File {
    /// Good objects and the lines at which they begin.
    objects: BTreeMap<Key, (usize, Arc<Object>)>,
    problems: Lines,
    incomplete: bool,
    clean: Clean,
}

/// What is wrong with a place.
#[derive(Default, PartialEq, Eq)]
struct Trouble {
    problems: Vec<String>,
    incomplete: bool,
}

impl Trouble {
    fn event(&self, place: &str) -> Event {
        let Self { problems, incomplete } = self;
        Event::Trouble { place: place.to_owned(), problems: problems.clone(), incomplete: *incomplete }
    }
}

#[derive(Default)]
struct Told {
    objects: BTreeMap<Key, Arc<Object>>,
    troubles: BTreeMap<String, Trouble>,
}

impl Tree {
    /// Names of all files from which anything is known.
    pub(super) fn files(&self) -> impl Iterator<Item = &String> {
        self.files.keys()
    }

    /// What reading a file left for reading it again.
    pub(super) fn take_clean(&mut self, name: &str) -> Clean {
        self.files.get_mut(name).map(|f| std::mem::take(&mut f.clean)).unwrap_or_default()
    }

    /// A file was read. What is missing from an incomplete one stays as it was, since it may only be hidden behind
    /// the mistake.
    pub(super) fn put(&mut self, name: &str, contents: Contents) {
        let file = self.files.entry(name.to_owned()).or_default();
        let mut objects = BTreeMap::new();
        file.problems = contents.problems;
        file.clean = contents.clean;
        for (line, (key, object)) in contents.objects {
            match objects.get(&key) {
                None => {
                    objects.insert(key, (line, object));
                }
                Some((first, _)) => {
                    let (kind, name) = key;
                    file.problems
                        .push(format!("line {line}: {kind} {name} is in line {first} already, which counts"));
                }
            }
        }
        file.incomplete = contents.incomplete;
        if contents.incomplete {
            for (key, old) in std::mem::take(&mut file.objects) {
                objects.entry(key).or_insert(old);
            }
        }
        file.objects = objects;
    }

    /// A file cannot be read. What it held stays.
    pub(super) fn fail(&mut self, name: &str, problem: String) {
        let file = self.files.entry(name.to_owned()).or_default();
        file.problems = Lines::from_iter([problem]);
        file.incomplete = true;
    }

    /// A file is empty, which is what half of writing it anew looks like. So what it held stays; the way to say that
    /// it is to hold nothing is to delete it, or to leave a comment in it.
    pub(super) fn blank(&mut self, name: &str) {
        let file = self.files.entry(name.to_owned()).or_default();
        file.problems = match file.objects.len() {
            0 => Lines::default(),
            n => Lines::from_iter([format!(
                "the file is empty; its last {n} objects are kept until it is deleted or has a comment"
            )]),
        };
    }

    /// A file is gone, and what it held with it.
    pub(super) fn remove(&mut self, name: &str) {
        self.files.remove(name);
    }

    /// Sets or withdraws a trouble that is no file's.
    pub(super) fn trouble(&mut self, place: &str, problem: Option<String>) {
        match problem {
            Some(problem) => self.troubles.insert(place.to_owned(), problem),
            None => self.troubles.remove(place),
        };
    }

    /// All there is, as the first events.
    pub(super) fn first(&mut self, place: impl Fn(&str) -> String) -> Vec<Event> {
        let (objects, troubles) = self.merge(place);
        // Troubles first: with the last reset the receiver takes the state for complete.
        let mut events: Vec<_> = troubles.iter().map(|(place, trouble)| trouble.event(place)).collect();
        events.extend(Kind::ALL.iter().map(|kind| reset(*kind, &objects)));
        self.told = Told { objects, troubles };
        events
    }

    /// What changed since the last events. `place` makes a file's place of its name.
    pub(super) fn changes(&mut self, place: impl Fn(&str) -> String) -> Vec<Event> {
        let (objects, troubles) = self.merge(place);
        let told = std::mem::replace(&mut self.told, Told { objects, troubles });
        let now = &self.told;
        let mut events = Vec::new();
        for ((kind, name), object) in &now.objects {
            let old = told.objects.get(&(*kind, name.clone()));
            if !old.is_some_and(|old| Arc::ptr_eq(old, object) || old == object) {
                events.push(object.apply(name.clone()));
            }
        }
        for (kind, name) in told.objects.into_keys() {
            if !now.objects.contains_key(&(kind, name.clone())) {
                events.push(kind.delete(name));
            }
        }
        for (place, trouble) in &now.troubles {
            if told.troubles.get(place) != Some(trouble) {
                events.push(trouble.event(place));
            }
        }
        for place in told.troubles.keys().filter(|p| !now.troubles.contains_key(*p)) {
            events.push(Trouble::default().event(place));
        }
        events
    }

    /// Of an object in two files, the first file by name has the say.
    fn merge(
        &self,
        place: impl Fn(&str) -> String,
    ) -> (BTreeMap<Key, Arc<Object>>, BTreeMap<String, Trouble>) {
        let mut owners: BTreeMap<&Key, (&str, &Arc<Object>)> = BTreeMap::new();
        let outside = self.troubles.iter().map(|(place, problem)| {
            (place.clone(), Trouble { problems: vec![problem.clone()], incomplete: true })
        });
        let mut troubles: BTreeMap<_, _> = outside.collect();
        for (name, file) in &self.files {
            let mut problems = file.problems.clone();
            for (key, (line, object)) in &file.objects {
                match owners.get(key) {
                    None => {
                        owners.insert(key, (name, object));
                    }
                    Some((owner, _)) => {
                        let (kind, object) = key;
                        problems
                            .push(format!("line {line}: {kind} {object} is in {owner} too, which counts"));
                    }
                }
            }
            if !problems.is_empty() {
                troubles
                    .insert(place(name), Trouble { problems: problems.into(), incomplete: file.incomplete });
            }
        }
        (owners.into_iter().map(|(key, (_, object))| (key.clone(), Arc::clone(object))).collect(), troubles)
    }
}

fn reset(kind: Kind, objects: &BTreeMap<Key, Arc<Object>>) -> Event {
    fn all<T: Clone>(
        objects: &BTreeMap<Key, Arc<Object>>,
        pick: fn(&Object) -> Option<&Outcome<T>>,
    ) -> Change<T> {
        let of_kind =
            objects.iter().filter_map(|((_, name), object)| Some((name.clone(), pick(object)?.clone())));
        Change::Reset(of_kind.collect())
    }
    match kind {
        Kind::Service => Event::Service(all(objects, |o| match o {
            Object::Service(outcome) => Some(outcome),
            _ => None,
        })),
        Kind::Slice => Event::Slice(all(objects, |o| match o {
            Object::Slice(outcome) => Some(outcome),
            _ => None,
        })),
        Kind::Node => Event::Node(all(objects, |o| match o {
            Object::Node(outcome) => Some(outcome),
            _ => None,
        })),
        Kind::ServiceCidr => Event::ServiceCidr(all(objects, |o| match o {
            Object::ServiceCidr(outcome) => Some(outcome),
            _ => None,
        })),
    }
}

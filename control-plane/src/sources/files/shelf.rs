//! What each file said last, and what follows from all of them.
//!
//! Between `tree`, which says which file has which text, and `files`, which
//! passes on the events. Here is decided what a bad file may change:
//! - no YAML anywhere in it: nothing. It may have been cut off.
//! - blank: nothing. It may have been cut off at its first byte. To remove the
//!   objects delete the file, or leave a comment in it.
//! - a document that can't be taken: its object stays as it was; where it
//!   doesn't say which it is, every object of the file that isn't there stays.
//! - an object that another file has too: the first file by path has it.
//!
//! Pure: text in, events out.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    model::{Event, FileProblem, Key, Moved, Name, Object, Origin},
    sources::manifest::{self, Content, Document, Refusal},
};

#[derive(Debug, Default)]
pub(super) struct Shelf {
    files: BTreeMap<String, File>,
    /// Files that have this object.
    claims: BTreeMap<Key, BTreeSet<String>>,
    contested: BTreeSet<Key>,
    /// Files with problems of their own.
    faulty: BTreeSet<String>,
    events: Vec<Event>,
    moved: Vec<Moved>,
    /// Texts without a fault, and files that are gone.
    good: BTreeMap<String, Option<String>>,
}

#[derive(Debug, Default)]
struct File {
    objects: BTreeMap<Key, Held>,
    problems: Vec<FileProblem>,
}

#[derive(Clone, PartialEq, Debug)]
struct Held {
    object: Object,
    document: usize,
    line: u64,
}

impl Shelf {
    /// The file has this text now.
    pub(super) fn put(&mut self, path: &str, text: &str) {
        let before = self.files.get(path);
        let file = File::read(path, text, before.map(|it| &it.objects));
        if file.problems.is_empty() {
            self.good.insert(path.to_owned(), Some(text.to_owned()));
        }
        self.replace(path, Some(file));
    }

    /// The file is there and can't be read: nothing changes.
    pub(super) fn refuse(&mut self, path: &str, message: String, remedy: &str) {
        let refusal = Refusal::new("", message, remedy);
        let file = self.files.entry(path.to_owned()).or_default();
        file.problems = vec![problem(path, None, 0, None, refusal)];
        self.faulty.insert(path.to_owned());
    }

    /// The file is gone, and what it said with it.
    pub(super) fn remove(&mut self, path: &str) {
        self.good.insert(path.to_owned(), None);
        self.replace(path, None);
    }

    pub(super) fn paths(&self) -> impl Iterator<Item = &str> {
        self.files.keys().map(String::as_str)
    }

    pub(super) fn has(&self, path: &str) -> bool {
        self.files.contains_key(path)
    }

    /// Since they were last taken.
    pub(super) fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// Since they were last taken.
    pub(super) fn take_moved(&mut self) -> Vec<Moved> {
        std::mem::take(&mut self.moved)
    }

    /// Files that are good as they are, with their text, or gone; since they
    /// were last taken.
    pub(super) fn take_good(&mut self) -> BTreeMap<String, Option<String>> {
        std::mem::take(&mut self.good)
    }

    /// All that are wrong now, by file.
    pub(super) fn problems(&self) -> Vec<FileProblem> {
        let faulty = self.faulty.iter().filter_map(|it| self.files.get(it));
        let mut problems: Vec<_> = faulty.flat_map(|it| it.problems.clone()).collect();
        for key in &self.contested {
            let mut claims = self.claims.get(key).into_iter().flatten();
            let Some(owner) = claims.next() else { continue };
            for path in claims {
                let held = self.files.get(path).and_then(|file| file.objects.get(key));
                let Some(Held { document, line, .. }) = held else {
                    continue;
                };
                let refusal = Refusal::new(
                    "metadata.name",
                    format!("names {key}, which {owner} has already"),
                    "keep it in one of the two files",
                );
                problems.push(problem(
                    path,
                    Some(*document),
                    *line,
                    Some(key.clone()),
                    refusal,
                ));
            }
        }
        problems.sort();
        problems
    }

    fn replace(&mut self, path: &str, file: Option<File>) {
        let before = self
            .files
            .get(path)
            .map(|it| it.objects.clone())
            .unwrap_or_default();
        let mut keys: BTreeSet<Key> = before.into_keys().collect();
        keys.extend(file.iter().flat_map(|it| it.objects.keys().cloned()));
        let held: Vec<_> = keys
            .into_iter()
            .map(|key| (self.effective(&key).cloned(), self.origin(&key), key))
            .collect();
        for (_, _, key) in &held {
            let claims = self.claims.entry(key.clone()).or_default();
            match file.as_ref().is_some_and(|it| it.objects.contains_key(key)) {
                true => claims.insert(path.to_owned()),
                false => claims.remove(path),
            };
            match claims.len() {
                0 => self.claims.remove(key).is_some(),
                1 => self.contested.remove(key),
                _ => self.contested.insert(key.clone()),
            };
        }
        match file.as_ref().is_some_and(|it| !it.problems.is_empty()) {
            true => self.faulty.insert(path.to_owned()),
            false => self.faulty.remove(path),
        };
        match file {
            Some(file) => self.files.insert(path.to_owned(), file),
            None => self.files.remove(path),
        };
        for (before, origin, key) in held {
            let moved = Some(self.origin(&key)).filter(|it| *it != origin);
            self.moved.extend(moved.map(|to| (key.clone(), to)));
            let after = self.effective(&key);
            if before.as_ref() == after {
                continue;
            }
            let event = after.cloned().map_or(Event::Delete(key), Event::Apply);
            self.events.push(event);
        }
    }

    fn effective(&self, key: &Key) -> Option<&Object> {
        let owner = self.claims.get(key)?.first()?;
        Some(&self.files.get(owner)?.objects.get(key)?.object)
    }

    fn origin(&self, key: &Key) -> Option<Origin> {
        let file = self.claims.get(key)?.first()?;
        let document = self.files.get(file)?.objects.get(key)?.document;
        Some(Origin {
            file: file.clone(),
            document,
        })
    }
}

impl File {
    fn read(path: &str, text: &str, before: Option<&BTreeMap<Key, Held>>) -> Self {
        let nothing = BTreeMap::new();
        let before = before.unwrap_or(&nothing);
        let kept = |document, line, refusal| Self {
            objects: before.clone(),
            problems: vec![problem(path, document, line, None, refusal)],
        };
        if text.trim().is_empty() {
            return match before.is_empty() {
                true => Self::default(),
                false => kept(
                    None,
                    0,
                    Refusal::new(
                        "",
                        "is empty: its objects stay",
                        "delete the file to remove them",
                    ),
                ),
            };
        }
        let documents = match manifest::read(text) {
            Ok(documents) => documents,
            Err(it) => return kept(Some(it.document), it.line, it.refusal),
        };
        let mut file = Self::default();
        let mut stays = Stays::default();
        for document in documents {
            file.take(path, document, &mut stays);
        }
        for (key, held) in before {
            if stays.covers(key) && !file.objects.contains_key(key) {
                file.objects.insert(key.clone(), held.clone());
            }
        }
        file
    }

    fn take(&mut self, path: &str, document: Document, stays: &mut Stays) {
        let Document {
            index,
            line,
            content,
        } = document;
        let (key, refusal) = match content {
            Content::Object(object) => {
                let key = object.key();
                let Some(first) = self.objects.get(&key) else {
                    let held = Held {
                        object,
                        document: index,
                        line,
                    };
                    self.objects.insert(key, held);
                    return;
                };
                let message = format!(
                    "names {key} again, which document {} is already",
                    // As people count.
                    first.document + 1
                );
                (
                    Some(key),
                    Refusal::new("metadata.name", message, "keep one of the two documents"),
                )
            }
            Content::Foreign { refusal, .. } => (None, refusal),
            Content::Refused {
                key: Ok(key),
                refusal,
            } => {
                stays.keys.insert(key.clone());
                (Some(key), refusal)
            }
            Content::Refused {
                key: Err(Some(name)),
                refusal,
            } => {
                stays.names.insert(name);
                (None, refusal)
            }
            Content::Refused {
                key: Err(None),
                refusal,
            } => {
                stays.all = true;
                (None, refusal)
            }
        };
        self.problems
            .push(problem(path, Some(index), line, key, refusal));
    }
}

/// Objects that a file may have meant by a document that can't be taken.
#[derive(Default)]
struct Stays {
    keys: BTreeSet<Key>,
    names: BTreeSet<Name>,
    all: bool,
}

impl Stays {
    fn covers(&self, key: &Key) -> bool {
        self.all || self.keys.contains(key) || self.names.contains(&key.name)
    }
}

fn problem(
    path: &str,
    document: Option<usize>,
    line: u64,
    object: Option<Key>,
    refusal: Refusal,
) -> FileProblem {
    FileProblem {
        file: path.to_owned(),
        document,
        line,
        object,
        field: refusal.field,
        message: refusal.message,
        remedy: refusal.remedy,
        verdict: None,
    }
}

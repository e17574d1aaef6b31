//! What has been told of one kind's objects, so that what is read again tells
//! only what differs.
//!
//! Between `reflect`, which says what it sees, and `merge`. An object that can't
//! be taken changes nothing: it becomes a problem, and what was told of it holds
//! (a policy of which nothing was told is `closed`).
//! What a whole read doesn't show any more is gone.
//!
//! Pure: values in, news out.

use std::collections::HashMap;

use serde_json::Value;

use super::{
    closed,
    kinds::{self, Watched},
    templates::Templates,
    unread,
};
use crate::{
    model::{Event, FileProblem, Key, Kind, Name, Object, Verdict},
    sources::manifest::Refusal,
};

/// What `merge` hears of one kind.
#[derive(Debug, Default)]
pub(super) struct News {
    /// Which row of the table.
    pub(super) at: usize,
    pub(super) events: Vec<Event>,
    /// What is wrong with an object now; `None`: nothing any more.
    pub(super) problems: Vec<(Name, Option<FileProblem>)>,
    /// Everything that there was has been told.
    pub(super) is_whole: bool,
}

impl News {
    pub(super) fn len(&self) -> usize {
        self.events.len() + self.problems.len()
    }
}

#[derive(Debug)]
pub(super) struct Told {
    watched: &'static Watched,
    at: usize,
    /// The number of this read.
    round: u32,
    objects: HashMap<Name, Entry>,
    templates: Templates,
    refused: usize,
}

#[derive(Debug)]
struct Entry {
    /// The one that was looked at last, whatever became of it.
    version: Box<str>,
    seen: u32,
    is_told: bool,
    is_refused: bool,
    /// What was told is not its word but that it denies.
    is_closed: bool,
}

impl Told {
    pub(super) fn new(at: usize, watched: &'static Watched) -> Self {
        Self {
            watched,
            at,
            round: 0,
            objects: HashMap::new(),
            templates: Templates::default(),
            refused: 0,
        }
    }

    pub(super) fn news(&self) -> News {
        News {
            at: self.at,
            ..News::default()
        }
    }

    pub(super) fn len(&self) -> usize {
        self.objects.len()
    }

    /// Those among them that can't be taken as they are.
    pub(super) const fn refused(&self) -> usize {
        self.refused
    }

    /// A whole read begins.
    pub(super) const fn begin(&mut self) {
        self.round = self.round.wrapping_add(1);
    }

    /// It has ended: what it didn't show is gone.
    pub(super) fn end(&mut self, news: &mut News) {
        let gone: Vec<Name> = self
            .objects
            .iter()
            .filter(|(_, entry)| entry.seen != self.round)
            .map(|(name, _)| name.clone())
            .collect();
        for name in gone {
            self.forget(&name, news);
        }
    }

    pub(super) fn apply(&mut self, value: Value, news: &mut News) {
        let mut name = kinds::name(&value);
        let version: Box<str> = kinds::text(&value, "/metadata/resourceVersion").into();
        let (mut is_told, mut was_refused, mut was_closed) = (false, false, false);
        if let Some(entry) = self.objects.get_mut(&name) {
            entry.seen = self.round;
            if entry.version == version && !version.is_empty() {
                return;
            }
            (is_told, was_refused) = (entry.is_told, entry.is_refused);
            was_closed = entry.is_closed;
        }
        let may_open = self.watched.kind == Kind::AccessPolicy && (!is_told || was_closed);
        let verdict = unread::Subject::of(self.watched.kind, &value);
        let mut is_closed = false;
        let closed = may_open.then(|| closed::policy(&value));
        let decoded = self.watched.decode(value);
        let is_refused = decoded.is_err();
        match decoded {
            Ok(Some(mut object)) => {
                is_told = true;
                if let Object::Pod(pod) = &mut object {
                    self.templates.share(pod);
                }
                // The same name, once.
                name = object.key().name;
                news.events.push(Event::Apply(object));
            }
            Ok(None) => {
                if is_told {
                    news.events.push(Event::Delete(self.key(&name)));
                }
                is_told = false;
            }
            Err(mut refusal) => {
                if let Some(policy) = closed {
                    (is_told, is_closed) = (true, true);
                    news.events.push(Event::Apply(Object::AccessPolicy(policy)));
                    refusal.message += ", and until it can be read it denies all that it is for";
                }
                let verdict = verdict.map(|it| it.verdict(&refusal));
                let problem = problem(self.key(&name), refusal, verdict);
                news.problems.push((name.clone(), Some(problem)));
            }
        }
        if was_refused && !is_refused {
            news.problems.push((name.clone(), None));
        }
        self.refused = self.refused + usize::from(is_refused) - usize::from(was_refused);
        let entry = Entry {
            version,
            seen: self.round,
            is_told,
            is_refused,
            is_closed,
        };
        self.objects.insert(name, entry);
    }

    pub(super) fn delete(&mut self, value: &Value, news: &mut News) {
        self.forget(&kinds::name(value), news);
    }

    fn forget(&mut self, name: &Name, news: &mut News) {
        let Some(entry) = self.objects.remove(name) else {
            return;
        };
        if entry.is_told {
            news.events.push(Event::Delete(self.key(name)));
        }
        if entry.is_refused {
            self.refused -= 1;
            news.problems.push((name.clone(), None));
        }
    }

    fn key(&self, name: &Name) -> Key {
        Key {
            kind: self.watched.kind,
            name: name.clone(),
        }
    }
}

fn problem(key: Key, refusal: Refusal, verdict: Option<Verdict>) -> FileProblem {
    let Refusal {
        field,
        message,
        remedy,
        ..
    } = refusal;
    tracing::warn!(object = %key, field, message, remedy, "an object can't be taken");
    FileProblem {
        file: String::new(),
        document: None,
        line: 0,
        object: Some(key),
        field,
        message,
        remedy,
        verdict,
    }
}

//! The news of all kinds as one sequence of updates.
//!
//! After `told`, before `app`. Until every kind was read once nothing is told;
//! then all of it, in the order of the table and in parts, so that whoever
//! applies them is not held up for long. A pod that two watches know (its label
//! has changed, and the watches are not in step) is what the watch of those with
//! a proxy says: the mistake would be plaintext.
//!
//! Pure: news in, updates out.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    mem,
};

use super::{kinds::Watched, told::News};
use crate::{
    model::{Event, FileProblem, Kind, Name, Object, Pod},
    sources::Update,
};

/// Events of one update.
const PART: usize = 2_000;

#[derive(Debug)]
pub(super) struct Merge {
    watched: &'static [Watched],
    /// By kind, until all were read once.
    waiting: Option<Vec<Waiting>>,
    problems: BTreeMap<(usize, Name), FileProblem>,
    pods: Pods,
}

#[derive(Debug, Default)]
struct Waiting {
    events: Vec<Event>,
    is_whole: bool,
}

impl Merge {
    pub(super) fn new(watched: &'static [Watched]) -> Self {
        Self {
            watched,
            waiting: Some(watched.iter().map(|_| Waiting::default()).collect()),
            problems: BTreeMap::new(),
            pods: Pods::default(),
        }
    }

    pub(super) fn take(&mut self, news: Vec<News>) -> Vec<Update> {
        let (mut events, mut is_news) = (Vec::new(), false);
        for mut one in news {
            is_news |= one.len() > 0;
            for (name, problem) in mem::take(&mut one.problems) {
                match problem {
                    Some(problem) => self.problems.insert((one.at, name), problem),
                    None => self.problems.remove(&(one.at, name)),
                };
            }
            let Some(watched) = self.watched.get(one.at) else {
                continue;
            };
            if watched.kind == Kind::Pod {
                one.events = self.pods.settle(watched.metadata_only, one.events);
            }
            match self.waiting.as_mut().and_then(|all| all.get_mut(one.at)) {
                Some(waiting) => {
                    waiting.events.append(&mut one.events);
                    waiting.is_whole |= one.is_whole;
                }
                None => events.append(&mut one.events),
            }
        }
        match self.waiting.take() {
            None if is_news => vec![self.update(events, true)],
            None => Vec::new(),
            Some(waiting) if waiting.iter().all(|it| it.is_whole) => self.first(waiting),
            Some(waiting) => {
                self.waiting = Some(waiting);
                Vec::new()
            }
        }
    }

    fn first(&self, waiting: Vec<Waiting>) -> Vec<Update> {
        let mut parts = Vec::new();
        let mut events = waiting.into_iter().flat_map(|it| it.events);
        loop {
            let part: Vec<Event> = events.by_ref().take(PART).collect();
            if part.is_empty() {
                break;
            }
            parts.push(self.update(part, false));
        }
        parts.push(self.update(Vec::new(), true));
        parts
    }

    fn update(&self, events: Vec<Event>, is_whole: bool) -> Update {
        Update {
            events,
            moved: Vec::new(),
            problems: self.problems.values().cloned().collect(),
            is_whole,
        }
    }
}

/// Which watch knows a pod.
#[derive(Debug, Default)]
struct Pods {
    meshed: HashSet<Name>,
    /// Also known to be without a proxy, which nobody was told.
    shadowed: HashMap<Name, Pod>,
}

impl Pods {
    fn settle(&mut self, is_unmeshed: bool, events: Vec<Event>) -> Vec<Event> {
        let settle = |event| match is_unmeshed {
            true => self.of_unmeshed(event),
            false => Some(self.of_meshed(event)),
        };
        events.into_iter().filter_map(settle).collect()
    }

    fn of_meshed(&mut self, event: Event) -> Event {
        match event {
            Event::Apply(object) => {
                self.meshed.insert(object.key().name);
                Event::Apply(object)
            }
            Event::Delete(key) => {
                self.meshed.remove(&key.name);
                match self.shadowed.remove(&key.name) {
                    Some(pod) => Event::Apply(Object::Pod(pod)),
                    None => Event::Delete(key),
                }
            }
        }
    }

    fn of_unmeshed(&mut self, event: Event) -> Option<Event> {
        match event {
            Event::Apply(Object::Pod(pod)) if self.meshed.contains(&pod.name) => {
                self.shadowed.insert(pod.name.clone(), pod);
                None
            }
            Event::Delete(key) if self.meshed.contains(&key.name) => {
                self.shadowed.remove(&key.name);
                None
            }
            other => Some(other),
        }
    }
}

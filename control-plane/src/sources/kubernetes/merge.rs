//! The news of all kinds as one sequence of updates.
//!
//! After `told`, before `app`. Until every kind was read once nothing is told;
//! then all of it, in the order of the table and in parts, so that whoever
//! applies them is not held up for long. A pod that two watches know (its label
//! has changed, and the watches are not in step) is what the watch of those with
//! a proxy says: the mistake would be plaintext. While a kind can't be read, the
//! others wait for it, with the newest of each object.
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
    /// As many as there may be before the outdated ones are left out.
    most: usize,
    is_whole: bool,
}

/// Fewer are not looked through.
const FEW: usize = 4_096;

impl Waiting {
    /// A kind that can't be read for hours may keep others waiting that change
    /// all the time: what is kept is at most twice what there is.
    fn push(&mut self, events: &mut Vec<Event>) {
        self.events.append(events);
        if self.events.len() <= self.most.max(FEW) {
            return;
        }
        let mut seen = HashSet::new();
        let mut newest: Vec<Event> = mem::take(&mut self.events)
            .into_iter()
            .rev()
            .filter(|it| match it {
                Event::Apply(object) => seen.insert(object.key()),
                // Of what was never told, no end has to be told.
                Event::Delete(key) => {
                    seen.insert(key.clone());
                    false
                }
            })
            .collect();
        newest.reverse();
        self.most = 2 * newest.len();
        self.events = newest;
    }
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
            let Some(all) = &mut self.waiting else {
                events.append(&mut one.events);
                continue;
            };
            if let Some(waiting) = all.get_mut(one.at) {
                waiting.is_whole |= one.is_whole;
            }
            // Two watches of one kind tell of the same objects: in one order.
            let first = self.watched.iter().position(|it| it.kind == watched.kind);
            if let Some(waiting) = all.get_mut(first.unwrap_or(one.at)) {
                waiting.push(&mut one.events);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{Key, Service},
        sources::kubernetes::kinds::WATCHED,
    };

    fn row(label: &str) -> usize {
        WATCHED.iter().position(|it| it.label == label).unwrap()
    }

    fn news(label: &str, events: Vec<Event>) -> News {
        News {
            at: row(label),
            events,
            ..News::default()
        }
    }

    fn whole(merge: &mut Merge) -> Vec<Event> {
        let all = (0..WATCHED.len()).map(|at| News {
            at,
            is_whole: true,
            ..News::default()
        });
        let updates = merge.take(all.collect());
        updates.into_iter().flat_map(|it| it.events).collect()
    }

    fn service(name: &str, created_milliseconds: i64) -> Event {
        Event::Apply(Object::Service(Service {
            name: Name::new("shop", name),
            created_milliseconds,
            ..Service::default()
        }))
    }

    fn gone(kind: Kind, name: &str) -> Event {
        Event::Delete(Key {
            kind,
            name: Name::new("shop", name),
        })
    }

    #[test]
    fn whoever_waits_long_keeps_the_newest_of_each_object_alone() {
        let mut merge = Merge::new(&WATCHED);
        merge.take(vec![news("services", vec![service("stays", 0)])]);
        for round in 1..=10 * i64::try_from(FEW).unwrap() {
            // Made, gone, and another one next time; and one that changes.
            let name = format!("short-{round}");
            let events = vec![
                service(&name, 0),
                gone(Kind::Service, &name),
                service("changes", round),
            ];
            assert!(merge.take(vec![news("services", events)]).is_empty());
            let waiting = merge.waiting.as_ref().unwrap();
            let most = waiting.iter().map(|it| it.events.len()).max();
            assert!(most.unwrap() <= FEW + 3, "{most:?}");
        }
        let told = whole(&mut merge);
        let last = 10 * i64::try_from(FEW).unwrap();
        assert!(told.contains(&service("stays", 0)));
        let newest = told.iter().rfind(
            |it| matches!(it, Event::Apply(Object::Service(it)) if it.name.name == "changes"),
        );
        assert_eq!(newest, Some(&service("changes", last)));
    }

    /// Two watches tell of it, and both wait.
    #[test]
    fn a_pod_that_came_back_with_a_proxy_before_anything_was_told_has_one() {
        let pod = |inject: bool| {
            Event::Apply(Object::Pod(Pod {
                name: Name::new("shop", "web-0"),
                injected: Some(inject),
                ..Pod::default()
            }))
        };
        let mut merge = Merge::new(&WATCHED);
        for (label, event) in [
            ("unmeshed-pods", pod(false)),
            ("pods", pod(true)),
            ("unmeshed-pods", gone(Kind::Pod, "web-0")),
        ] {
            merge.take(vec![news(label, vec![event])]);
        }
        assert_eq!(whole(&mut merge).last(), Some(&pod(true)));
    }
}

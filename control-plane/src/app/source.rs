//! From the sources to the hub: several of them as one set of objects.
//!
//! A later source's object replaces an earlier one's of the same kind and name,
//! and the earlier one is back when the later is gone. With a single source
//! nothing is kept here.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use futures_util::{StreamExt, stream::select_all};
use kube::Client;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;

use crate::{
    config::Source,
    model::{Event, FileProblem, Key, Moved, Object, Origin},
    runtime::{self, Task},
    serve::hub::Hub,
    sources::{Update, files, kubernetes},
};

/// In the state directory the last good text of each file outlives the process.
/// `end` is told when a directory can be watched no longer: what is served
/// would grow old without anybody noticing.
pub(crate) fn start(
    sources: &[Source],
    state: Option<&Path>,
    hub: &Hub,
    end: &watch::Sender<Option<String>>,
    metrics: &kubernetes::metrics::Metrics,
) -> Vec<Task> {
    let mut tasks = Vec::new();
    let mut updates = Vec::new();
    for (at, source) in sources.iter().enumerate() {
        let (sender, receiver) = mpsc::channel(16);
        updates.push(
            ReceiverStream::new(receiver)
                .map(move |update| (at, update))
                .boxed(),
        );
        let end = end.clone();
        tasks.push(match source {
            Source::Files(directory) => {
                // By position: a source that changes places is read anew in any case.
                let memory = state.map(|it| it.join("last-good").join(at.to_string()));
                runtime::spawn(follow_files(directory.clone(), memory, sender, end))
            }
            Source::Kubernetes => runtime::spawn(follow_cluster(metrics.clone(), sender, end)),
        });
    }
    let hand_on = hand_on(select_all(updates), sources.to_vec(), hub.clone());
    tasks.push(runtime::spawn(hand_on));
    tasks
}

async fn follow_files(
    directory: PathBuf,
    memory: Option<PathBuf>,
    updates: mpsc::Sender<Update>,
    end: watch::Sender<Option<String>>,
) {
    let shown = directory.display().to_string();
    if let Err(error) = files::watch(directory, memory, updates).await {
        end.send_replace(Some(format!("watching {shown}: {error}")));
    }
}

async fn follow_cluster(
    metrics: kubernetes::metrics::Metrics,
    updates: mpsc::Sender<Update>,
    end: watch::Sender<Option<String>>,
) {
    match Client::try_default().await {
        Ok(client) => kubernetes::watch(client, metrics, updates).await,
        Err(error) => {
            let why =
                format!("neither KUBECONFIG nor a service account tells the cluster: {error}");
            end.send_replace(Some(why));
        }
    }
}

async fn hand_on(
    mut updates: impl StreamExt<Item = (usize, Update)> + Unpin,
    sources: Vec<Source>,
    hub: Hub,
) {
    let mut overlay = Overlay::new(sources.len());
    let mut origins = Origins::new(sources.len());
    let mut problems: Vec<Vec<FileProblem>> = vec![Vec::new(); sources.len()];
    let mut whole = vec![false; sources.len()];
    while let Some((at, update)) = updates.next().await {
        let events = overlay.merge(at, update.events);
        let (Some(slot), Some(is_whole), Some(source)) =
            (problems.get_mut(at), whole.get_mut(at), sources.get(at))
        else {
            return;
        };
        let shown = |file: String| match source {
            Source::Files(directory) => directory.join(file).display().to_string(),
            Source::Kubernetes => file,
        };
        let moved = update.moved.into_iter().map(|(key, origin)| {
            let origin = origin.map(|it| Origin {
                file: shown(it.file.clone()),
                ..it
            });
            (key, origin)
        });
        let moved = origins.merge(at, moved);
        let named = |it: FileProblem| FileProblem {
            file: shown(it.file.clone()),
            ..it
        };
        *slot = update.problems.into_iter().map(named).collect();
        *is_whole |= update.is_whole;
        // Everyone has been read once.
        let synced = whole.iter().all(|it| *it);
        let all: Vec<FileProblem> = problems.iter().flatten().cloned().collect();
        let told = hub.ask(move |state| {
            // First, so that what is logged of the events has its place.
            state.set_origins(moved);
            state.apply(events);
            state.set_file_problems(all);
            if synced {
                state.synced();
            }
        });
        if told.await.is_err() {
            return;
        }
    }
}

/// Where each source has its objects written.
struct Origins(Vec<HashMap<Key, Origin>>);

impl Origins {
    fn new(sources: usize) -> Self {
        Self(vec![HashMap::new(); sources])
    }

    /// The place of the object that holds, as `Overlay` has it: the last one's.
    fn merge(&mut self, at: usize, moved: impl Iterator<Item = Moved>) -> Vec<Moved> {
        moved
            .filter_map(|(key, origin)| {
                let layer = self.0.get_mut(at)?;
                match origin {
                    Some(origin) => drop(layer.insert(key.clone(), origin)),
                    None => drop(layer.remove(&key)),
                }
                let last = self.0.iter().rev().find_map(|it| it.get(&key));
                Some((key, last.cloned()))
            })
            .collect()
    }
}

struct Overlay {
    /// What each source says; empty for a single one.
    layers: Vec<HashMap<Key, Object>>,
}

impl Overlay {
    fn new(sources: usize) -> Self {
        Self {
            layers: if sources > 1 {
                vec![HashMap::new(); sources]
            } else {
                Vec::new()
            },
        }
    }

    fn merge(&mut self, at: usize, events: Vec<Event>) -> Vec<Event> {
        if self.layers.is_empty() {
            return events;
        }
        events
            .into_iter()
            .filter_map(|event| self.merge_one(at, &event))
            .collect()
    }

    fn merge_one(&mut self, at: usize, event: &Event) -> Option<Event> {
        let key = match event {
            Event::Apply(object) => object.key(),
            Event::Delete(key) => key.clone(),
        };
        let layer = self.layers.get_mut(at)?;
        match event {
            Event::Apply(object) => drop(layer.insert(key.clone(), object.clone())),
            Event::Delete(key) => drop(layer.remove(key)),
        }
        if self
            .layers
            .iter()
            .skip(at + 1)
            .any(|it| it.contains_key(&key))
        {
            return None;
        }
        let left = self.layers.iter().rev().find_map(|it| it.get(&key));
        Some(left.map_or(Event::Delete(key), |object| Event::Apply(object.clone())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Namespace;

    fn shop(label: &str) -> Event {
        let labels = [("from".to_owned(), label.to_owned())].into();
        Event::Apply(Object::Namespace(Namespace {
            name: "shop".into(),
            labels,
        }))
    }

    fn gone() -> Event {
        let Event::Apply(object) = shop("") else {
            unreachable!("an apply")
        };
        Event::Delete(object.key())
    }

    #[test]
    fn a_later_sources_object_holds_until_it_is_gone() {
        let mut overlay = Overlay::new(2);
        assert_eq!(overlay.merge(0, vec![shop("first")]), [shop("first")]);
        assert_eq!(overlay.merge(1, vec![shop("second")]), [shop("second")]);
        assert_eq!(overlay.merge(0, vec![shop("changed")]), []);
        assert_eq!(overlay.merge(1, vec![gone()]), [shop("changed")]);
        assert_eq!(overlay.merge(0, vec![gone()]), [gone()]);
    }

    #[test]
    fn the_place_of_an_object_is_that_of_the_source_which_holds() {
        let Event::Delete(key) = gone() else {
            unreachable!("a delete")
        };
        let origin = |file: &str| {
            Some(Origin {
                file: file.to_owned(),
                document: 1,
            })
        };
        let mut origins = Origins::new(2);
        let mut merge = |at, file: Option<Origin>| {
            let moved = origins.merge(at, std::iter::once((key.clone(), file)));
            moved.into_iter().next().expect("one for one").1
        };
        assert_eq!(merge(0, origin("a.yaml")), origin("a.yaml"));
        assert_eq!(merge(1, origin("b.yaml")), origin("b.yaml"));
        assert_eq!(merge(0, origin("c.yaml")), origin("b.yaml"));
        assert_eq!(merge(1, None), origin("c.yaml"));
        assert_eq!(merge(0, None), None);
    }

    #[test]
    fn an_earlier_object_that_goes_leaves_the_later() {
        let mut overlay = Overlay::new(2);
        overlay.merge(1, vec![shop("second")]);
        assert_eq!(overlay.merge(0, vec![shop("first")]), []);
        assert_eq!(overlay.merge(0, vec![gone()]), []);
    }
}

//! Finds pods that ask for the mesh and are not in it, and says so: a metric, an
//! event beside each, and the report behind `weft check`.
//!
//! Only the Lease's holder looks. Who may be one comes from `serve::hub`, whose
//! index knows every pod's metadata; only namespaces that have such pods are
//! listed, by pages, for what metadata doesn't tell. So nothing more is watched,
//! and a mesh in which nobody was missed costs no request at all.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::Duration,
};

use k8s_openapi::{
    api::{
        core::v1::{ObjectReference, Pod},
        events::v1::Event,
    },
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use kube::{
    Api,
    api::{ListParams, ObjectMeta, PostParams},
};
use tokio::{sync::watch, time::sleep};

use crate::{
    admission::inject,
    clock::Wall,
    cluster::{Cluster, Failure, call, metrics::Metrics},
    report::UnmeshedPod,
    serve::hub::{Hub, Stopping, unmeshed::Candidates},
};

/// How often the index is asked.
const LOOK: Duration = Duration::from_secs(30);
/// The same while the source has not been read.
const SOON: Duration = Duration::from_secs(2);
/// Pods end: in so many rounds a namespace is read again.
const AGAIN: u32 = 10;
/// More are counted and not looked at.
const MOST: usize = 10_000;
/// Of those that the report names.
const MOST_TOLD: usize = 1_000;
/// In a round: whoever labels a large namespace doesn't flood its events.
const EVENTS: usize = 10;
/// A restart that follows the label at once is no reason for an event.
const GRACE: u32 = 2;
/// Pods in a page; a large one is some 50 KiB.
const PAGE: u32 = 100;

pub(crate) struct Finder {
    pub(crate) cluster: Cluster,
    pub(crate) clock: Wall,
    pub(crate) hub: Hub,
    /// Whether this replica is the one.
    pub(crate) holds: watch::Receiver<bool>,
    pub(crate) metrics: Metrics,
}

/// What is known of a candidate.
#[derive(Debug)]
struct Known {
    /// It could have a proxy.
    is_missed: bool,
    /// In which it was seen.
    rounds: u32,
    /// There is an event.
    told: bool,
}

#[derive(Debug, Default)]
struct Memory {
    round: u32,
    /// By UID.
    pods: HashMap<String, Known>,
    /// By namespace, the round in which it was read last.
    read: HashMap<String, u32>,
}

#[derive(Clone, Debug)]
struct Missed {
    namespace: String,
    name: String,
    uid: String,
    /// The Pod Security Standard that stands against it.
    level: Option<String>,
}

impl Finder {
    /// Until the process ends.
    pub(crate) async fn run(mut self) {
        while self.holds.wait_for(|it| *it).await.is_ok() {
            // Boxed: a list's future is large.
            Box::pin(self.while_holding()).await;
            self.metrics.tell_unmeshed(std::iter::empty());
            let told = self.hub.ask(|state| state.tell_unmeshed(None)).await;
            if told.is_err() {
                return;
            }
        }
    }

    async fn while_holding(&mut self) {
        let mut memory = Memory::default();
        while *self.holds.borrow() {
            let pause = match self.look(&mut memory).await {
                Ok(true) => LOOK,
                Ok(false) => SOON,
                Err(_stopping) => return,
            };
            tokio::select! {
                () = sleep(pause) => {}
                _lost_or_ended = self.holds.wait_for(|it| !*it) => return,
            }
        }
    }

    /// Whether there was anything to look at.
    async fn look(&self, memory: &mut Memory) -> Result<bool, Stopping> {
        let system = self.cluster.namespace.clone();
        let ask = move |state: &mut crate::serve::hub::State| {
            let (candidates, beyond) =
                state.unmeshed_candidates(&["kube-system", &system], MOST)?;
            let levels: Vec<_> = candidates.keys().map(|it| state.refused_in(it)).collect();
            Some((candidates, beyond, levels))
        };
        let Some((candidates, beyond, levels)) = self.hub.ask(ask).await? else {
            return Ok(false);
        };
        memory.begin(&candidates);
        for (namespace, pods) in &candidates {
            if memory.has_to_read(namespace, pods) {
                match self.read(namespace, pods).await {
                    Ok(read) => memory.learn(namespace, read),
                    Err(error) => {
                        tracing::warn!(%error, namespace, "pods without a proxy could not be read and are tried again");
                    }
                }
            }
        }
        let found = memory.found(&candidates, &levels);
        self.measure(&found);
        self.tell(&found, memory).await;
        let left_out = found.len().saturating_sub(MOST_TOLD) + beyond;
        let told: Vec<_> = found.iter().take(MOST_TOLD).map(Missed::told).collect();
        self.hub
            .ask(move |state| state.tell_unmeshed(Some((told, left_out))))
            .await?;
        Ok(true)
    }

    /// Of these pods, by UID, whether each is missed.
    async fn read(
        &self,
        namespace: &str,
        candidates: &[(String, String)],
    ) -> Result<Vec<(String, bool)>, Failure> {
        let wanted: HashSet<&str> = candidates.iter().map(|(_, uid)| uid.as_str()).collect();
        let pods: Api<Pod> = Api::namespaced(self.cluster.client.clone(), namespace);
        let mut page = ListParams::default()
            .labels(&format!("{}!=true", inject::INJECTED))
            .limit(PAGE);
        let mut read = Vec::new();
        loop {
            let list = call(pods.list(&page)).await?;
            for pod in &list.items {
                let uid = pod.metadata.uid.as_deref().unwrap_or_default();
                if wanted.contains(uid) {
                    read.push((uid.to_owned(), is_missed(pod)));
                }
            }
            match list.metadata.continue_ {
                Some(next) if !next.is_empty() => page.continue_token = Some(next),
                _ => return Ok(read),
            }
        }
    }

    fn measure(&self, found: &[Missed]) {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for it in found {
            *counts.entry(&it.namespace).or_default() += 1;
        }
        let counts = counts.into_iter();
        self.metrics
            .tell_unmeshed(counts.map(|(namespace, count)| (namespace.to_owned(), count)));
    }

    async fn tell(&self, found: &[Missed], memory: &mut Memory) {
        let due: Vec<_> = found.iter().filter(|it| memory.is_due(&it.uid)).collect();
        for missed in due.into_iter().take(EVENTS) {
            let events: Api<Event> =
                Api::namespaced(self.cluster.client.clone(), &missed.namespace);
            let event = self.event(missed);
            match call(events.create(&PostParams::default(), &event)).await {
                Ok(_) => {}
                // Told by a holder before us.
                Err(error) if error.is_conflict() => {}
                Err(error) => {
                    tracing::warn!(%error, namespace = missed.namespace, pod = missed.name, "an event could not be written and is tried again");
                    continue;
                }
            }
            memory.told(&missed.uid);
        }
    }

    /// Its name is made of the pod, so that of two holders one tells.
    fn event(&self, missed: &Missed) -> Event {
        let Missed {
            namespace,
            name,
            uid,
            ..
        } = missed;
        let told = missed.told();
        // With the UID and the suffix at most the 253 characters that a name may have.
        let short: String = name.chars().take(180).collect();
        let name_of_event = format!("{}.{uid}.unmeshed", short.trim_end_matches(['-', '.']));
        let micros = i64::try_from(self.clock.now().as_micros()).unwrap_or(i64::MAX);
        Event {
            metadata: ObjectMeta {
                name: Some(name_of_event),
                namespace: Some(namespace.clone()),
                ..ObjectMeta::default()
            },
            action: Some("Watch".to_owned()),
            event_time: Some(MicroTime(
                Timestamp::from_microsecond(micros).unwrap_or(Timestamp::MAX),
            )),
            note: Some(format!("{}: {}", told.message, told.remedy)),
            reason: Some("NotInMesh".to_owned()),
            regarding: Some(ObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Pod".to_owned()),
                namespace: Some(namespace.clone()),
                name: Some(name.clone()),
                uid: Some(uid.clone()),
                ..ObjectReference::default()
            }),
            reporting_controller: Some("weft.dev/control-plane".to_owned()),
            reporting_instance: Some(self.cluster.replica.clone()),
            type_: Some("Warning".to_owned()),
            ..Event::default()
        }
    }
}

/// What the webhook would have given a proxy.
fn is_missed(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|it| it.phase.as_deref());
    let has_ended = matches!(phase, Some("Succeeded" | "Failed"));
    let is_going = pod.metadata.deletion_timestamp.is_some();
    !has_ended && !is_going && !inject::is_left(pod)
}

impl Memory {
    /// Another round, which knows nothing of pods that are gone.
    fn begin(&mut self, candidates: &Candidates) {
        self.round += 1;
        let live: HashSet<&str> = candidates
            .values()
            .flatten()
            .map(|(_, uid)| uid.as_str())
            .collect();
        self.pods.retain(|uid, _| live.contains(uid.as_str()));
        self.read
            .retain(|namespace, _| candidates.contains_key(namespace));
        for known in self.pods.values_mut() {
            known.rounds += 1;
        }
    }

    fn has_to_read(&self, namespace: &str, pods: &[(String, String)]) -> bool {
        let read = self.read.get(namespace);
        read.is_none_or(|at| self.round - at >= AGAIN)
            || pods.iter().any(|(_, uid)| !self.pods.contains_key(uid))
    }

    fn learn(&mut self, namespace: &str, read: Vec<(String, bool)>) {
        self.read.insert(namespace.to_owned(), self.round);
        for (uid, is_missed) in read {
            let known = self.pods.entry(uid).or_insert(Known {
                is_missed,
                rounds: 1,
                told: false,
            });
            known.is_missed = is_missed;
        }
    }

    fn found(&self, candidates: &Candidates, levels: &[Option<String>]) -> Vec<Missed> {
        let missed = |uid: &str| self.pods.get(uid).is_some_and(|it| it.is_missed);
        let namespaces = candidates.iter().zip(levels);
        let found = namespaces.flat_map(|((namespace, pods), level)| {
            let pods = pods.iter().filter(|(_, uid)| missed(uid));
            pods.map(move |(name, uid)| Missed {
                namespace: namespace.clone(),
                name: name.clone(),
                uid: uid.clone(),
                level: level.clone(),
            })
        });
        found.collect()
    }

    fn is_due(&self, uid: &str) -> bool {
        let known = self.pods.get(uid);
        known.is_some_and(|it| !it.told && it.rounds >= GRACE)
    }

    fn told(&mut self, uid: &str) {
        if let Some(known) = self.pods.get_mut(uid) {
            known.told = true;
        }
    }
}

impl Missed {
    fn told(&self) -> UnmeshedPod {
        let Self {
            namespace, name, ..
        } = self;
        let out = "keep it out by its label weft.dev/inject=disabled";
        let (message, remedy) = match &self.level {
            Some(level) => (
                format!("asks for the mesh, and its namespace enforces the Pod Security Standard {level}, which refuses a proxy"),
                format!("label the namespace pod-security.kubernetes.io/enforce=privileged and restart the pod, or {out}"),
            ),
            None => (
                "asks for the mesh and has no proxy: it is older than the label, or passed no webhook".to_owned(),
                format!("restart what owns it, or kubectl --namespace {namespace} delete pod {name}; or {out}"),
            ),
        };
        UnmeshedPod {
            pod: format!("{namespace}/{name}"),
            message,
            remedy,
        }
    }
}

#[cfg(test)]
mod tests;

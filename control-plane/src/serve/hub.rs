//! The one task that owns the index, and what every proxy subscribes to.
//!
//! `app` sends it events and roots; `identity` and `session` ask it. All come
//! as messages through one bounded channel, so a batch of events is seen whole
//! or not at all and nothing is locked. A change goes to exactly the streams
//! that subscribe to it, at once; the task never waits for any of them.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use bytes::Bytes;
use rustls_pki_types::CertificateDer;
use tokio::{
    sync::{Notify, mpsc, oneshot},
    time::Instant,
};
use weft_proto::v1;

use crate::{
    identity::spiffe,
    index::Index,
    model::{BackendName, Change, Event, FileProblem, Name},
    report,
    serve::{
        metrics::Metrics,
        render::{Features, View},
        resource::{self, ResourceName, Version},
        shelf::{Closure, Entry, Shelf, World},
        stream::{Caller, Stream, StreamId},
    },
};

mod reports;

/// How many names one proxy may ask for.
const MOST_ASKED: usize = 20_000;
/// A response is closed at this size; what is left follows in the next. gRPC
/// readers take 4 MiB by default.
const RESPONSE: usize = 1024 * 1024;

type Ask = Box<dyn FnOnce(&mut State) + Send>;

/// Asks the hub's task. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Hub(mpsc::Sender<Ask>);

/// The hub's task has ended: the process is stopping.
#[derive(Debug, thiserror::Error)]
#[error("the control plane is stopping")]
pub(crate) struct Stopping;

impl Hub {
    /// The second half is the task; the hub lives as long as it runs.
    pub(crate) fn new(state: State) -> (Self, impl Future<Output = ()> + Send) {
        let (sender, mut asks) = mpsc::channel::<Ask>(1024);
        let run = async move {
            let mut state = state;
            while let Some(ask) = asks.recv().await {
                ask(&mut state);
            }
        };
        (Self(sender), run)
    }

    pub(crate) async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&mut State) -> T + Send + 'static,
    ) -> Result<T, Stopping> {
        let (sender, answer) = oneshot::channel();
        let ask = Box::new(move |state: &mut State| {
            let _asker_has_left = sender.send(question(state));
        });
        self.0.send(ask).await.map_err(|_| Stopping)?;
        answer.await.map_err(|_| Stopping)
    }

    /// Without waiting, for destructors. A lost one is found by `sweep`.
    pub(crate) fn tell(&self, message: impl FnOnce(&mut State) + Send + 'static) {
        let _full_or_stopping = self.0.try_send(Box::new(message));
    }
}

/// What the hub's task holds.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) trust_domain: String,
    index: Index,
    roots: Arc<[CertificateDer<'static>]>,
    shelf: Shelf,
    streams: HashMap<StreamId, Stream>,
    pods: HashMap<Name, StreamId>,
    certificates: BTreeMap<Name, Certified>,
    file_problems: Vec<FileProblem>,
    other_problems: BTreeMap<&'static str, report::Problem>,
    synced: bool,
    last_id: u64,
    metrics: Metrics,
}

/// The newest certificate of a pod.
#[derive(Clone, Debug)]
pub(crate) struct Certified {
    pub(crate) identity: String,
    pub(crate) issued: u64,
    pub(crate) expires: u64,
}

/// Why a caller can't be who it says.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum Stranger {
    #[error("the source of the mesh has not been read yet")]
    NotReady,
    #[error("no such pod in the mesh: {0}")]
    Pod(Name),
    #[error("the pod has another UID: it was replaced")]
    Uid,
    #[error("the pod runs as another service account")]
    Account,
}

/// What to send, and what it will mean when it is acknowledged.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) parts: Vec<Bytes>,
    pub(crate) content: Vec<(ResourceName, Version)>,
    /// When the oldest of these changes happened.
    pub(crate) since: Option<Instant>,
    /// There is more; the heartbeat, if wanted, comes with the last.
    pub(crate) more: bool,
    pub(crate) ended: Option<&'static str>,
}

impl State {
    pub(crate) fn new(index: Index, trust_domain: &str, roots: Arc<[CertificateDer<'static>]>, metrics: Metrics) -> Self {
        Self {
            trust_domain: trust_domain.to_owned(),
            index,
            roots,
            shelf: Shelf::default(),
            streams: HashMap::new(),
            pods: HashMap::new(),
            certificates: BTreeMap::new(),
            file_problems: Vec::new(),
            other_problems: BTreeMap::new(),
            synced: false,
            last_id: 0,
            metrics,
        }
    }

    // ── from the sources ────────────────────────────────────────────────────

    /// A batch is applied whole before anybody hears of it, so that a burst
    /// costs each resource one rendering.
    pub(crate) fn apply(&mut self, events: Vec<Event>) {
        let mut names = BTreeSet::new();
        let mut endpoints = BTreeSet::new();
        for event in events {
            for change in self.index.apply(event) {
                self.note(change, &mut names, &mut endpoints);
            }
        }
        let now = Instant::now();
        for (backend, uid) in &endpoints {
            self.refresh_endpoint(backend, uid, now);
        }
        for name in &names {
            self.refresh(name, now);
        }
        self.count_problems();
    }

    fn note(
        &mut self,
        change: Change,
        names: &mut BTreeSet<ResourceName>,
        endpoints: &mut BTreeSet<(BackendName, String)>,
    ) {
        match change {
            Change::Mesh => drop(names.insert(ResourceName::Mesh)),
            Change::Service(name) => {
                // A port that is gone took its endpoints with it, unnamed; it
                // may be back by the end of the batch, so it is emptied now.
                for set in self.shelf.endpoints_of(&name) {
                    if let ResourceName::Endpoints(backend) = &set
                        && self.index.endpoints(backend).is_none()
                    {
                        self.refresh(&set, Instant::now());
                    }
                }
                names.extend(self.shelf.addresses_of(&name));
                names.insert(ResourceName::Service(name));
            }
            Change::Endpoints { backend, uid } => drop(endpoints.insert((backend, uid))),
            Change::Address(address) => drop(names.insert(ResourceName::Address(address))),
            Change::Ip(ip) => names.extend(self.shelf.addresses_at(ip)),
            Change::Workload(pod) => {
                self.judge_again(&pod);
                names.insert(ResourceName::Workload(pod));
            }
            Change::Problems(object) => {
                for it in self.index.problems_of(&object) {
                    let (field, message, remedy) = (&it.field, &it.message, &it.remedy);
                    tracing::warn!(%object, field, message, remedy, "an object can't hold as it is");
                }
            }
        }
    }

    /// The source has been read once: from now on there are answers.
    pub(crate) fn synced(&mut self) {
        self.synced = true;
    }

    pub(crate) const fn is_synced(&self) -> bool {
        self.synced
    }

    pub(crate) fn set_file_problems(&mut self, problems: Vec<FileProblem>) {
        self.file_problems = problems;
        self.count_problems();
    }

    /// A problem that is no object's, by what it is about.
    pub(crate) fn set_problem(&mut self, about: &'static str, problem: Option<report::Problem>) {
        match problem {
            Some(problem) => drop(self.other_problems.insert(about, problem)),
            None => drop(self.other_problems.remove(about)),
        }
        self.count_problems();
    }

    pub(crate) fn set_roots(&mut self, roots: Arc<[CertificateDer<'static>]>) {
        self.roots = roots;
        self.refresh(&ResourceName::TrustBundle, Instant::now());
    }

    fn refresh(&mut self, name: &ResourceName, now: Instant) {
        let Self { index, roots, trust_domain, shelf, streams, .. } = self;
        let mut moved = Vec::new();
        shelf.refresh(World { index, roots, trust_domain }, name, &mut |entry, differs, former| {
            tell(streams, entry, name, differs, now);
            if former.is_some() {
                moved.extend(entry.subscribers.iter().map(|id| (*id, entry.closure.clone())));
            }
        });
        for (id, closure) in moved {
            // A service that a route brought along brings nothing itself.
            if self.streams.get(&id).is_some_and(|it| it.asked.contains_key(name)) {
                self.bring(id, name.clone(), closure);
            }
        }
    }

    fn refresh_endpoint(&mut self, backend: &BackendName, uid: &str, now: Instant) {
        let Self { index, roots, trust_domain, shelf, streams, .. } = self;
        let name = ResourceName::Endpoints(backend.clone());
        let mut tell = |entry: &Entry, differs, _| tell(streams, entry, &name, differs, now);
        shelf.refresh_endpoint(World { index, roots, trust_domain }, backend, uid, &mut tell);
    }

    // ── from the proxies ────────────────────────────────────────────────────

    /// Whether this pod exists and runs as this account. An empty UID is one
    /// that the other side does not know.
    pub(crate) fn recognize(&self, pod: &Name, uid: &str, service_account: &str) -> Result<String, Stranger> {
        if !self.synced {
            return Err(Stranger::NotReady);
        }
        let Some(workload) = self.index.workload(pod) else { return Err(Stranger::Pod(pod.clone())) };
        let known = workload.pod;
        if !uid.is_empty() && !known.uid.is_empty() && uid != known.uid {
            return Err(Stranger::Uid);
        }
        if known.service_account != service_account {
            return Err(Stranger::Account);
        }
        Ok(spiffe(&self.trust_domain, &Name::new(&pod.namespace, service_account)))
    }

    pub(crate) fn certified(&mut self, pod: Name, certified: Certified) {
        self.certificates.insert(pod, certified);
    }

    /// A stream for a caller that `recognize` has answered for. A pod has one:
    /// an earlier one is a half-dead connection and ends.
    pub(crate) fn join(&mut self, caller: Caller, wake: &Arc<Notify>, held: HashMap<ResourceName, Version>) -> StreamId {
        self.sweep();
        self.last_id += 1;
        let id = StreamId(self.last_id);
        let pod = caller.pod.clone();
        if let Some(stream) = self.pods.insert(pod.clone(), id).and_then(|it| self.streams.get_mut(&it)) {
            stream.end("a newer stream of this pod took over");
        }
        let features = Features::parse(&caller.features);
        let view = View { features, namespace: pod.namespace.as_str().into() };
        self.streams.insert(id, Stream::new(caller, view, wake, held));
        for name in [ResourceName::Mesh, ResourceName::TrustBundle, ResourceName::Workload(pod)] {
            self.subscribe(id, name);
        }
        self.metrics.streams.set(i64::try_from(self.streams.len()).unwrap_or(i64::MAX));
        id
    }

    pub(crate) fn leave(&mut self, id: StreamId) {
        let Some(stream) = self.streams.remove(&id) else { return };
        for name in stream.interests.keys() {
            self.shelf.release(name, &stream.view, id);
        }
        if self.pods.get(&stream.caller.pod) == Some(&id) {
            self.pods.remove(&stream.caller.pod);
        }
        self.metrics.streams.set(i64::try_from(self.streams.len()).unwrap_or(i64::MAX));
        self.metrics.resources.set(i64::try_from(self.shelf.len()).unwrap_or(i64::MAX));
    }

    /// # Errors
    /// What a proxy may not ask for.
    pub(crate) fn ask_for(&mut self, id: StreamId, name: ResourceName, refresh: bool) -> Result<(), &'static str> {
        let Some(stream) = self.streams.get_mut(&id) else { return Ok(()) };
        if refresh && let Some(interest) = stream.interests.get_mut(&name) {
            interest.sent = 0;
            stream.mark(&name, None);
            return Ok(());
        }
        if !matches!(name, ResourceName::Address(_) | ResourceName::Service(_)) {
            // A refresh of what has just been removed is no mistake.
            return if refresh { Ok(()) } else { Err("only addresses and services can be subscribed to") };
        }
        if stream.asked.len() >= MOST_ASKED {
            return Err("too many subscriptions");
        }
        self.subscribe(id, name);
        Ok(())
    }

    fn subscribe(&mut self, id: StreamId, name: ResourceName) {
        let Self { index, roots, trust_domain, shelf, streams, .. } = self;
        let Some(stream) = streams.get(&id).filter(|it| !it.asked.contains_key(&name)) else { return };
        let closure = shelf.obtain(World { index, roots, trust_domain }, &name, &stream.view).closure.clone();
        self.bring(id, name, closure);
    }

    pub(crate) fn unsubscribe(&mut self, id: StreamId, name: &ResourceName) {
        if matches!(name, ResourceName::Address(_) | ResourceName::Service(_))
            && let Some(stream) = self.streams.get_mut(&id)
            && let Some(closure) = stream.asked.remove(name)
        {
            self.release(id, &closure);
        }
    }

    /// What `name` brings along is now this. What is no longer needed is
    /// released after what is needed now is there.
    fn bring(&mut self, id: StreamId, name: ResourceName, closure: Closure) {
        let Self { index, roots, trust_domain, shelf, streams, .. } = self;
        let world = World { index, roots, trust_domain };
        let Some(stream) = streams.get_mut(&id) else { return };
        for needed in closure.iter() {
            let entry = shelf.obtain(world, needed, &stream.view);
            entry.subscribers.insert(id);
            stream.acquire(needed, entry.version);
        }
        if let Some(former) = stream.asked.insert(name, closure) {
            self.release(id, &former);
        }
        self.metrics.resources.set(i64::try_from(self.shelf.len()).unwrap_or(i64::MAX));
    }

    fn release(&mut self, id: StreamId, closure: &Closure) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        for name in closure.iter() {
            if stream.release(name) {
                self.shelf.release(name, &stream.view, id);
            }
        }
    }

    /// What the stream has yet to get. With `heartbeat`, also the newest
    /// version of everything, once nothing is left.
    pub(crate) fn pull(&mut self, id: StreamId, heartbeat: Option<u32>) -> Batch {
        let Some(stream) = self.streams.get_mut(&id) else {
            return Batch { ended: Some("forgotten"), ..Batch::default() };
        };
        let mut batch = Batch { ended: stream.ended, ..Batch::default() };
        let mut size = 0;
        while size < RESPONSE
            && let Some((name, since)) = stream.pending.pop_first()
        {
            let (Some(interest), Some(entry)) =
                (stream.interests.get_mut(&name), self.shelf.find_mut(&name, &stream.view))
            else {
                continue;
            };
            if interest.sent == entry.version {
                continue;
            }
            let bytes = entry.bytes(&name, interest.sent);
            interest.sent = entry.version;
            size += bytes.len();
            batch.parts.push(bytes);
            batch.content.push((name, entry.version));
            batch.since = batch.since.min(since).or(batch.since).or(since);
        }
        batch.more = !stream.pending.is_empty();
        if batch.more {
            return batch;
        }
        while let Some(name) = stream.removed.pop_first() {
            batch.parts.push(resource::encode_removed(&name));
        }
        if let Some(interval) = heartbeat {
            // What it held and has not asked for again, it no longer needs.
            if stream.heard != stream.since {
                for name in stream.held.drain().map(|(name, _)| name) {
                    batch.parts.push(resource::encode_removed(&name));
                }
            }
            let shelf = &self.shelf;
            let newest = stream.interests.keys().filter_map(|name| {
                let version = shelf.find(name, &stream.view)?.version;
                Some(v1::Held { name: Some(name.to_proto()), version })
            });
            let heartbeat = v1::Heartbeat { newest: newest.collect(), interval_milliseconds: interval };
            batch.parts.push(resource::encode_heartbeat(&heartbeat));
        }
        batch
    }

    pub(crate) fn acknowledge(&mut self, id: StreamId, applied: &[(ResourceName, Version)], since: Option<Instant>) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.acknowledge(applied);
            if let Some(since) = since {
                self.metrics.propagation.observe(since.elapsed().as_secs_f64());
            }
        }
    }

    pub(crate) fn reject(&mut self, id: StreamId, name: &ResourceName, version: Version, reason: &str) {
        if let Some(stream) = self.streams.get_mut(&id) {
            tracing::warn!(pod = %stream.caller.pod, %name, version, reason, "a proxy rejected a resource");
            stream.reject(name, version, reason);
            self.metrics.rejects.inc();
        }
    }

    /// The pod may be gone, replaced, or run as another account.
    fn judge_again(&mut self, pod: &Name) {
        let Some(caller) = self.pods.get(pod).and_then(|id| self.streams.get(id)).map(|it| it.caller.clone()) else {
            if self.index.workload(pod).is_none() {
                self.certificates.remove(pod);
            }
            return;
        };
        let stranger = match self.recognize(pod, &caller.uid, &caller.service_account) {
            Ok(_) | Err(Stranger::NotReady) => return,
            Err(Stranger::Pod(_)) => {
                self.certificates.remove(pod);
                "its pod is gone"
            }
            Err(Stranger::Uid) => "its pod was replaced",
            Err(Stranger::Account) => "its pod runs as another service account",
        };
        if let Some(stream) = self.pods.get(pod).and_then(|id| self.streams.get_mut(id)) {
            stream.end(stranger);
        }
    }

    /// Streams whose session ended without a word.
    fn sweep(&mut self) {
        let gone: Vec<StreamId> = self.streams.iter().filter(|(_, it)| it.is_gone()).map(|(id, _)| *id).collect();
        for id in gone {
            self.leave(id);
        }
    }

    fn count_problems(&self) {
        let count = self.file_problems.len() + self.other_problems.len() + self.index.problems().count();
        self.metrics.problems.set(i64::try_from(count).unwrap_or(i64::MAX));
    }
}

fn tell(streams: &mut HashMap<StreamId, Stream>, entry: &Entry, name: &ResourceName, differs: bool, now: Instant) {
    for id in entry.subscribers.iter().filter(|_| differs) {
        if let Some(stream) = streams.get_mut(id) {
            stream.mark(name, Some(now));
        }
    }
}

#[cfg(test)]
impl State {
    pub(crate) fn pending(&self) -> usize {
        self.streams.values().map(|it| it.pending.len() + it.removed.len()).sum()
    }

    pub(crate) fn newest(&self, name: &ResourceName) -> Version {
        let view = self.streams.values().next().map(|it| it.view.clone());
        view.and_then(|view| self.shelf.find(name, &view)).map_or(0, |it| it.version)
    }
}

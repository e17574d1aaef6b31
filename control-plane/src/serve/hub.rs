//! The one task that owns the index, and what every proxy subscribes to.
//!
//! `app` sends it events and roots; `identity` and `session` ask it. All come
//! as messages through one bounded channel, so a batch of events is seen whole
//! or not at all and nothing is locked. A change goes to exactly the streams
//! that subscribe to it, at once; the task never waits for any of them.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use bytes::Bytes;
use rustls_pki_types::CertificateDer;
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

use crate::{
    index::Index,
    model::{FileProblem, Key, Name, Origin},
    report,
    roots::Fingerprint,
    serve::{
        metrics::Metrics,
        resource::{ResourceName, Version},
        shelf::Shelf,
        stream::{Stream, StreamId},
    },
};

mod answers;
mod changes;
mod holdings;
mod origins;
mod proxies;
mod replicas;
mod reports;
mod summary;
pub(crate) mod unmeshed;

pub(crate) use holdings::Holding;
pub(crate) use summary::{Followers, Following, Known, Summary, Watching};

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
    /// In which what we sign now ends; `None`: nobody has said.
    signer: Option<Fingerprint>,
    replicas: replicas::Replicas,
    shelf: Shelf,
    streams: HashMap<StreamId, Stream>,
    pods: HashMap<Name, StreamId>,
    certificates: BTreeMap<Name, Certified>,
    file_problems: Vec<FileProblem>,
    origins: HashMap<Key, Origin>,
    other_problems: BTreeMap<&'static str, report::Problem>,
    unmeshed: Option<unmeshed::Told>,
    synced: bool,
    /// Moves with what `answers` says; never 0.
    answered: u64,
    last_id: u64,
    metrics: Metrics,
}

/// The newest certificate of a pod.
#[derive(Clone, Debug)]
pub(crate) struct Certified {
    pub(crate) identity: String,
    pub(crate) issued: u64,
    pub(crate) expires: u64,
    /// In which it ends.
    pub(crate) root: Fingerprint,
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
    pub(crate) fn new(
        index: Index,
        trust_domain: &str,
        roots: Arc<[CertificateDer<'static>]>,
        metrics: Metrics,
    ) -> Self {
        Self {
            trust_domain: trust_domain.to_owned(),
            index,
            roots,
            signer: None,
            replicas: replicas::Replicas::default(),
            shelf: Shelf::default(),
            streams: HashMap::new(),
            pods: HashMap::new(),
            certificates: BTreeMap::new(),
            file_problems: Vec::new(),
            origins: HashMap::new(),
            other_problems: BTreeMap::new(),
            unmeshed: None,
            synced: false,
            answered: 1,
            last_id: 0,
            metrics,
        }
    }
}

#[cfg(test)]
impl State {
    pub(crate) fn pending(&self) -> usize {
        self.streams
            .values()
            .map(|it| it.pending.len() + it.removed.len())
            .sum()
    }

    pub(crate) fn newest(&self, name: &ResourceName) -> Version {
        let view = self.streams.values().next().map(|it| it.view.clone());
        view.and_then(|view| self.shelf.find(name, &view))
            .map_or(0, |it| it.version)
    }
}

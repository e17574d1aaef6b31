//! What the sources say, applied to the index and told to exactly those who
//! subscribe to what is different.
//!
//! Part of `hub`; what a proxy does is in `hub/proxies.rs`.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use rustls_pki_types::CertificateDer;
use tokio::time::Instant;

use crate::{
    model::{BackendName, Change, Event, FileProblem},
    report,
    roots::Fingerprint,
    serve::{
        hub::State,
        resource::ResourceName,
        shelf::{Entry, World},
        stream::{Stream, StreamId},
    },
};

impl State {
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
        endpoints: &mut BTreeSet<(BackendName, Arc<str>)>,
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
            Change::Problems(object) => self.warn_of(&object),
            Change::Verdict(_) => self.stir(),
        }
    }

    /// The source has been read once: from now on there are answers.
    pub(crate) fn synced(&mut self) {
        self.synced = true;
        self.stir();
    }

    pub(crate) const fn is_synced(&self) -> bool {
        self.synced
    }

    pub(crate) fn set_file_problems(&mut self, problems: Vec<FileProblem>) {
        if problems != self.file_problems {
            self.stir();
        }
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
        self.stir();
    }

    /// In which every leaf ends that is signed from now on.
    pub(crate) fn set_signer(&mut self, root: Fingerprint) {
        self.signer = Some(root);
        self.stir();
    }

    pub(super) fn refresh(&mut self, name: &ResourceName, now: Instant) {
        let Self {
            index,
            roots,
            trust_domain,
            shelf,
            streams,
            ..
        } = self;
        let mut moved = Vec::new();
        shelf.refresh(
            World {
                index,
                roots,
                trust_domain,
            },
            name,
            &mut |entry, differs, former| {
                tell(streams, entry, name, differs, now);
                if former.is_some() {
                    moved.extend(
                        entry
                            .subscribers
                            .iter()
                            .map(|id| (*id, entry.closure.clone())),
                    );
                }
            },
        );
        for (id, closure) in moved {
            // A service that a route brought along brings nothing itself.
            if self
                .streams
                .get(&id)
                .is_some_and(|it| it.asked.contains_key(name))
            {
                self.bring(id, name.clone(), closure);
            }
        }
    }

    fn refresh_endpoint(&mut self, backend: &BackendName, uid: &str, now: Instant) {
        let Self {
            index,
            roots,
            trust_domain,
            shelf,
            streams,
            ..
        } = self;
        let name = ResourceName::Endpoints(backend.clone());
        let mut tell = |entry: &Entry, differs, _| tell(streams, entry, &name, differs, now);
        shelf.refresh_endpoint(
            World {
                index,
                roots,
                trust_domain,
            },
            backend,
            uid,
            &mut tell,
        );
    }

    fn count_problems(&self) {
        let count =
            self.file_problems.len() + self.other_problems.len() + self.index.problems().count();
        self.metrics
            .problems
            .set(i64::try_from(count).unwrap_or(i64::MAX));
    }
}

fn tell(
    streams: &mut HashMap<StreamId, Stream>,
    entry: &Entry,
    name: &ResourceName,
    differs: bool,
    now: Instant,
) {
    for id in entry.subscribers.iter().filter(|_| differs) {
        if let Some(stream) = streams.get_mut(id) {
            stream.mark(name, Some(now));
        }
    }
}

//! What one replica knows of its proxies, as it tells the Lease's holder.
//!
//! Part of `hub`. Bounded by the pods of the mesh, its Services, its routes and
//! policies; of each a few words. The holder's own is one of them: `holdings`
//! and `answers` add all up.

use std::collections::BTreeMap;

use crate::{
    model::{Key, Name},
    roots::Fingerprint,
    serve::{hub::State, resource::ResourceName, stream::Stream, tls::Signed},
};

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Summary {
    /// The newest bundle there.
    pub(crate) bundle: Vec<Fingerprint>,
    /// Under which it signs; `None`: it has not said.
    pub(crate) signer: Option<Fingerprint>,
    pub(crate) pods: BTreeMap<Name, Known>,
    pub(crate) services: BTreeMap<Name, Followers>,
    /// Of the routes and policies that it has read.
    pub(crate) generations: BTreeMap<Key, i64>,
}

/// Of a pod with a stream there, or a certificate from there.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Known {
    /// Empty: unknown.
    pub(crate) uid: String,
    pub(crate) stream: Option<Watching>,
    /// The newest that was issued there and has not expired.
    pub(crate) issued: Option<Signed>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Watching {
    /// What its connection shows.
    pub(crate) leaf: Signed,
    /// It has acknowledged the newest bundle there.
    pub(crate) holds_newest: bool,
    pub(crate) workload: Following,
}

/// What became of the newest content of one resource.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Following {
    Applied,
    Pending,
    Rejected(String),
}

/// The same of all subscribers of a resource.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Followers {
    pub(crate) all: usize,
    pub(crate) applied: usize,
    /// The first by name, and why.
    pub(crate) rejected: Option<(Name, String)>,
}

impl Followers {
    pub(crate) fn count(&mut self, pod: &Name, following: &Following) {
        self.all += 1;
        match following {
            Following::Applied => self.applied += 1,
            Following::Pending => {}
            Following::Rejected(why) => self.reject(pod, why),
        }
    }

    pub(crate) fn add(&mut self, others: &Self) {
        self.all += others.all;
        self.applied += others.applied;
        if let Some((pod, why)) = &others.rejected {
            self.reject(pod, why);
        }
    }

    fn reject(&mut self, pod: &Name, why: &str) {
        if self.rejected.as_ref().is_none_or(|(first, _)| pod < first) {
            self.rejected = Some((pod.clone(), why.to_owned()));
        }
    }
}

impl State {
    /// With a number that moves with it, at `now` in seconds since the epoch.
    /// `None`: it has not moved since `seen`, or the source has not been read.
    pub(crate) fn summary_since(&self, seen: u64, now: u64) -> Option<(u64, Summary)> {
        if self.answered == seen {
            return None;
        }
        Some((self.answered, self.summary(now)?))
    }

    /// `None`: the source has not been read, so nobody knows who lives.
    pub(crate) fn summary(&self, now: u64) -> Option<Summary> {
        if !self.synced {
            return None;
        }
        let verdicts = self.index.verdicts();
        Some(Summary {
            bundle: self.roots.iter().map(Fingerprint::of).collect(),
            signer: self.signer,
            pods: self.known(now),
            services: self.followers(),
            generations: verdicts
                .map(|(key, verdict)| (key.clone(), verdict.generation))
                .collect(),
        })
    }

    fn known(&self, now: u64) -> BTreeMap<Name, Known> {
        let mut pods: BTreeMap<Name, Known> = BTreeMap::new();
        let live = self.certificates.iter().filter(|(_, it)| it.expires > now);
        for (pod, it) in live {
            pods.entry(pod.clone()).or_default().issued = Some(Signed {
                issued: it.issued,
                root: it.root,
            });
        }
        let streams = self.pods.values().filter_map(|id| self.streams.get(id));
        for stream in streams.filter(|it| !it.is_gone() && it.ended.is_none()) {
            let (caller, bundle) = (&stream.caller, ResourceName::TrustBundle);
            let known = pods.entry(caller.pod.clone()).or_default();
            known.uid.clone_from(&caller.uid);
            let workload = ResourceName::Workload(caller.pod.clone());
            known.stream = Some(Watching {
                leaf: caller.signed,
                holds_newest: self.following(stream, &bundle) == Following::Applied,
                workload: self.following(stream, &workload),
            });
        }
        pods
    }

    fn followers(&self) -> BTreeMap<Name, Followers> {
        let mut followers: BTreeMap<Name, Followers> = BTreeMap::new();
        for stream in self.streams.values().filter(|it| !it.is_gone()) {
            for name in stream.interests.keys() {
                if let ResourceName::Service(service) = name {
                    let following = self.following(stream, name);
                    let it = followers.entry(service.clone()).or_default();
                    it.count(&stream.caller.pod, &following);
                }
            }
        }
        followers
    }

    fn following(&self, stream: &Stream, name: &ResourceName) -> Following {
        if let Some(rejected) = stream.rejects.get(name) {
            return Following::Rejected(rejected.reason.clone());
        }
        let newest = self.shelf.find(name, &stream.view).map(|it| it.version);
        let held = stream.interests.get(name).map(|it| it.acknowledged);
        match newest.is_some() && newest == held {
            true => Following::Applied,
            false => Following::Pending,
        }
    }
}

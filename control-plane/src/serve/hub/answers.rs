//! What is answered to routes and policies: the index's verdicts, and how many
//! proxies follow.
//!
//! Asked by whoever writes them back. A proxy follows once it has acknowledged
//! the newest content of what the object is about: the Service of a parent, the
//! workloads that a policy selects. Only the proxies of this replica are known
//! here, and the message says so.

use std::collections::BTreeMap;

use crate::{
    model::{Condition, ConditionKind, Entry, Key, Kind, Name, Reason, Verdict},
    serve::{hub::State, resource::ResourceName},
};

/// Of what one resource's subscribers have done with its newest content.
#[derive(Debug, Default)]
struct Followers {
    all: usize,
    applied: usize,
    /// The first by name, and why.
    rejected: Option<(Name, String)>,
}

impl State {
    /// Something of what `answers` says may be different.
    pub(super) const fn stir(&mut self) {
        self.answered = self.answered.wrapping_add(1);
    }

    /// Everything that is answered, with a number that moves with it. `None`:
    /// nothing has moved since `seen`, or the source has not been read yet.
    pub(crate) fn answers(&self, seen: u64) -> Option<(u64, Vec<(Key, Verdict)>)> {
        if !self.synced || self.answered == seen {
            return None;
        }
        let followers = self.followers();
        // What could not be taken is answered for what it is now, whatever of
        // it still holds.
        let mut all: BTreeMap<&Key, &Verdict> = self.index.verdicts().collect();
        all.extend(
            self.file_problems
                .iter()
                .filter_map(|it| Some((it.object.as_ref()?, it.verdict.as_ref()?))),
        );
        let answers = all.into_iter().map(|(key, verdict)| {
            let mut verdict = verdict.clone();
            let generation = verdict.generation;
            for entry in &mut verdict.entries {
                self.programme(key, generation, entry, &followers);
            }
            (key.clone(), verdict)
        });
        Some((self.answered, answers.collect()))
    }

    /// What isn't accepted, nobody has to follow.
    fn programme(
        &self,
        key: &Key,
        generation: i64,
        entry: &mut Entry,
        followers: &BTreeMap<ResourceName, Followers>,
    ) {
        let accepted = |it: &Condition| it.kind == ConditionKind::Accepted && it.holds;
        if !entry.conditions.iter().any(accepted) {
            return;
        }
        let about = self.about(key, entry);
        let found = about.iter().filter_map(|name| followers.get(name));
        entry.conditions.push(programmed(generation, found));
    }

    fn about(&self, key: &Key, entry: &Entry) -> Vec<ResourceName> {
        if key.kind == Kind::AccessPolicy {
            let pods = self.index.pods_of_policy(&key.name);
            return pods.into_iter().map(ResourceName::Workload).collect();
        }
        let reference = &entry.reference;
        let namespace = reference.namespace.as_ref();
        let namespace = namespace.unwrap_or(&key.name.namespace);
        vec![ResourceName::Service(Name::new(namespace, &reference.name))]
    }

    fn followers(&self) -> BTreeMap<ResourceName, Followers> {
        let mut followers: BTreeMap<ResourceName, Followers> = BTreeMap::new();
        for stream in self.streams.values().filter(|it| !it.is_gone()) {
            for (name, interest) in &stream.interests {
                if !matches!(name, ResourceName::Service(_) | ResourceName::Workload(_)) {
                    continue;
                }
                let newest = self.shelf.find(name, &stream.view).map(|it| it.version);
                let pod = &stream.caller.pod;
                let it = followers.entry(name.clone()).or_default();
                it.all += 1;
                it.applied += usize::from(newest == Some(interest.acknowledged));
                if let Some(rejected) = stream.rejects.get(name)
                    && it.rejected.as_ref().is_none_or(|(first, _)| pod < first)
                {
                    it.rejected = Some((pod.clone(), rejected.reason.clone()));
                }
            }
        }
        followers
    }
}

fn programmed<'a>(generation: i64, followers: impl Iterator<Item = &'a Followers>) -> Condition {
    let (mut all, mut applied) = (0, 0);
    let mut rejected: Option<&(Name, String)> = None;
    for it in followers {
        all += it.all;
        applied += it.applied;
        rejected = match (rejected, &it.rejected) {
            (Some(first), Some(other)) => Some(first.min(other)),
            (first, other) => first.or(other.as_ref()),
        };
    }
    let count = format!("{applied} of {all} proxies of this replica apply generation {generation}");
    let (holds, reason, message) = match rejected {
        Some((pod, why)) => {
            let message = format!("{count}; {pod} rejects it: {why}");
            (false, Reason::Rejected, message)
        }
        None if all == 0 => (true, Reason::NoProxies, count),
        None if applied == all => (true, Reason::Programmed, count),
        None => (false, Reason::Pending, count),
    };
    Condition {
        kind: ConditionKind::Programmed,
        holds,
        reason,
        message,
    }
}

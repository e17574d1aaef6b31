//! What is answered to routes and policies: the index's verdicts, and how many
//! proxies follow.
//!
//! Asked by whoever writes them back. A proxy follows once it has acknowledged
//! the newest content of what the object is about: the Service of a parent, the
//! workloads that a policy selects. Other replicas have told of theirs; what
//! they tell of another generation is not of this one, and while one is silent
//! nobody says that all follow.

use std::collections::BTreeMap;

use crate::{
    model::{Condition, ConditionKind, Entry, Key, Kind, Name, Reason, Verdict},
    serve::hub::{Followers, State, Summary},
};

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
        // Without certificates, which are of no interest here.
        let own = self.summary(u64::MAX)?;
        let told: Vec<_> = [&own]
            .into_iter()
            .chain(self.replicas.summaries())
            .collect();
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
                self.programme(key, generation, entry, &told);
            }
            (key.clone(), verdict)
        });
        Some((self.answered, answers.collect()))
    }

    /// What isn't accepted, nobody has to follow.
    fn programme(&self, key: &Key, generation: i64, entry: &mut Entry, all: &[&Summary]) {
        let accepted = |it: &Condition| it.kind == ConditionKind::Accepted && it.holds;
        if !entry.conditions.iter().any(accepted) {
            return;
        }
        let mut sum = Followers::default();
        for summary in all {
            let mut found = self.followers_in(summary, key, entry);
            if summary.generations.get(key) != Some(&generation) {
                (found.applied, found.rejected) = (0, None);
            }
            sum.add(&found);
        }
        entry
            .conditions
            .push(programmed(generation, &sum, self.replicas.silent()));
    }

    fn followers_in(&self, summary: &Summary, key: &Key, entry: &Entry) -> Followers {
        if key.kind == Kind::AccessPolicy {
            let mut found = Followers::default();
            for pod in self.index.pods_of_policy(&key.name) {
                let stream = summary.pods.get(&pod).and_then(|it| it.stream.as_ref());
                if let Some(stream) = stream {
                    found.count(&pod, &stream.workload);
                }
            }
            return found;
        }
        let reference = &entry.reference;
        let namespace = reference.namespace.as_ref();
        let namespace = namespace.unwrap_or(&key.name.namespace);
        let service = Name::new(namespace, &reference.name);
        summary.services.get(&service).cloned().unwrap_or_default()
    }
}

fn programmed(generation: i64, of: &Followers, silent: Option<&str>) -> Condition {
    let (all, applied) = (of.all, of.applied);
    let count = format!("{applied} of {all} proxies apply generation {generation}");
    let (holds, reason, message) = match (&of.rejected, silent) {
        (Some((pod, why)), _) => {
            let message = format!("{count}; {pod} rejects it: {why}");
            (false, Reason::Rejected, message)
        }
        (None, Some(replica)) => {
            let message = format!("{count}; replica {replica} has not told of its proxies");
            (false, Reason::Pending, message)
        }
        (None, None) if all == 0 => (true, Reason::NoProxies, count),
        (None, None) if applied == all => (true, Reason::Programmed, count),
        (None, None) => (false, Reason::Pending, count),
    };
    Condition {
        kind: ConditionKind::Programmed,
        holds,
        reason,
        message,
    }
}

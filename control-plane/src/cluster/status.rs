//! Writes what is answered to routes and policies into their status.
//!
//! Only the Lease's holder writes. What to say comes from `serve::hub`; here is
//! how: read, replace the entries that are ours, leave those of others as they
//! are, and write back with the version that was read. What already stands
//! there is not written. An answer is written within a second or two of its
//! change; mere counts of proxies at most every ten seconds an object. Once a
//! minute, and by a new holder at once, everything is looked through: what
//! somebody else has overwritten is said again, and what nobody says any more is
//! taken back.

mod entries;

use std::{collections::HashMap, time::Duration};

use futures_util::{StreamExt, stream};
use k8s_openapi::jiff::Timestamp;
use kube::{
    Api,
    api::{ApiResource, DynamicObject, ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

use crate::{
    clock::Wall,
    cluster::{Cluster, Failure, call},
    model::{Condition, ConditionKind, Key, Kind, Name, Reason, Verdict},
    serve::hub::Hub,
};
use entries::{list_name, merged};

/// How often the hub is asked whether anything is different.
const LOOK: Duration = Duration::from_secs(1);
/// Between two writes that tell of counts alone.
const COUNTS: Duration = Duration::from_secs(10);
/// Until a write that came to nothing is tried again.
const AGAIN: Duration = Duration::from_secs(5);
/// Until all objects are looked through again.
const LOOK_THROUGH: Duration = Duration::from_secs(60);
/// Objects on one page of that.
const PAGE: u32 = 500;
/// At once; an API server has others to serve.
const WRITES: usize = 8;
/// Somebody else wrote meanwhile: as often it is read again.
const TRIES: usize = 4;

pub(crate) struct Writer {
    pub(crate) cluster: Cluster,
    pub(crate) clock: Wall,
    pub(crate) hub: Hub,
    /// Whether this replica is the one.
    pub(crate) holds: watch::Receiver<bool>,
}

/// What was said of an object last, and when.
#[derive(Debug)]
struct Said {
    verdict: Option<Verdict>,
    counts: Option<Instant>,
    failed: Option<Instant>,
}

impl Said {
    /// It is not known what.
    fn something() -> Self {
        Self {
            verdict: Some(Verdict::default()),
            counts: None,
            failed: None,
        }
    }
}

impl Writer {
    /// Until the process ends.
    pub(crate) async fn run(mut self) {
        while self.holds.wait_for(|it| *it).await.is_ok() {
            // Another holder may have written since we last did.
            self.while_holding().await;
        }
    }

    async fn while_holding(&mut self) {
        let mut said: HashMap<Key, Said> = HashMap::new();
        let mut answers: HashMap<Key, Verdict> = HashMap::new();
        let (mut seen, mut look_through_at) = (0, Instant::now());
        while *self.holds.borrow() {
            let asked = self.hub.ask(move |state| state.answers(seen)).await;
            match asked {
                Ok(Some((now, all))) => (seen, answers) = (now, all.into_iter().collect()),
                Ok(None) => {}
                Err(_stopping) => return,
            }
            if seen > 0 {
                if look_through_at <= Instant::now() {
                    let again = match self.look_through(&answers, &mut said).await {
                        Ok(()) => LOOK_THROUGH,
                        Err(error) => {
                            tracing::warn!(%error, "what stands in statuses could not be read and is tried again");
                            AGAIN
                        }
                    };
                    look_through_at = Instant::now() + again;
                }
                self.write_due(&answers, &mut said).await;
            }
            tokio::select! {
                () = sleep(LOOK) => {}
                _lost_or_ended = self.holds.wait_for(|it| !*it) => return,
            }
        }
    }

    /// Where another word stands than ours, ours has not been said.
    async fn look_through(
        &self,
        answers: &HashMap<Key, Verdict>,
        said: &mut HashMap<Key, Said>,
    ) -> Result<(), Failure> {
        for kind in ANSWERED {
            let Some(resource) = resource(kind) else {
                continue;
            };
            let objects: Api<DynamicObject> = Api::all_with(self.cluster.client.clone(), &resource);
            let mut page = ListParams::default().limit(PAGE);
            loop {
                let list = match call(objects.list(&page)).await {
                    // The cluster has no such kind.
                    Err(error) if error.is_not_found() => break,
                    list => list?,
                };
                for object in &list.items {
                    self.compare(kind, object, answers, said);
                }
                page.continue_token = list.metadata.continue_.filter(|it| !it.is_empty());
                if page.continue_token.is_none() {
                    break;
                }
            }
        }
        Ok(())
    }

    fn compare(
        &self,
        kind: Kind,
        object: &DynamicObject,
        answers: &HashMap<Key, Verdict>,
        said: &mut HashMap<Key, Said>,
    ) {
        let part = |it: &Option<String>| it.clone().unwrap_or_default();
        let (namespace, name) = (&object.metadata.namespace, &object.metadata.name);
        let key = Key {
            kind,
            name: Name::new(&part(namespace), &part(name)),
        };
        let status = object.data.get("status").unwrap_or(&Value::Null);
        let answer = answers.get(&key);
        if merged(kind, status, answer, &self.now()).is_none() {
            return;
        }
        match answer {
            Some(_) => drop(said.remove(&key)),
            // A holder before us has said it.
            None => drop(said.insert(key, Said::something())),
        }
    }

    async fn write_due(&self, answers: &HashMap<Key, Verdict>, said: &mut HashMap<Key, Said>) {
        let now = Instant::now();
        // Those that are no longer ours to answer, too: our word is taken back.
        let all = answers.keys().chain(said.keys());
        let mut due: Vec<Key> = all
            .filter(|key| is_due(said.get(*key), answers.get(*key), now))
            .cloned()
            .collect();
        due.sort();
        due.dedup();
        let writes = due.into_iter().map(|key| async move {
            let written = self.write(&key, answers.get(&key)).await;
            (key, written)
        });
        let mut writes = stream::iter(writes).buffer_unordered(WRITES);
        while let Some((key, written)) = writes.next().await {
            let verdict = answers.get(&key).cloned();
            let before = said.remove(&key);
            let failed = match written {
                Ok(()) if verdict.is_none() => continue,
                Ok(()) => None,
                Err(error) => {
                    tracing::warn!(object = %key, %error, "a status could not be written and is tried again");
                    Some(now)
                }
            };
            let (last, counts) = before.map_or((None, None), |it| (it.verdict, it.counts));
            let only_counts = verdict.as_ref().zip(last.as_ref());
            let only_counts = only_counts.is_some_and(|(now, last)| differs_in_counts(now, last));
            said.insert(
                key,
                Said {
                    counts: if only_counts { Some(now) } else { counts },
                    verdict: if failed.is_none() { verdict } else { last },
                    failed,
                },
            );
        }
    }

    async fn write(&self, key: &Key, verdict: Option<&Verdict>) -> Result<(), Failure> {
        let Some(resource) = resource(key.kind) else {
            return Ok(());
        };
        let objects: Api<DynamicObject> =
            Api::namespaced_with(self.cluster.client.clone(), &key.name.namespace, &resource);
        let mut tries = 1;
        loop {
            let Some(object) = call(objects.get_opt(&key.name.name)).await? else {
                return Ok(());
            };
            let status = object.data.get("status").unwrap_or(&Value::Null);
            let Some(list) = merged(key.kind, status, verdict, &self.now()) else {
                return Ok(());
            };
            let patch = json!({
                "metadata": {"resourceVersion": object.metadata.resource_version},
                "status": {list_name(key.kind): list},
            });
            let parameters = PatchParams::default();
            let patch = Patch::Merge(&patch);
            match call(objects.patch_status(&key.name.name, &parameters, &patch)).await {
                Ok(_) => return Ok(()),
                Err(error) if error.is_not_found() => return Ok(()),
                Err(error) if error.is_conflict() && tries < TRIES => tries += 1,
                Err(error) => return Err(error),
            }
        }
    }

    fn now(&self) -> String {
        let seconds = i64::try_from(self.clock.seconds()).unwrap_or(i64::MAX);
        Timestamp::from_second(seconds)
            .unwrap_or(Timestamp::MAX)
            .to_string()
    }
}

const ANSWERED: [Kind; 4] = [
    Kind::HttpRoute,
    Kind::GrpcRoute,
    Kind::BackendPolicy,
    Kind::AccessPolicy,
];

fn resource(kind: Kind) -> Option<ApiResource> {
    const GATEWAY: (&str, &str) = ("gateway.networking.k8s.io", "v1");
    const OURS: (&str, &str) = ("weft.dev", "v1alpha1");
    let ((group, version), plural) = match kind {
        Kind::HttpRoute => (GATEWAY, "httproutes"),
        Kind::GrpcRoute => (GATEWAY, "grpcroutes"),
        Kind::BackendPolicy => (OURS, "backendpolicies"),
        Kind::AccessPolicy => (OURS, "accesspolicies"),
        _ => return None,
    };
    Some(ApiResource {
        group: group.to_owned(),
        version: version.to_owned(),
        api_version: format!("{group}/{version}"),
        kind: kind.as_str().to_owned(),
        plural: plural.to_owned(),
    })
}

fn is_due(said: Option<&Said>, answer: Option<&Verdict>, now: Instant) -> bool {
    let Some(said) = said else {
        return answer.is_some();
    };
    let since = |then: Instant| now.saturating_duration_since(then);
    if said.failed.is_some_and(|then| since(then) < AGAIN) {
        return false;
    }
    match (answer, &said.verdict) {
        (Some(answer), Some(last)) if answer == last => said.failed.is_some(),
        (Some(answer), Some(last)) if differs_in_counts(answer, last) => {
            said.counts.is_none_or(|then| since(then) >= COUNTS)
        }
        _ => true,
    }
}

/// A proxy that rejects is no mere count.
fn differs_in_counts(one: &Verdict, other: &Verdict) -> bool {
    let is_count =
        |it: &Condition| it.kind == ConditionKind::Programmed && it.reason != Reason::Rejected;
    let without = |verdict: &Verdict| {
        let mut verdict = verdict.clone();
        for entry in &mut verdict.entries {
            entry.conditions.retain(|it| !is_count(it));
        }
        verdict
    };
    one != other && without(one) == without(other)
}

#[cfg(test)]
mod tests;

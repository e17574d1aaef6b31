//! Writes what is answered to routes and policies into their status.
//!
//! Only the Lease's holder writes. What to say comes from `serve::hub`; here is
//! how: read, replace the entries that are ours, leave those of others as they
//! are, and write back with the version that was read. What already stands
//! there is not written. An answer is written within a second or two of its
//! change; mere counts of proxies at most every ten seconds an object.

use std::{collections::HashMap, time::Duration};

use futures_util::{StreamExt, stream};
use k8s_openapi::jiff::Timestamp;
use kube::{
    Api,
    api::{ApiResource, DynamicObject, Patch, PatchParams},
};
use serde_json::{Value, json};
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

use crate::{
    clock::Wall,
    cluster::{Cluster, Failure, call},
    model::{CONTROLLER, Condition, ConditionKind, Entry, Key, Kind, Reason, Reference, Verdict},
    serve::hub::Hub,
};

/// How often the hub is asked whether anything is different.
const LOOK: Duration = Duration::from_secs(1);
/// Between two writes that tell of counts alone.
const COUNTS: Duration = Duration::from_secs(10);
/// Until a write that came to nothing is tried again.
const AGAIN: Duration = Duration::from_secs(5);
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
        let mut seen = 0;
        while *self.holds.borrow() {
            let asked = self.hub.ask(move |state| state.answers(seen)).await;
            match asked {
                Ok(Some((now, all))) => (seen, answers) = (now, all.into_iter().collect()),
                Ok(None) => {}
                Err(_stopping) => return,
            }
            if seen > 0 {
                self.write_due(&answers, &mut said).await;
            }
            tokio::select! {
                () = sleep(LOOK) => {}
                _lost_or_ended = self.holds.wait_for(|it| !*it) => return,
            }
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

const fn list_name(kind: Kind) -> &'static str {
    match kind {
        Kind::HttpRoute | Kind::GrpcRoute => "parents",
        _ => "ancestors",
    }
}

const fn reference_name(kind: Kind) -> &'static str {
    match kind {
        Kind::HttpRoute | Kind::GrpcRoute => "parentRef",
        _ => "ancestorRef",
    }
}

/// RouteStatus.parents and PolicyStatus.ancestors.
const fn most(kind: Kind) -> usize {
    match kind {
        Kind::HttpRoute | Kind::GrpcRoute => 32,
        _ => 16,
    }
}

/// The entries of everybody, ours as they should be. `None`: they are so.
fn merged(kind: Kind, status: &Value, verdict: Option<&Verdict>, now: &str) -> Option<Vec<Value>> {
    let none = Vec::new();
    let held = status.get(list_name(kind)).and_then(Value::as_array);
    let held = held.unwrap_or(&none);
    let is_ours =
        |it: &&Value| it.get("controllerName").and_then(Value::as_str) == Some(CONTROLLER);
    let mut list: Vec<Value> = held.iter().filter(|it| !is_ours(it)).cloned().collect();
    for entry in verdict.iter().flat_map(|it| &it.entries) {
        let reference = reference_value(&entry.reference);
        let before = held
            .iter()
            .filter(is_ours)
            .find(|it| it.get(reference_name(kind)) == Some(&reference));
        let generation = verdict.map_or(0, |it| it.generation);
        let conditions = conditions(entry, generation, before, now);
        if list.len() < most(kind) {
            list.push(json!({
                reference_name(kind): reference,
                "controllerName": CONTROLLER,
                "conditions": conditions,
            }));
        }
    }
    let same = list.len() == held.len() && list.iter().all(|it| held.contains(it));
    (!same).then_some(list)
}

/// As it is written in the object, which is what it is found by.
fn reference_value(it: &Reference) -> Value {
    let mut value = json!({"name": it.name});
    let parts = [
        ("group", it.group.as_ref()),
        ("kind", it.kind.as_ref()),
        ("namespace", it.namespace.as_ref()),
        ("sectionName", it.section.as_ref()),
    ];
    for (name, part) in parts {
        if let Some(part) = part {
            value[name] = json!(part);
        }
    }
    if let Some(port) = it.port {
        value["port"] = json!(port);
    }
    value
}

/// "MUST NOT overwrite a condition with a greater observedGeneration", and types
/// that we don't write are not ours to remove.
fn conditions(entry: &Entry, generation: i64, before: Option<&Value>, now: &str) -> Vec<Value> {
    let none = Vec::new();
    let before = before.and_then(|it| it.get("conditions")?.as_array());
    let before = before.unwrap_or(&none);
    let of = |kind: &str| before.iter().find(|it| text(it, "type") == kind);
    let observed = |it: &Value| it.get("observedGeneration").and_then(Value::as_i64);
    let mut conditions: Vec<Value> = Vec::new();
    for it in &entry.conditions {
        let last = of(it.kind.as_str());
        if let Some(newer) = last.filter(|last| observed(last) > Some(generation)) {
            conditions.push(newer.clone());
            continue;
        }
        let status = if it.holds { "True" } else { "False" };
        let same = last.filter(|last| text(last, "status") == status);
        let since = same.map_or(now, |last| text(last, "lastTransitionTime"));
        conditions.push(json!({
            "type": it.kind.as_str(),
            "status": status,
            "reason": it.reason.as_str(),
            "message": it.message,
            "observedGeneration": generation,
            "lastTransitionTime": since,
        }));
    }
    let ours = |it: &&Value| {
        ConditionKind::ALL
            .iter()
            .any(|kind| kind.as_str() == text(it, "type"))
    };
    conditions.extend(before.iter().filter(|it| !ours(it)).cloned());
    conditions
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value.get(field).and_then(Value::as_str).unwrap_or_default()
}

#[cfg(test)]
mod tests;

//! Our entries of a status among those of others: as they should be, and whether
//! they are.
//!
//! Asked by `status` with what an object holds and what is answered to it.
//!
//! Pure.

use serde_json::{Value, json};

use crate::model::{CONTROLLER, ConditionKind, Entry, Kind, Reference, Verdict};

pub(super) const fn list_name(kind: Kind) -> &'static str {
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
pub(super) fn merged(
    kind: Kind,
    status: &Value,
    verdict: Option<&Verdict>,
    now: &str,
) -> Option<Vec<Value>> {
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

pub(super) fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value.get(field).and_then(Value::as_str).unwrap_or_default()
}

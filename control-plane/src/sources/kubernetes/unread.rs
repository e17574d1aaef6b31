//! What is answered to a policy that can't be taken: that it doesn't hold as it
//! is, and which field is to blame.
//!
//! Asked by `told`. A route that can't be taken says so itself (`Refused`); of a
//! policy the last good state holds, so the answer goes beside it.
//!
//! Pure.

use serde_json::Value;

use super::kinds;
use crate::{
    model::{Condition, ConditionKind, Entry, Kind, Reason, Reference, Verdict},
    sources::manifest::Refusal,
};

/// PolicyStatus.ancestors: no further entries beyond these.
const MOST_ANCESTORS: usize = 16;

/// Whom to answer, as far as the object says.
#[derive(Debug)]
pub(super) struct Subject {
    uid: String,
    generation: i64,
    /// What it is for; its namespace where that can't be read.
    about: Vec<Reference>,
}

impl Subject {
    /// `None`: nobody reads the status of this kind from us.
    pub(super) fn of(kind: Kind, value: &Value) -> Option<Self> {
        let services = match kind {
            Kind::AccessPolicy => Vec::new(),
            Kind::BackendPolicy => services(value),
            _ => return None,
        };
        let namespace = kinds::text(value, "/metadata/namespace");
        let generation = value.pointer("/metadata/generation");
        Some(Self {
            uid: kinds::text(value, "/metadata/uid").to_owned(),
            generation: generation.and_then(Value::as_i64).unwrap_or_default(),
            about: match services.is_empty() {
                true => vec![reference("Namespace", None, namespace)],
                false => services
                    .into_iter()
                    .map(|it| reference("Service", Some(namespace), it))
                    .collect(),
            },
        })
    }

    pub(super) fn verdict(self, refusal: &Refusal) -> Verdict {
        let condition = Condition {
            kind: ConditionKind::Accepted,
            holds: false,
            reason: Reason::Invalid,
            message: refusal.to_string(),
        };
        let entry = |reference| Entry {
            reference,
            conditions: vec![condition.clone()],
        };
        Verdict {
            uid: self.uid,
            generation: self.generation,
            entries: self.about.into_iter().map(entry).collect(),
        }
    }
}

fn services(value: &Value) -> Vec<&str> {
    let targets = value.pointer("/spec/targetRefs").and_then(Value::as_array);
    let mut names: Vec<&str> = Vec::new();
    for target in targets.into_iter().flatten().take(MOST_ANCESTORS) {
        let name = kinds::text(target, "/name");
        if kinds::text(target, "/kind") == "Service" && !name.is_empty() && !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

fn reference(kind: &str, namespace: Option<&str>, name: &str) -> Reference {
    Reference {
        group: Some(String::new()),
        kind: Some(kind.to_owned()),
        namespace: namespace.map(str::to_owned),
        name: name.to_owned(),
        ..Reference::default()
    }
}

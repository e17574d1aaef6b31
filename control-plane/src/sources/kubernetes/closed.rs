//! What holds instead of an AccessPolicy that can't be taken and of which no
//! good state is known: everything that it is for is denied.
//!
//! Asked by `told`. An older control plane may not know a field of a policy, and
//! a policy left out opens what it closed. Where it doesn't say by readable
//! labels whom it is for, it is for its namespace.
//!
//! Pure.

use serde_json::Value;

use super::kinds;
use crate::model::{AccessPolicy, AccessRule, AccessTarget, Labels};

pub(super) fn policy(value: &Value) -> AccessPolicy {
    let target = selected(value).map_or(AccessTarget::Namespace, AccessTarget::Selected);
    AccessPolicy {
        name: kinds::name(value),
        targets: vec![target],
        rules: vec![AccessRule {
            deny: true,
            ..AccessRule::default()
        }],
        ..AccessPolicy::default()
    }
}

fn selected(value: &Value) -> Option<Labels> {
    let labels = value.pointer("/spec/selector/matchLabels")?.as_object()?;
    let pairs = labels.iter();
    let pairs = pairs.map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())));
    let labels: Labels = pairs.collect::<Option<_>>()?;
    (!labels.is_empty()).then_some(labels)
}

//! The difference of two pods as a JSON patch (RFC 6902).
//!
//! One operation for each field of `metadata` and `spec` that differs, with the
//! whole new value: `add` to a member that exists replaces it (§4.1), so order
//! in lists needs no care, and a patch reads like what it does.
//!
//! Pure.

use serde_json::{Value, json};

/// Empty when nothing differs.
pub(super) fn between(old: &Value, new: &Value) -> Vec<Value> {
    let mut operations = Vec::new();
    for part in ["metadata", "spec"] {
        let empty = serde_json::Map::new();
        let of = |it: &'_ Value| it.get(part).and_then(Value::as_object).cloned();
        let (old, new) = (of(old), of(new).unwrap_or_default());
        if old.is_none() && !new.is_empty() {
            operations.push(json!({"op": "add", "path": format!("/{part}"), "value": {}}));
        }
        let old = old.unwrap_or(empty);
        for (field, value) in &new {
            if old.get(field) != Some(value) {
                let path = format!("/{part}/{field}");
                operations.push(json!({"op": "add", "path": path, "value": value}));
            }
        }
        for field in old.keys().filter(|it| !new.contains_key(*it)) {
            operations.push(json!({"op": "remove", "path": format!("/{part}/{field}")}));
        }
    }
    operations
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_differs_is_written() {
        let old = json!({"spec": {"containers": [1], "volumes": [], "hostname": "a"}});
        let new = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [1], "volumes": [2]}});
        assert_eq!(
            between(&old, &new),
            [
                json!({"op": "add", "path": "/metadata", "value": {}}),
                json!({"op": "add", "path": "/metadata/labels", "value": {"a": "b"}}),
                json!({"op": "add", "path": "/spec/volumes", "value": [2]}),
                json!({"op": "remove", "path": "/spec/hostname"}),
            ]
        );
        assert!(between(&new, &new).is_empty());
    }
}

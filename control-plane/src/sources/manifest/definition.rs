//! The CustomResourceDefinitions of our two policies, made of their types.
//!
//! charts/weft-crds holds them as files; a test keeps both together. What
//! schemars says of a type is brought into the structural form that API servers
//! take (apiextensions.k8s.io/v1): no references, no null, no alternatives.
//!
//! Pure.

use schemars::{JsonSchema, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use super::{access_policy::AccessPolicySpec, backend_policy::BackendPolicySpec};

/// What differs between the two.
struct Kind {
    kind: &'static str,
    plural: &'static str,
    short: &'static str,
    /// GEP-713: whether more than the targets themselves are affected.
    policy: &'static str,
    description: &'static str,
    spec: Value,
    column: Value,
}

/// By the name of their file.
pub(crate) fn all() -> [(&'static str, Value); 2] {
    let backend = Kind {
        kind: "BackendPolicy",
        plural: "backendpolicies",
        short: "bpol",
        policy: "Direct",
        description: "How proxies call a Service: balancing, circuit breaking, limits, retries, timeouts.",
        spec: schema::<BackendPolicySpec>(),
        column: json!({"name": "Services", "type": "string", "jsonPath": ".spec.targetRefs[*].name"}),
    };
    let access = Kind {
        kind: "AccessPolicy",
        plural: "accesspolicies",
        short: "apol",
        policy: "Inherited",
        description: "Who may call a workload, and whether mutual TLS is demanded.",
        spec: schema::<AccessPolicySpec>(),
        column: json!({"name": "mTLS", "type": "string", "jsonPath": ".spec.mtls"}),
    };
    [
        ("accesspolicies.yaml", definition(&access)),
        ("backendpolicies.yaml", definition(&backend)),
    ]
}

fn definition(it: &Kind) -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": format!("{}.weft.dev", it.plural),
            // Its objects would go with it.
            "annotations": {"helm.sh/resource-policy": "keep"},
            "labels": {
                "app.kubernetes.io/part-of": "weft",
                "gateway.networking.k8s.io/policy": it.policy,
            },
        },
        "spec": {
            "group": "weft.dev",
            "scope": "Namespaced",
            "names": {
                "kind": it.kind,
                "listKind": format!("{}List", it.kind),
                "plural": it.plural,
                "singular": it.kind.to_ascii_lowercase(),
                "shortNames": [it.short],
                "categories": ["weft"],
            },
            "versions": [{
                "name": "v1alpha1",
                "served": true,
                "storage": true,
                "subresources": {"status": {}},
                "additionalPrinterColumns": [it.column, accepted(), {
                    "name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp",
                }],
                "schema": {"openAPIV3Schema": {
                    "type": "object",
                    "description": it.description,
                    "required": ["spec"],
                    "properties": {
                        "apiVersion": {"type": "string"},
                        "kind": {"type": "string"},
                        "metadata": {"type": "object"},
                        "spec": it.spec,
                        "status": status(),
                    },
                }},
            }],
        },
    })
}

fn accepted() -> Value {
    let path = r#".status.ancestors[*].conditions[?(@.type=="Accepted")].status"#;
    json!({"name": "Accepted", "type": "string", "jsonPath": path})
}

/// `PolicyStatus` of the Gateway API (GEP-713), as `gateway-api` has it.
fn status() -> Value {
    let text = |description: &str| json!({"type": "string", "description": description});
    let condition = json!({
        "type": "object",
        "required": ["type", "status", "reason", "message", "lastTransitionTime"],
        "properties": {
            "type": text("What it is about."),
            "status": {"type": "string", "enum": ["True", "False", "Unknown"], "description": "Whether it holds."},
            "reason": text("Why, for programs."),
            "message": text("Why, for people."),
            "lastTransitionTime": {"type": "string", "format": "date-time", "description": "Since when."},
            "observedGeneration": {"type": "integer", "format": "int64", "description": "Of the object that it is about."},
        },
    });
    json!({
        "type": "object",
        "description": "Written by the mesh: what became of the policy.",
        "properties": {"ancestors": {
            "type": "array",
            "maxItems": 16,
            "description": "For each target.",
            "items": {
                "type": "object",
                "required": ["ancestorRef", "controllerName"],
                "properties": {
                    "ancestorRef": {
                        "type": "object",
                        "description": "The target.",
                        "required": ["name"],
                        "properties": {
                            "group": text("Its group."),
                            "kind": text("Its kind."),
                            "namespace": text("Its namespace."),
                            "name": text("Its name."),
                            "sectionName": text("A part of it."),
                            "port": {"type": "integer", "format": "int32", "description": "One port of it."},
                        },
                    },
                    "controllerName": text("`weft.dev/mesh`."),
                    "conditions": {
                        "type": "array",
                        "maxItems": 8,
                        "description": "Accepted, and whether proxies apply it.",
                        "x-kubernetes-list-type": "map",
                        "x-kubernetes-list-map-keys": ["type"],
                        "items": condition,
                    },
                },
            },
        }},
    })
}

fn schema<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::openapi3().with(|it| {
        it.inline_subschemas = true;
        it.meta_schema = None;
    });
    let mut schema = settings
        .into_generator()
        .into_root_schema_for::<T>()
        .to_value();
    make_structural(&mut schema);
    schema
}

/// Keywords that say nothing to an API server, or that it doesn't take.
const DROPPED: [&str; 5] = [
    "$schema",
    "title",
    "default",
    "additionalProperties",
    "nullable",
];

fn make_structural(value: &mut Value) {
    let Value::Object(schema) = value else { return };
    flatten(schema);
    let is_map = !schema.contains_key("properties");
    for keyword in DROPPED {
        // A map's values are described by it; a struct's say "nothing else".
        let is_values = keyword == "additionalProperties"
            && is_map
            && schema.get(keyword).is_some_and(Value::is_object);
        if !is_values {
            schema.remove(keyword);
        }
    }
    // Bounds say the same without it, and API servers know only some.
    schema.remove("format");
    if let Some(Value::String(text)) = schema.get_mut("description") {
        *text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    }
    if let Some(Value::Object(properties)) = schema.get_mut("properties") {
        properties.values_mut().for_each(make_structural);
    }
    for below in ["items", "additionalProperties"] {
        schema.get_mut(below).into_iter().for_each(make_structural);
    }
}

/// Alternatives into one type: something or null, one of many words, a number
/// or a word.
fn flatten(schema: &mut Map<String, Value>) {
    if let Some(Value::Array(types)) = schema.get("type") {
        let only = types.iter().find(|it| it.as_str() != Some("null")).cloned();
        schema.extend(only.map(|it| ("type".to_owned(), it)));
    }
    if let Some(Value::Array(all)) = schema.get_mut("enum") {
        all.retain(|it| !it.is_null());
    }
    let taken = ["anyOf", "oneOf"].iter().find_map(|it| schema.remove(*it));
    let Some(Value::Array(mut choices)) = taken else {
        return;
    };
    choices.retain(|it| !is_null(it));
    if let [Value::Object(only)] = choices.as_mut_slice() {
        let mut only = std::mem::take(only);
        flatten(&mut only);
        // The field's own description is nearer than its type's.
        for (keyword, value) in only {
            schema.entry(keyword).or_insert(value);
        }
        return;
    }
    let words: Option<Vec<_>> = choices.iter().map(word).collect();
    match words {
        Some(words) => {
            let described = words.iter().filter_map(|(word, what)| {
                Some(format!("{}: {}", word.as_str()?, what.as_deref()?))
            });
            let described = described.collect::<Vec<_>>().join(" ");
            let all: Vec<_> = words.iter().map(|(word, _)| word.clone()).collect();
            schema.insert("type".to_owned(), json!("string"));
            schema.insert("enum".to_owned(), all.into());
            let before = schema.get("description").and_then(Value::as_str);
            let before = before.unwrap_or_default();
            let text = format!("{before} {described}");
            schema.insert("description".to_owned(), json!(text.trim()));
        }
        None => {
            schema.insert("x-kubernetes-int-or-string".to_owned(), json!(true));
        }
    }
}

fn is_null(it: &Value) -> bool {
    it.get("type") == Some(&json!("null"))
        || it.get("enum") == Some(&json!([null]))
        || it.get("const") == Some(&Value::Null)
}

/// One word of an enum, and what it means.
fn word(it: &Value) -> Option<(Value, Option<String>)> {
    let only = match it.get("enum").and_then(Value::as_array).map(Vec::as_slice) {
        Some([only]) => Some(only),
        _ => it.get("const"),
    };
    let what = it.get("description").and_then(Value::as_str);
    Some((only?.clone(), what.map(str::to_owned)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What API servers refuse in a structural schema, wherever it stands.
    fn check(schema: &Value, at: &str) {
        let Value::Object(schema) = schema else {
            panic!("{at} is no schema: {schema}");
        };
        let is_typed = schema.get("type").is_some_and(Value::is_string);
        assert!(
            is_typed || schema.contains_key("x-kubernetes-int-or-string"),
            "{at} has no type"
        );
        for forbidden in [
            "$ref", "anyOf", "oneOf", "allOf", "default", "nullable", "const", "$defs",
        ] {
            assert!(!schema.contains_key(forbidden), "{at} has {forbidden}");
        }
        let is_both =
            schema.contains_key("properties") && schema.contains_key("additionalProperties");
        assert!(!is_both, "{at} is struct and map");
        for (name, property) in schema
            .get("properties")
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
        {
            check(property, &format!("{at}.{name}"));
        }
        for below in ["items", "additionalProperties"] {
            if let Some(it) = schema.get(below) {
                check(it, &format!("{at}.{below}"));
            }
        }
    }

    #[test]
    fn the_schemas_are_structural_and_every_field_is_described() {
        for (name, definition) in all() {
            let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
            check(schema, name);
        }
    }

    #[test]
    fn what_the_types_say_of_a_field_is_in_its_schema() {
        let [(_, access), (_, backend)] = all();
        let of = |definition: &Value, pointer: &str| {
            let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
            schema.pointer(pointer).cloned().unwrap_or_default()
        };
        let failures = of(
            &backend,
            "/properties/spec/properties/circuitBreaking/properties/consecutiveFailures",
        );
        assert_eq!(failures["type"], "integer");
        assert_eq!(
            (&failures["minimum"], &failures["maximum"]),
            (&json!(0), &json!(10000))
        );
        assert!(
            failures["description"]
                .as_str()
                .unwrap()
                .starts_with("So many failures in a row")
        );
        let algorithm = of(
            &backend,
            "/properties/spec/properties/loadBalancing/properties/algorithm",
        );
        assert_eq!(
            algorithm["enum"],
            json!(["PeakEwma", "RoundRobin", "Weighted"])
        );
        let labels = of(
            &access,
            "/properties/spec/properties/selector/properties/matchLabels",
        );
        assert_eq!(labels["additionalProperties"], json!({"type": "string"}));
        assert_eq!(labels["minProperties"], 1);
        let spec = of(&access, "/properties/spec");
        assert_eq!(
            spec["x-kubernetes-validations"].as_array().unwrap().len(),
            2
        );
    }
}

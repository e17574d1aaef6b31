//! Fifty policies, each with one thing wrong: every one is refused, and the
//! answer names the field.

use super::*;

/// Of a BackendPolicy's specification beside its target, and the field named.
const BACKEND: &[(&str, &str)] = &[
    ("targetRefs: []", "spec.targetRefs"),
    (
        "targetRefs: [{kind: Deployment, name: a}]",
        "spec.targetRefs[0].kind",
    ),
    (
        "targetRefs: [{group: apps, kind: Service, name: a}]",
        "spec.targetRefs[0].group",
    ),
    (
        "targetRefs: [{kind: Service, name: A_B}]",
        "spec.targetRefs[0].name",
    ),
    ("targetRefs: [{kind: Service}]", "spec.targetRefs[0]"),
    ("loadbalancing: {algorithm: RoundRobin}", "spec"),
    (
        "loadBalancing: {algorithm: Random}",
        "spec.loadBalancing.algorithm",
    ),
    ("loadBalancing: {}", "spec.loadBalancing"),
    (
        "circuitBreaking: {consecutiveFailures: -1}",
        "spec.circuitBreaking.consecutiveFailures",
    ),
    (
        "circuitBreaking: {consecutiveFailures: 10001}",
        "spec.circuitBreaking.consecutiveFailures",
    ),
    (
        "circuitBreaking: {maxEjectedPercent: 101}",
        "spec.circuitBreaking.maxEjectedPercent",
    ),
    (
        "circuitBreaking: {baseEjection: 5}",
        "spec.circuitBreaking.baseEjection",
    ),
    (
        "circuitBreaking: {baseEjection: 2h}",
        "spec.circuitBreaking.baseEjection",
    ),
    (
        "circuitBreaking: {baseEjection: 10s, maxEjection: 5s}",
        "spec.circuitBreaking.maxEjection",
    ),
    ("limits: {connections: 0}", "spec.limits.connections"),
    ("limits: {requests: 1000001}", "spec.limits.requests"),
    ("limits: {pending: 10}", "spec.limits.pending"),
    ("limits: {pendingTimeout: 1s}", "spec.limits.pendingTimeout"),
    (
        "limits: {requests: 1, pendingTimeout: 0s}",
        "spec.limits.pendingTimeout",
    ),
    ("timeouts: {connect: 0s}", "spec.timeouts.connect"),
    ("timeouts: {request: 25h}", "spec.timeouts.request"),
    ("timeouts: {idle: 1 minute}", "spec.timeouts.idle"),
    (
        "retries: {attempts: 0, retryOn: {statusCodes: [503]}}",
        "spec.retries.attempts",
    ),
    (
        "retries: {attempts: 11, retryOn: {statusCodes: [503]}}",
        "spec.retries.attempts",
    ),
    (
        "retries: {attempts: 1, retryOn: {}}",
        "spec.retries.retryOn",
    ),
    ("retries: {attempts: 1}", "spec.retries"),
    (
        "retries: {attempts: 1, retryOn: {statusCodes: [200]}}",
        "spec.retries.retryOn.statusCodes[0]",
    ),
    (
        "retries: {attempts: 1, retryOn: {grpcStatuses: [OK]}}",
        "spec.retries.retryOn.grpcStatuses[0]",
    ),
    (
        "retries: {attempts: 1, retryOn: {grpcStatuses: [17]}}",
        "spec.retries.retryOn.grpcStatuses[0]",
    ),
    (
        "retries: {attempts: 1, retryOn: {statusCodes: [503]}, budget: {percent: 101}}",
        "spec.retries.budget.percent",
    ),
    (
        "retries: {attempts: 1, retryOn: {statusCodes: [503]}, backoff: {base: 1s, max: 1ms}}",
        "spec.retries.backoff.max",
    ),
    (
        "{timeouts: {request: 1s}, retries: {attempts: 1, retryOn: {statusCodes: [503]}, perTryTimeout: 2s}}",
        "spec.retries.perTryTimeout",
    ),
];

/// Of an AccessPolicy's specification, and the field named.
const ACCESS: &[(&str, &str)] = &[
    ("{mtls: Strict}", "spec"),
    ("{targetRefs: [{kind: Namespace, name: shop}]}", "spec"),
    (
        "{targetRefs: [{kind: Namespace, name: shop}], selector: {matchLabels: {a: b}}, mtls: Strict}",
        "spec.selector",
    ),
    (
        "{targetRefs: [{kind: Namespace, name: other}], mtls: Strict}",
        "spec.targetRefs[0].name",
    ),
    (
        "{targetRefs: [{kind: Service, name: shop}], mtls: Strict}",
        "spec.targetRefs[0].kind",
    ),
    ("{targetRefs: [], mtls: Strict}", "spec.targetRefs"),
    (
        "{selector: {matchLabels: {}}, mtls: Strict}",
        "spec.selector.matchLabels",
    ),
    (
        "{selector: {matchLabels: {a: b}}, mtls: strict}",
        "spec.mtls",
    ),
    (
        "{selector: {matchLabels: {a: b}}, mtls: Strict, ports: [0]}",
        "spec.ports[0]",
    ),
    (
        "{selector: {matchLabels: {a: b}}, mtls: Strict, ports: []}",
        "spec.ports",
    ),
    ("{selector: {matchLabels: {a: b}}, rules: []}", "spec"),
    (
        "{selector: {matchLabels: {a: b}}, rules: [{action: Audit}]}",
        "spec.rules[0].action",
    ),
    (
        "{selector: {matchLabels: {a: b}}, rules: [{action: Allow, from: {}}]}",
        "spec.rules[0].from",
    ),
    (
        "{selector: {matchLabels: {a: b}}, rules: [{action: Allow, from: {identities: [shop/web]}}]}",
        "spec.rules[0].from.identities[0]",
    ),
    (
        "{selector: {matchLabels: {a: b}}, rules: [{action: Allow, from: {namespaces: [A]}}]}",
        "spec.rules[0].from.namespaces[0]",
    ),
    (
        "{selector: {matchLabels: {a: b}}, rules: [{action: Allow, to: {}}]}",
        "spec.rules[0].to",
    ),
    (
        "{selector: {matchLabels: {a: b}}, rules: [{action: Allow, to: {methods: [get]}}]}",
        "spec.rules[0].to.methods[0]",
    ),
    (
        "{selector: {matchLabels: {a: b}}, rules: [{action: Allow, to: {pathPrefixes: [a]}}]}",
        "spec.rules[0].to.pathPrefixes[0]",
    ),
    (
        "{selector: {matchLabels: {a: b}}, rules: [{action: Allow, to: {pathPrefixes: [/a/../b]}}]}",
        "spec.rules[0].to.pathPrefixes[0]",
    ),
    (
        "{selector: {matchLabels: {a: b}}, rules: [{action: Deny, form: {namespaces: [a]}}]}",
        "spec.rules[0]",
    ),
];

fn policy(kind: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "weft.dev/v1alpha1",
        "kind": kind,
        "metadata": {"name": "broken", "namespace": "shop"},
        "spec": spec,
    })
}

/// One target where the case names none.
fn backend(spec: &str) -> Value {
    let mut spec: Value = serde_saphyr::from_str(spec).unwrap();
    if spec.get("targetRefs").is_none() {
        spec["targetRefs"] = json!([{"kind": "Service", "name": "web"}]);
    }
    policy("BackendPolicy", &spec)
}

fn access(spec: &str) -> Value {
    policy("AccessPolicy", &serde_saphyr::from_str(spec).unwrap())
}

#[tokio::test]
async fn fifty_broken_policies_are_refused_by_the_field_that_is_wrong() {
    let backends = BACKEND.iter().map(|(spec, field)| (backend(spec), field));
    let all: Vec<_> = backends
        .chain(ACCESS.iter().map(|(spec, field)| (access(spec), field)))
        .collect();
    assert!(all.len() >= 50);
    for (policy, field) in all {
        let answer = asked(&webhook(true), Path::Validate, &policy).await;
        assert_eq!(answer["allowed"], false, "{policy}");
        let message = answer["status"]["message"].as_str().unwrap();
        assert!(message.starts_with(&format!("weft: {field}")), "{message}");
        // What is wrong, and what to do.
        assert!(message.matches(": ").count() >= 2, "{message}");
    }
}

#[tokio::test]
async fn good_policies_pass() {
    for policy in [
        backend("{loadBalancing: {algorithm: RoundRobin}, timeouts: {request: 1s}}"),
        access("{targetRefs: [{kind: Namespace, name: shop}], mtls: Strict}"),
    ] {
        let answer = asked(&webhook(true), Path::Validate, &policy).await;
        assert_eq!(answer["allowed"], true, "{answer}");
    }
}

//! What is added to a pod: two init containers and three volumes.
//!
//! `weft-redirect` takes the pod's traffic over, then `weft-proxy`, a native
//! sidecar (KEP-753), runs beside whatever comes after it: nothing of the
//! application starts before the proxy is ready, and it ends after all of it.
//!
//! Pure: text of manifests, no decision about whether.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::ResourceRequirements;
use serde_json::{Value, json};

use super::{
    Settings,
    annotations::{
        Annotations, EXCLUDE_INBOUND, EXCLUDE_OUTBOUND_CIDRS, EXCLUDE_OUTBOUND_PORTS, IMAGE,
        PROBES, TRUST_BUNDLE,
    },
    pod::{PROXY, REDIRECT},
    refusals::PROXY_UID,
};

pub(super) const METRICS_PORT: u16 = 15020;
pub(super) const HEALTH_PORT: u16 = 15021;

/// Where the image has it.
const PROGRAM: &str = "/usr/local/bin/weft-proxy";

const RUN: &str = "weft-run";
const TOKEN: &str = "weft-token";
const TRUST: &str = "weft-trust";

/// Both containers, in their order.
pub(super) fn containers(
    annotations: &Annotations,
    settings: &Settings,
    resources: &ResourceRequirements,
    has_probes: bool,
) -> [Value; 2] {
    let image = annotations.get(IMAGE).unwrap_or(&settings.image);
    let mut redirect = redirect(annotations);
    let mut proxy = proxy(annotations, settings, has_probes);
    for container in [&mut redirect, &mut proxy] {
        container["image"] = json!(image);
        container["imagePullPolicy"] = json!(settings.pull_policy);
        container["terminationMessagePolicy"] = json!("FallbackToLogsOnError");
        if resources.requests.is_some() || resources.limits.is_some() {
            container["resources"] = json!(resources);
        }
    }
    [redirect, proxy]
}

/// As uid 0 with one capability: another user's NET_ADMIN would not be
/// effective (no ambient capabilities in Kubernetes).
fn redirect(annotations: &Annotations) -> Value {
    let mut command = vec![PROGRAM.to_owned(), "redirect".to_owned()];
    for (annotation, option) in [
        (EXCLUDE_OUTBOUND_PORTS, "--exclude-outbound-ports"),
        (EXCLUDE_OUTBOUND_CIDRS, "--exclude-outbound-cidrs"),
        (EXCLUDE_INBOUND, "--exclude-inbound-ports"),
    ] {
        if let Some(list) = annotations.get(annotation) {
            let list: BTreeSet<_> = list.split(',').map(str::trim).collect();
            let list: Vec<_> = list.into_iter().collect();
            command.push(format!("{option}={}", list.join(",")));
        }
    }
    json!({
        "name": REDIRECT,
        "command": command,
        "securityContext": {
            "runAsUser": 0,
            "runAsGroup": 0,
            // Stronger than a pod's `runAsNonRoot: true`.
            "runAsNonRoot": false,
            "allowPrivilegeEscalation": false,
            "privileged": false,
            "readOnlyRootFilesystem": true,
            "capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    })
}

fn proxy(annotations: &Annotations, settings: &Settings, has_probes: bool) -> Value {
    let ready = json!({"path": "/ready", "port": HEALTH_PORT});
    json!({
        "name": PROXY,
        "restartPolicy": "Always",
        "command": [PROGRAM, "run"],
        "env": environment(annotations, settings, has_probes),
        "ports": [
            {"name": "weft-metrics", "containerPort": METRICS_PORT, "protocol": "TCP"},
            {"name": "weft-health", "containerPort": HEALTH_PORT, "protocol": "TCP"},
        ],
        // Certificate, first configuration, listeners: then the application may
        // start. It waits for a control plane that is away; a restart of the
        // proxy would not bring that back, so ten minutes pass before one.
        "startupProbe": {
            "httpGet": ready, "periodSeconds": 1, "timeoutSeconds": 2, "failureThreshold": 600,
        },
        "readinessProbe": {
            "httpGet": ready, "periodSeconds": 5, "timeoutSeconds": 2, "failureThreshold": 3,
        },
        // The kubelet runs it as the application gets its SIGTERM, and stops
        // this container only after the application has ended.
        "lifecycle": {"preStop": {"exec": {"command": [PROGRAM, "drain"]}}},
        "securityContext": {
            "runAsUser": PROXY_UID,
            "runAsGroup": PROXY_UID,
            "runAsNonRoot": true,
            "allowPrivilegeEscalation": false,
            "privileged": false,
            "readOnlyRootFilesystem": true,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumeMounts": [
            {"name": RUN, "mountPath": "/var/run/weft"},
            {"name": TRUST, "mountPath": "/var/run/weft/trust-bundle", "readOnly": true},
            {"name": TOKEN, "mountPath": "/var/run/secrets/weft", "readOnly": true},
        ],
    })
}

fn environment(annotations: &Annotations, settings: &Settings, has_probes: bool) -> Vec<Value> {
    let field = |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}});
    // A value's `$(…)` would be expanded.
    let text = |name: &str, value: &str| json!({"name": name, "value": value.replace("$(", "$$(")});
    let mut environment = vec![
        field("WEFT_POD_NAMESPACE", "metadata.namespace"),
        field("WEFT_POD_NAME", "metadata.name"),
        field("WEFT_POD_UID", "metadata.uid"),
        field("WEFT_SERVICE_ACCOUNT", "spec.serviceAccountName"),
        text("WEFT_TRUST_DOMAIN", &settings.trust_domain),
        text("WEFT_CONTROL_ADDRESS", &settings.control_plane),
    ];
    if has_probes {
        let path = format!("metadata.annotations['{PROBES}']");
        environment.push(field("WEFT_PROBES", &path));
    }
    environment.extend(annotations.knobs().map(|(name, value)| text(name, value)));
    environment
}

/// Names of the volumes, for those who look for them in a pod.
pub(super) const VOLUMES: [&str; 3] = [RUN, TRUST, TOKEN];

pub(super) fn volumes() -> [Value; 3] {
    let bundle = format!("metadata.annotations['{TRUST_BUNDLE}']");
    [
        // Key, certificate, last configuration (16 MiB at most, twice while it
        // is replaced) and the admin socket: in memory, gone with the pod.
        json!({"name": RUN, "emptyDir": {"medium": "Memory", "sizeLimit": "48Mi"}}),
        json!({"name": TRUST, "downwardAPI": {
            "items": [{"path": "ca.pem", "fieldRef": {"fieldPath": bundle}}],
        }}),
        json!({"name": TOKEN, "projected": {"sources": [
            {"serviceAccountToken": {"path": "token", "audience": "weft", "expirationSeconds": 3600}},
        ]}}),
    ]
}

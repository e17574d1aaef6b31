//! Pods that can't be made safe, each with what to do instead.
//!
//! Called by `inject` before anything is changed. A pod that has the proxy's
//! user would bypass the mesh, one that listens on its ports would break it.
//!
//! Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Pod, PodSpec};
use serde_json::Value;

use super::{Namespace, Refusal, annotations::TRUST_BUNDLE, inject::INJECTED, pod};

/// Whom redirection leaves alone.
pub(super) const PROXY_UID: i64 = 2102;

/// docs/ports.md.
pub(super) const PROXY_PORTS: [i32; 5] = [15001, 15006, 15020, 15021, 15022];

/// # Errors
/// What stands against a proxy in this pod.
pub(super) fn check(it: &Pod, spec: &PodSpec, namespace: &Namespace) -> Result<(), Refusal> {
    users(spec)?;
    ports(spec)?;
    pod_security(it, namespace)
}

/// Callers believe the label, so nobody but the webhook writes it. A pod that
/// was here has the proxy, or at least what it begins with.
///
/// # Errors
/// When somebody else wrote it.
pub(super) fn label(
    it: &Pod,
    spec: &PodSpec,
    annotations: &BTreeMap<String, String>,
) -> Result<(), Refusal> {
    let labels = it.metadata.labels.as_ref();
    let is_said = labels.is_some_and(|it| it.contains_key(INJECTED));
    let mut containers = spec.init_containers.iter().flatten();
    let was_here =
        annotations.contains_key(TRUST_BUNDLE) || containers.any(|it| it.name == pod::PROXY);
    match is_said && !was_here {
        true => Err(only_the_webhooks(
            "remove it: a pod that gets a proxy gets it too",
        )),
        false => Ok(()),
    }
}

/// # Errors
/// When the label of a pod that is there is not what it was.
pub(super) fn relabelled(pod: &Value, before: &Value) -> Result<(), Refusal> {
    let label = |it: &Value| it.pointer("/metadata/labels")?.get(INJECTED).cloned();
    match label(pod) == label(before) {
        true => Ok(()),
        false => Err(only_the_webhooks(
            "leave it as it is; to keep pods out of the mesh, label their template weft.dev/inject=disabled",
        )),
    }
}

fn only_the_webhooks(remedy: &str) -> Refusal {
    Refusal::new(
        &format!("metadata.labels[{INJECTED:?}]"),
        "says whether the pod was given a proxy, which only the mesh's webhook may say",
        remedy,
    )
}

fn users(spec: &PodSpec) -> Result<(), Refusal> {
    let whole = spec.security_context.as_ref().and_then(|it| it.run_as_user);
    let whole = whole.map(|uid| ("spec.securityContext.runAsUser".to_owned(), uid));
    let single = pod::containers(spec).filter_map(|(field, it)| {
        let uid = it.security_context.as_ref()?.run_as_user?;
        Some((format!("{field}.securityContext.runAsUser"), uid))
    });
    match whole
        .into_iter()
        .chain(single)
        .find(|(_, uid)| *uid == PROXY_UID)
    {
        Some((field, _)) => Err(Refusal::new(
            &field,
            "is 2102, the proxy's own user: the container's traffic would bypass the mesh",
            "run it as another user",
        )),
        None => Ok(()),
    }
}

fn ports(spec: &PodSpec) -> Result<(), Refusal> {
    for (field, container) in pod::containers(spec) {
        for (index, port) in container.ports.iter().flatten().enumerate() {
            let is_tcp = port.protocol.as_deref().unwrap_or("TCP") == "TCP";
            if is_tcp && PROXY_PORTS.contains(&port.container_port) {
                return Err(Refusal::new(
                    &format!("{field}.ports[{index}].containerPort"),
                    format!("is {}, a port of the mesh", port.container_port),
                    "listen on another one: 15001, 15006 and 15020 to 15022 are taken",
                ));
            }
        }
    }
    Ok(())
}

/// Redirection needs NET_ADMIN for a moment, which only `privileged` allows.
fn pod_security(it: &Pod, namespace: &Namespace) -> Result<(), Refusal> {
    const ENFORCE: &str = "pod-security.kubernetes.io/enforce";
    let Some(level @ ("baseline" | "restricted")) =
        namespace.labels.get(ENFORCE).map(String::as_str)
    else {
        return Ok(());
    };
    let name = it.metadata.namespace.as_deref().unwrap_or("NAMESPACE");
    Err(Refusal::new(
        "spec.initContainers",
        format!(
            "would get {} with the capability NET_ADMIN, and the namespace enforces the Pod Security Standard {level}",
            pod::REDIRECT
        ),
        format!(
            "label the namespace {ENFORCE}=privileged (kubectl label --overwrite namespace {name} {ENFORCE}=privileged), \
             or keep the pod out of the mesh by its label {}=disabled",
            crate::model::INJECT
        ),
    ))
}

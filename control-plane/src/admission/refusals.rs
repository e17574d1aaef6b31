//! Pods that can't be made safe, each with what to do instead.
//!
//! Called by `inject` before anything is changed. A pod that has the proxy's
//! user would bypass the mesh, one that listens on its ports would break it.
//!
//! Pure.

use k8s_openapi::api::core::v1::{Pod, PodSpec};

use super::{Namespace, Refusal, pod};

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
            crate::sources::manifest::pod::INJECT
        ),
    ))
}

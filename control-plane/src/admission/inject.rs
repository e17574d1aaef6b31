//! Gives a pod its proxy: one pure function from a pod to a pod.
//!
//! Called by the webhook (`review`) and by `weft inject`. A pod that was here
//! before comes out the same, and one that others have changed since is brought
//! in order again: our containers first, new probes rewritten.
//!
//! Works on the object as it came, so that fields of a newer Kubernetes survive.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Pod, PodSpec};
use serde_json::{Map, Value, json};

use super::{
    Namespace, Refusal, Settings,
    annotations::{Annotations, PROBES, PULL_SECRETS, TRUST_BUNDLE},
    pod, probes, refusals, resources, scrape, sidecar,
};

pub(crate) use crate::sources::manifest::pod::INJECTED;

/// What became of a pod.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Verdict {
    Injected {
        pod: Box<Value>,
        /// For the person who made it.
        warnings: Vec<String>,
    },
    /// It is as good as it is.
    Left(Why),
}

/// Why a pod gets no proxy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Why {
    Disabled,
    HostNetwork,
    Windows,
    /// Of a static pod: the kubelet runs what its file says.
    Mirror,
}

impl Why {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Disabled => "its label says so",
            Self::HostNetwork => "it uses the node's network",
            Self::Windows => "it runs on Windows",
            Self::Mirror => "it is a static pod",
        }
    }
}

/// `token` is the secret between kubelet and proxy, used if the pod has none.
///
/// # Errors
/// What stands against it, with the remedy.
pub(crate) fn inject(
    object: &Value,
    namespace: &Namespace,
    settings: &Settings,
    token: &str,
) -> Result<Verdict, Refusal> {
    let read: Pod = read(object)?;
    let mut spec = read.spec.clone().unwrap_or_default();
    let said = read.metadata.annotations.clone().unwrap_or_default();
    refusals::label(&read, &spec, &said)?;
    if let Some(why) = left(&read, &spec, &said)? {
        return Ok(Verdict::Left(why));
    }
    spec.init_containers = spec.init_containers.map(|all| {
        let others = all.into_iter().filter(|it| !pod::is_ours(&it.name));
        others.collect()
    });
    let mut wanted = said.clone();
    scrape::rewrite(&mut wanted, settings.application_metrics);
    let annotations = Annotations::read(&wanted)?;
    refusals::check(&read, &spec, namespace)?;
    let resources = resources::requirements(&spec, &annotations, namespace, settings)?;

    let mut object = object.clone();
    let body = part(&mut object, "spec");
    let probes = probes::rewrite(body, probes::kept(&said)?, token)?;
    let has_probes = !probes.probes.is_empty();
    let ours = sidecar::containers(&annotations, settings, &resources, has_probes);
    put_first(body, "initContainers", ours, pod::is_ours);
    let volumes = sidecar::volumes();
    put_last(body, "volumes", volumes, |it| {
        sidecar::VOLUMES.contains(&it)
    });

    add_pull_secrets(body, &annotations, settings);

    let metadata = part(&mut object, "metadata");
    part(metadata, "labels")[INJECTED] = json!("true");
    let annotations = part(metadata, "annotations");
    for (name, value) in wanted
        .iter()
        .filter(|(name, value)| said.get(*name) != Some(*value))
    {
        annotations[name.as_str()] = json!(value);
    }
    annotations[TRUST_BUNDLE] = json!(settings.trust_bundle);
    match has_probes {
        true => annotations[PROBES] = json!(serde_json::to_string(&probes).unwrap_or_default()),
        false => {
            annotations.as_object_mut().map(|it| it.remove(PROBES));
        }
    }
    Ok(Verdict::Injected {
        pod: Box::new(object),
        warnings: warnings(&spec),
    })
}

/// Beside the pod's own, which an API server has taken from its service account
/// by now.
fn add_pull_secrets(spec: &mut Value, annotations: &Annotations, settings: &Settings) {
    let asked = annotations.get(PULL_SECRETS);
    let asked = asked.map(|it| it.split(',').map(|it| it.trim().to_owned()).collect());
    let wanted: Vec<String> = asked.unwrap_or_else(|| settings.pull_secrets.clone());
    if wanted.is_empty() {
        return;
    }
    let list = &mut spec["imagePullSecrets"];
    if !list.is_array() {
        *list = json!([]);
    }
    for name in wanted {
        let secret = json!({"name": name});
        if let Some(all) = list.as_array_mut()
            && !all.contains(&secret)
        {
            all.push(secret);
        }
    }
}

fn read(object: &Value) -> Result<Pod, Refusal> {
    serde_path_to_error::deserialize(object).map_err(|error| {
        let field = error.path().to_string();
        let message = format!("can't be read: {}", error.into_inner());
        Refusal::new(&field, message, "correct the field")
    })
}

/// Whether the webhook leaves this pod without a proxy, for whatever reason of
/// the pod's own.
pub(crate) fn is_left(it: &Pod) -> bool {
    let spec = it.spec.clone().unwrap_or_default();
    let annotations = it.metadata.annotations.clone().unwrap_or_default();
    matches!(left(it, &spec, &annotations), Ok(Some(_)))
}

fn left(
    it: &Pod,
    spec: &PodSpec,
    annotations: &BTreeMap<String, String>,
) -> Result<Option<Why>, Refusal> {
    let labels = it.metadata.labels.clone().unwrap_or_default();
    let on = |all: Option<&BTreeMap<String, String>>| {
        all.and_then(|it| it.get("kubernetes.io/os"))
            .map(String::as_str)
            == Some("windows")
    };
    let is_windows =
        spec.os.as_ref().is_some_and(|it| it.name == "windows") || on(spec.node_selector.as_ref());
    Ok(
        if crate::sources::manifest::pod::inject(&labels)? == Some(false) {
            Some(Why::Disabled)
        } else if spec.host_network == Some(true) {
            Some(Why::HostNetwork)
        } else if is_windows {
            Some(Why::Windows)
        } else if annotations.contains_key("kubernetes.io/config.mirror") {
            Some(Why::Mirror)
        } else {
            None
        },
    )
}

/// Not wrong, but perhaps not what was meant.
fn warnings(spec: &PodSpec) -> Vec<String> {
    match spec.dns_policy.as_deref() {
        Some(policy @ ("None" | "Default")) => vec![format!(
            "spec.dnsPolicy is {policy}: the proxy resolves the control plane's name by the pod's DNS; make sure that it can"
        )],
        _ => Vec::new(),
    }
}

/// The mapping `name` of `object`, made where it is missing.
fn part<'a>(object: &'a mut Value, name: &str) -> &'a mut Value {
    let part = &mut object[name];
    if !part.is_object() {
        *part = Value::Object(Map::new());
    }
    part
}

fn others(object: &mut Value, list: &str, is_ours: impl Fn(&str) -> bool) -> Vec<Value> {
    let all = match object.get_mut(list).map(Value::take) {
        Some(Value::Array(all)) => all,
        _ => Vec::new(),
    };
    let name = |it: &Value| it.get("name").and_then(Value::as_str).map(str::to_owned);
    let others = all
        .into_iter()
        .filter(|it| !name(it).is_some_and(|it| is_ours(&it)));
    others.collect()
}

fn put_first(
    object: &mut Value,
    list: &str,
    ours: impl IntoIterator<Item = Value>,
    is_ours: impl Fn(&str) -> bool,
) {
    let others = others(object, list, is_ours);
    object[list] = ours.into_iter().chain(others).collect();
}

fn put_last(
    object: &mut Value,
    list: &str,
    ours: impl IntoIterator<Item = Value>,
    is_ours: impl Fn(&str) -> bool,
) {
    let others = others(object, list, is_ours);
    object[list] = others.into_iter().chain(ours).collect();
}

#[cfg(test)]
mod tests;

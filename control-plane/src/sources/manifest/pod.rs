//! Pod (v1): a workload, its identity, its addresses, whether it has a proxy.
//!
//! Labels and annotations `weft.dev/…` are read here and nowhere else.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::{
    api::core::v1::{Container, Pod, PodSpec, PodStatus},
    apimachinery::pkg::util::intstr::IntOrString,
};

use super::{Refusal, check};
use crate::model::{self, INJECT, Labels, Probe, ProbeKind};

/// Written by the webhook alone, on pods that it has given a proxy; in a directory
/// by who runs them.
pub(crate) const INJECTED: &str = "weft.dev/injected";
/// The init container that is the proxy.
pub(crate) const PROXY: &str = "weft-proxy";
pub(crate) const EXCLUDE_INBOUND_PORTS: &str = "weft.dev/exclude-inbound-ports";
pub(crate) const WEIGHT: &str = "weft.dev/weight";
pub(super) const ZONE: &str = "topology.kubernetes.io/zone";

/// # Errors
/// What the pod says that can't be.
pub(crate) fn convert(it: &Pod) -> Result<model::Pod, Refusal> {
    let name = check::name(&it.metadata)?;
    let labels = check::labels(&it.metadata);
    // Borrowed: a pod is large, and there may be a hundred thousand.
    let (no_annotations, no_spec, no_status) = <(Labels, PodSpec, PodStatus)>::default();
    let annotations = it.metadata.annotations.as_ref().unwrap_or(&no_annotations);
    let spec = it.spec.as_ref().unwrap_or(&no_spec);
    let status = it.status.as_ref().unwrap_or(&no_status);
    let service_account = spec
        .service_account_name
        .clone()
        .unwrap_or_else(|| "default".to_owned());
    check::subdomain("spec.serviceAccountName", &service_account)?;
    let addresses = addresses(status)?;
    let ports = ports(spec)?;
    Ok(model::Pod {
        uid: uid(it, &service_account, &addresses),
        injected: labels
            .get(INJECTED)
            .is_some_and(|it| it == "true")
            .then_some(true),
        asked: inject(&labels)?,
        host_network: spec.host_network.unwrap_or(false),
        ready: is_ready(status),
        terminating: it.metadata.deletion_timestamp.is_some(),
        finished: is_finished(status),
        node: spec.node_name.clone().unwrap_or_default(),
        zone: labels.get(ZONE).cloned().unwrap_or_default(),
        weight: weight(annotations)?,
        excluded_ports: excluded_ports(annotations)?,
        probes: probes(spec, &ports)?.into(),
        name,
        labels: labels.into(),
        service_account,
        addresses,
        ports: ports.into(),
    })
}

/// What the label says, of a pod or of its namespace.
pub(crate) fn inject(labels: &Labels) -> Result<Option<bool>, Refusal> {
    match labels.get(INJECT).map(String::as_str) {
        None => Ok(None),
        Some("enabled") => Ok(Some(true)),
        Some("disabled") => Ok(Some(false)),
        Some(other) => {
            let field = format!("metadata.labels[{INJECT:?}]");
            Err(Refusal::value(
                &field,
                check::quoted(other),
                "enabled or disabled",
            ))
        }
    }
}

/// An API server gives every pod a UID. A manifest without one names another
/// pod as soon as the account or an address is another: the identity to expect
/// and the place to dial are what an endpoint must not outlive.
fn uid(it: &Pod, service_account: &str, addresses: &[std::net::IpAddr]) -> String {
    match &it.metadata.uid {
        Some(uid) if !uid.is_empty() => uid.clone(),
        _ => {
            let addresses: Vec<_> = addresses.iter().map(ToString::to_string).collect();
            format!("{service_account}@{}", addresses.join(","))
        }
    }
}

fn is_finished(status: &PodStatus) -> bool {
    matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"))
}

fn addresses(status: &PodStatus) -> Result<Vec<std::net::IpAddr>, Refusal> {
    // A finished pod's addresses are somebody else's by now.
    if is_finished(status) {
        return Ok(Vec::new());
    }
    let mut addresses = Vec::with_capacity(1);
    let listed = status.pod_ips.iter().flatten().enumerate();
    let listed = listed.map(|(index, it)| (format!("status.podIPs[{index}].ip"), &it.ip));
    let first = status
        .pod_ip
        .iter()
        .map(|ip| ("status.podIP".to_owned(), ip));
    for (field, text) in first.chain(listed) {
        let address = check::address(&field, text)?;
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    Ok(addresses)
}

/// As the condition says. Without a condition it is what the phase says, and
/// without a phase nobody watches the pod: it counts as ready.
fn is_ready(status: &PodStatus) -> bool {
    let mut conditions = status.conditions.iter().flatten();
    match (
        conditions.find(|it| it.type_ == "Ready"),
        status.phase.as_deref(),
    ) {
        (Some(condition), _) => condition.status == "True",
        (None, phase) => matches!(phase, None | Some("Running")),
    }
}

fn weight(annotations: &Labels) -> Result<u32, Refusal> {
    let Some(text) = annotations.get(WEIGHT) else {
        return Ok(1);
    };
    let weight = text.parse::<u16>().ok().filter(|it| *it > 0).map(u32::from);
    let field = format!("metadata.annotations[{WEIGHT:?}]");
    weight.ok_or_else(|| Refusal::value(&field, check::quoted(text), "1 to 65535"))
}

fn excluded_ports(annotations: &Labels) -> Result<BTreeSet<u16>, Refusal> {
    let text = annotations
        .get(EXCLUDE_INBOUND_PORTS)
        .map_or("", String::as_str);
    let parts = text.split(',').map(str::trim).filter(|it| !it.is_empty());
    let field = format!("metadata.annotations[{EXCLUDE_INBOUND_PORTS:?}]");
    let expected = r#"ports with commas between them, like "9000,9001""#;
    parts
        .map(|it| match it.parse::<u16>() {
            Ok(port) if port > 0 => Ok(port),
            _ => Err(Refusal::value(&field, check::quoted(text), expected)),
        })
        .collect()
}

/// Containers that run beside each other, with where they stand.
fn containers(spec: &PodSpec) -> impl Iterator<Item = (String, &Container)> {
    let sidecars = spec.init_containers.iter().flatten().enumerate();
    let sidecars = sidecars.filter(|(_, it)| it.restart_policy.as_deref() == Some("Always"));
    let sidecars = sidecars.map(|(index, it)| (format!("spec.initContainers[{index}]"), it));
    let containers = spec.containers.iter().enumerate();
    let containers = containers.map(|(index, it)| (format!("spec.containers[{index}]"), it));
    containers.chain(sidecars)
}

/// By name, those without one by their number; the first of a name holds.
fn ports(spec: &PodSpec) -> Result<BTreeMap<String, u16>, Refusal> {
    let mut ports = BTreeMap::new();
    for (field, container) in containers(spec) {
        for (index, port) in container.ports.iter().flatten().enumerate() {
            if port.protocol.as_deref().unwrap_or("TCP") != "TCP" {
                continue;
            }
            let field = format!("{field}.ports[{index}].containerPort");
            let number = check::port(&field, port.container_port.into())?;
            let name = port.name.clone().unwrap_or_else(|| number.to_string());
            ports.entry(name).or_insert(number);
        }
    }
    Ok(ports)
}

fn probes(spec: &PodSpec, ports: &BTreeMap<String, u16>) -> Result<Vec<Probe>, Refusal> {
    let number = |field: String, port: &IntOrString| match port {
        IntOrString::Int(number) => check::port(&field, (*number).into()),
        IntOrString::String(name) => ports.get(name).copied().ok_or_else(|| {
            Refusal::new(
                &field,
                format!("names port {name:?}, which no container has"),
                "name one that is there",
            )
        }),
    };
    let mut found = Vec::new();
    for (field, container) in containers(spec) {
        let probes = [
            ("livenessProbe", &container.liveness_probe),
            ("readinessProbe", &container.readiness_probe),
            ("startupProbe", &container.startup_probe),
        ];
        for (which, probe) in probes {
            let Some(probe) = probe else { continue };
            if let Some(http) = &probe.http_get {
                let port = number(format!("{field}.{which}.httpGet.port"), &http.port)?;
                let path = http.path.clone().unwrap_or_else(|| "/".to_owned());
                let kind = ProbeKind::Http(path);
                found.push(Probe { port, kind });
            } else if let Some(tcp) = &probe.tcp_socket {
                let port = number(format!("{field}.{which}.tcpSocket.port"), &tcp.port)?;
                let kind = ProbeKind::Tcp;
                found.push(Probe { port, kind });
            } else if let Some(grpc) = &probe.grpc {
                let port = check::port(&format!("{field}.{which}.grpc.port"), grpc.port.into())?;
                let kind = ProbeKind::Grpc;
                found.push(Probe { port, kind });
            }
        }
    }
    Ok(found)
}

//! EndpointSlice (discovery.k8s.io/v1): who is behind a Service, as something
//! else decided.

use std::collections::BTreeMap;

use k8s_openapi::api::discovery::v1::{Endpoint, EndpointHints, EndpointSlice};

use super::{Refusal, check};
use crate::model::{self, Hints, SliceEndpoint};

/// # Errors
/// What the slice says that can't be.
pub(crate) fn convert(it: &EndpointSlice) -> Result<model::EndpointSlice, Refusal> {
    let name = check::name(&it.metadata)?;
    let field = r#"metadata.labels["kubernetes.io/service-name"]"#;
    let service = check::labels(&it.metadata)
        .remove("kubernetes.io/service-name")
        .unwrap_or_default();
    check::label(field, &service)?;
    if !matches!(it.address_type.as_str(), "IPv4" | "IPv6") {
        let is = check::quoted(&it.address_type);
        return Err(Refusal::value("addressType", is, "IPv4 or IPv6"));
    }
    let mut ports = BTreeMap::new();
    for (index, port) in it.ports.iter().flatten().enumerate() {
        if port.protocol.as_deref().unwrap_or("TCP") != "TCP" {
            continue;
        }
        let field = format!("ports[{index}].port");
        let Some(number) = port.port else {
            return Err(Refusal::new(
                &field,
                "is missing",
                "write the number: 1 to 65535",
            ));
        };
        ports.insert(
            port.name.clone().unwrap_or_default(),
            check::port(&field, number.into())?,
        );
    }
    let mut endpoints = Vec::new();
    for (index, endpoint) in it.endpoints.iter().flatten().enumerate() {
        let field = format!("endpoints[{index}]");
        endpoints.push(convert_endpoint(endpoint).map_err(|refusal| refusal.below(&field))?);
    }
    Ok(model::EndpointSlice {
        name,
        service,
        ports,
        endpoints,
    })
}

fn convert_endpoint(it: &Endpoint) -> Result<SliceEndpoint, Refusal> {
    if it.addresses.is_empty() {
        return Err(Refusal::new(
            "addresses",
            "is empty",
            "write at least one address",
        ));
    }
    let addresses = it.addresses.iter().enumerate();
    let addresses =
        addresses.map(|(index, text)| check::address(&format!("addresses[{index}]"), text));
    let target = it.target_ref.as_ref();
    let target = target.filter(|target| target.kind.as_deref() == Some("Pod"));
    let pod = target.map(|target| target.name.clone().unwrap_or_default());
    if let Some(pod) = &pod {
        check::subdomain("targetRef.name", pod)?;
    }
    let pod_uid = target.and_then(|target| target.uid.clone());
    let hints = it.hints.as_ref().map(hints);
    let conditions = it.conditions.clone().unwrap_or_default();
    // "nil should be interpreted as true" (discovery/v1, EndpointConditions).
    let ready = conditions.ready.unwrap_or(true);
    Ok(SliceEndpoint {
        addresses: addresses.collect::<Result<_, _>>()?,
        pod,
        pod_uid: pod_uid.unwrap_or_default(),
        ready,
        serving: conditions.serving.unwrap_or(ready),
        terminating: conditions.terminating.unwrap_or(false),
        node: it.node_name.clone().unwrap_or_default(),
        zone: it.zone.clone().unwrap_or_default(),
        hints: hints
            .filter(|hints| *hints != Hints::default())
            .map(Box::new),
    })
}

fn hints(it: &EndpointHints) -> Hints {
    let nodes = it.for_nodes.iter().flatten();
    let zones = it.for_zones.iter().flatten();
    Hints {
        nodes: nodes.map(|it| it.name.clone()).collect(),
        zones: zones.map(|it| it.name.clone()).collect(),
    }
}

//! Service (v1): addresses, ports, whom it selects.
//!
//! `appProtocol` decides how a port's bytes are read; an unknown one decides
//! nothing (KEP-3726), so that a protocol's name never breaks it.

use std::collections::BTreeSet;

use k8s_openapi::{
    api::core::v1::{Service, ServicePort, ServiceSpec},
    apimachinery::pkg::util::intstr::IntOrString,
};

use super::{Refusal, check};
use crate::model::{self, Distribution, Protocol, TargetPort};

/// # Errors
/// What the Service says that can't be, or that isn't carried.
pub(crate) fn convert(it: &Service) -> Result<model::Service, Refusal> {
    let name = check::name(&it.metadata)?;
    check::label("metadata.name", &name.name)?;
    let created_milliseconds = check::created(&it.metadata);
    let Some(spec) = &it.spec else {
        return Err(Refusal::new(
            "spec",
            "is missing",
            "write ports and a selector",
        ));
    };
    if spec.type_.as_deref() == Some("ExternalName") {
        // A name in DNS: nothing of it is the mesh's.
        return Ok(model::Service {
            name,
            created_milliseconds,
            ..model::Service::default()
        });
    }
    let mut ports: Vec<model::ServicePort> = Vec::new();
    for (index, port) in spec.ports.iter().flatten().enumerate() {
        let field = format!("spec.ports[{index}]");
        // Only TCP is the mesh's; others of the Service go their way.
        if port.protocol.as_deref().unwrap_or("TCP") != "TCP" {
            continue;
        }
        let port = convert_port(port).map_err(|refusal| refusal.below(&field))?;
        if ports.iter().any(|it| it.port == port.port) {
            let message = format!("is {} a second time", port.port);
            return Err(Refusal::new(
                &format!("{field}.port"),
                message,
                "name each port once",
            ));
        }
        if ports.iter().any(|it| it.name == port.name) {
            let message = format!("is {:?} a second time", port.name);
            let remedy = "give each port a name of its own";
            return Err(Refusal::new(&format!("{field}.name"), message, remedy));
        }
        ports.push(port);
    }
    Ok(model::Service {
        name,
        created_milliseconds,
        addresses: addresses(spec.cluster_ip.as_deref(), spec.cluster_ips.as_deref())?,
        selector: spec.selector.clone().unwrap_or_default(),
        ports,
        publish_not_ready: spec.publish_not_ready_addresses.unwrap_or_default(),
        own_node_only: own_node_only(spec)?,
        affinity_seconds: affinity_seconds(spec)?,
        distribution: match spec.traffic_distribution.as_deref() {
            Some("PreferClose" | "PreferSameZone") => Distribution::SameZone,
            Some("PreferSameNode") => Distribution::SameNode,
            // A preference: one that isn't known is none (core/v1, ServiceSpec).
            Some(_) | None => Distribution::Anywhere,
        },
    })
}

fn own_node_only(spec: &ServiceSpec) -> Result<bool, Refusal> {
    match spec.internal_traffic_policy.as_deref() {
        None | Some("Cluster") => Ok(false),
        Some("Local") => Ok(true),
        Some(other) => Err(Refusal::value(
            "spec.internalTrafficPolicy",
            check::quoted(other),
            "Cluster or Local",
        )),
    }
}

fn affinity_seconds(spec: &ServiceSpec) -> Result<u32, Refusal> {
    match spec.session_affinity.as_deref() {
        None | Some("None") => return Ok(0),
        Some("ClientIP") => {}
        Some(other) => {
            let is = check::quoted(other);
            return Err(Refusal::value(
                "spec.sessionAffinity",
                is,
                "None or ClientIP",
            ));
        }
    }
    let config = spec.session_affinity_config.as_ref();
    let config = config.and_then(|it| it.client_ip.as_ref());
    let Some(seconds) = config.and_then(|it| it.timeout_seconds) else {
        return Ok(AFFINITY_SECONDS);
    };
    let fits = u32::try_from(seconds).ok();
    let fits = fits.filter(|it| (1..=MOST_AFFINITY_SECONDS).contains(it));
    let field = "spec.sessionAffinityConfig.clientIP.timeoutSeconds";
    fits.ok_or_else(|| Refusal::value(field, seconds, "1 to 86400"))
}

/// core/v1, ClientIPConfig: three hours where nothing is said, a day at most.
const AFFINITY_SECONDS: u32 = 10_800;
const MOST_AFFINITY_SECONDS: u32 = 86_400;

fn addresses(
    one: Option<&str>,
    all: Option<&[String]>,
) -> Result<BTreeSet<std::net::IpAddr>, Refusal> {
    let mut addresses = BTreeSet::new();
    let listed = all
        .unwrap_or_default()
        .iter()
        .map(String::as_str)
        .enumerate();
    let listed = listed.map(|(index, text)| (format!("spec.clusterIPs[{index}]"), text));
    let first = one.map(|text| ("spec.clusterIP".to_owned(), text));
    for (field, text) in first.into_iter().chain(listed) {
        // "None" is headless, "" not allocated yet.
        if !(text.is_empty() || text == "None") {
            addresses.insert(check::address(&field, text)?);
        }
    }
    Ok(addresses)
}

fn convert_port(it: &ServicePort) -> Result<model::ServicePort, Refusal> {
    let port = check::port("port", it.port.into())?;
    let target = match &it.target_port {
        None => TargetPort::Number(port),
        Some(IntOrString::Int(number)) => {
            TargetPort::Number(check::port("targetPort", (*number).into())?)
        }
        Some(IntOrString::String(name)) => {
            check::label("targetPort", name)?;
            TargetPort::Named(name.clone())
        }
    };
    Ok(model::ServicePort {
        name: it.name.clone().unwrap_or_default(),
        port,
        target,
        protocol: it.app_protocol.as_deref().map(protocol).unwrap_or_default(),
    })
}

fn protocol(app_protocol: &str) -> Protocol {
    match app_protocol {
        "http" | "kubernetes.io/ws" => Protocol::Http1,
        "http2" | "grpc" | "kubernetes.io/h2c" => Protocol::Http2,
        "https" | "tls" | "kubernetes.io/wss" => Protocol::Tls,
        "tcp" => Protocol::Opaque,
        _ => Protocol::Detect,
    }
}

//! What the index joined, in the words of the wire protocol.
//!
//! Called by `shelf` alone. Pure. Policy is rendered in the features that a
//! proxy named: a rule that it can't express becomes deny, and is told to the
//! caller, who reports it. Nothing here ever opens what a rule closed.

mod route;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use weft_proto::v1;

use crate::{
    identity::spiffe,
    model::{
        AccessRule, Endpoint, LoadBalancing, Meaning, Protocol, ResolvedAccess, ResolvedPort,
        ResolvedService, ResolvedWorkload,
    },
};

/// The policy features that this control plane speaks, as bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) struct Features(u8);

impl Features {
    pub(crate) const HTTP_ROUTE: Self = Self(1);
    pub(crate) const ACCESS_POLICY: Self = Self(2);
    pub(crate) const WHOLE_ROUTE: Self = Self(4);
    /// A proxy as new as we are.
    pub(crate) const ALL: Self = Self(u8::MAX);

    /// What a proxy names and we don't know is of no use to us.
    pub(crate) fn parse(names: &[String]) -> Self {
        Self(names.iter().fold(0, |all, name| {
            all | match name.as_str() {
                "http-route/v1" => Self::HTTP_ROUTE.0,
                "http-route/v2" => Self::HTTP_ROUTE.0 | Self::WHOLE_ROUTE.0,
                "access-policy/v1" => Self::ACCESS_POLICY.0,
                _ => 0,
            }
        }))
    }

    const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// Whose eyes a resource is rendered for.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct View {
    pub(crate) features: Features,
    /// Of the calling pod: routes hold by it (GEP-1294).
    pub(crate) namespace: Arc<str>,
}

pub(crate) fn service(
    from: &ResolvedService,
    view: &View,
    denied: &mut Vec<String>,
) -> v1::Service {
    let ports = from
        .ports
        .iter()
        .map(|port| service_port(from, port, view, denied))
        .collect();
    v1::Service {
        namespace: from.name.namespace.clone(),
        name: from.name.name.clone(),
        ports,
        policy: Some(backend_policy(from)),
        own_node_only: from.own_node_only,
        affinity_seconds: from.affinity_seconds,
    }
}

fn service_port(
    service: &ResolvedService,
    port: &ResolvedPort,
    view: &View,
    denied: &mut Vec<String>,
) -> v1::ServicePort {
    let routes = port.routes_for(&service.name, &view.namespace);
    v1::ServicePort {
        port: port.port.into(),
        name: port.name.clone(),
        protocol: protocol(port.protocol).into(),
        routes: route::all(&routes, view.features, denied),
    }
}

fn backend_policy(service: &ResolvedService) -> v1::BackendPolicy {
    let from = &service.policy;
    let load_balancing = match from.load_balancing {
        LoadBalancing::PeakEwma => v1::LoadBalancing::PeakEwma,
        LoadBalancing::RoundRobin => v1::LoadBalancing::RoundRobin,
        LoadBalancing::Weighted => v1::LoadBalancing::Weighted,
    };
    v1::BackendPolicy {
        load_balancing: load_balancing.into(),
        circuit_breaking: Some(v1::CircuitBreaking {
            consecutive_failures: from.consecutive_failures,
            base_ejection_milliseconds: from.base_ejection,
            max_ejection_milliseconds: from.max_ejection,
            max_ejected_percent: from.max_ejected_percent,
        }),
        limits: Some(v1::Limits {
            connections: from.connections,
            requests: from.requests,
            pending: from.pending,
            pending_timeout_milliseconds: from.pending_timeout,
        }),
        retries: Some(v1::Retries {
            attempts: from.attempts,
            status_codes: from
                .retry_status_codes
                .iter()
                .copied()
                .map(u32::from)
                .collect(),
            grpc_statuses: from
                .retry_grpc_statuses
                .iter()
                .copied()
                .map(u32::from)
                .collect(),
            non_idempotent: from.retry_non_idempotent,
            per_try_timeout_milliseconds: from.per_try_timeout,
            base_backoff_milliseconds: from.base_backoff,
            max_backoff_milliseconds: from.max_backoff,
            budget_percent: from.budget_percent,
            budget_minimum_per_second: from.budget_minimum_per_second,
        }),
        timeouts: Some(v1::Timeouts {
            connect_milliseconds: from.connect_timeout,
            first_byte_milliseconds: from.first_byte_timeout,
            idle_milliseconds: from.idle_timeout,
            request_milliseconds: from.request_timeout,
        }),
    }
}

pub(crate) fn endpoint(from: &Endpoint, trust_domain: &str) -> v1::Endpoint {
    let mesh = from.mesh && from.identity.is_some();
    let (hint_nodes, hint_zones) = match &from.hints {
        Some(hints) => (hints.nodes.clone(), hints.zones.clone()),
        None => (Vec::new(), Vec::new()),
    };
    v1::Endpoint {
        uid: from.uid.to_string(),
        address: from.address.ip().to_string(),
        port: from.address.port().into(),
        namespace: from.pod.namespace.clone(),
        pod: from.pod.name.clone(),
        identity: from
            .identity
            .as_ref()
            .map(|account| spiffe(trust_domain, account))
            .unwrap_or_default(),
        mesh_protocols: if mesh {
            vec!["weft1-h2".to_owned(), "weft1-tcp".to_owned()]
        } else {
            Vec::new()
        },
        protocol: protocol(from.protocol).into(),
        zone: from.zone.clone(),
        weight: from.weight.clamp(1, 65_535),
        state: if from.draining {
            v1::EndpointState::Draining
        } else {
            v1::EndpointState::Ready
        }
        .into(),
        node: from.node.clone(),
        hint_nodes,
        hint_zones,
    }
}

pub(crate) fn meaning(from: &Meaning, trust_domain: &str) -> v1::Address {
    use v1::address::Meaning as To;
    let meaning = match from {
        Meaning::Service(backend) => To::Service(v1::ServiceRef {
            namespace: backend.service.namespace.clone(),
            name: backend.service.name.clone(),
            port: backend.port.into(),
        }),
        Meaning::Workload(it) => To::Workload(endpoint(it, trust_domain)),
        Meaning::Unmeshed => To::Unmeshed(v1::Unmeshed {}),
        Meaning::Unknown => To::Unknown(v1::Unknown {}),
    };
    v1::Address {
        meaning: Some(meaning),
    }
}

pub(crate) fn workload(
    from: &ResolvedWorkload,
    features: Features,
    denied: &mut Vec<String>,
) -> v1::Workload {
    let ports = from
        .ports
        .iter()
        .map(|(port, (of, rules))| v1::WorkloadPort {
            port: (*port).into(),
            protocol: protocol(*of).into(),
            access: Some(access(rules, features, denied)),
        });
    v1::Workload {
        namespace: from.pod.name.namespace.clone(),
        pod: from.pod.name.name.clone(),
        uid: from.pod.uid.clone(),
        service_account: from.pod.service_account.clone(),
        addresses: from.pod.addresses.iter().map(ToString::to_string).collect(),
        ports: ports.collect(),
        default_access: Some(access(&from.default_access, features, denied)),
        zone: from.pod.zone.clone(),
        node: from.pod.node.clone(),
    }
}

fn access(from: &ResolvedAccess, features: Features, denied: &mut Vec<String>) -> v1::Access {
    let mtls = if from.strict {
        v1::Mtls::Strict
    } else {
        v1::Mtls::Permissive
    };
    let rules = from.deny.iter().chain(&from.allow);
    if !features.has(Features::ACCESS_POLICY)
        && (from.default_deny || rules.clone().next().is_some())
    {
        denied.extend(
            rules.map(|(policy, _)| format!("AccessPolicy {policy}: needs access-policy/v1")),
        );
        return v1::Access {
            mtls: v1::Mtls::Strict.into(),
            default_deny: true,
            ..v1::Access::default()
        };
    }
    v1::Access {
        mtls: mtls.into(),
        deny: from.deny.iter().map(access_rule).collect(),
        allow: from.allow.iter().map(access_rule).collect(),
        default_deny: from.default_deny,
    }
}

fn access_rule((policy, from): &(String, AccessRule)) -> v1::AccessRule {
    v1::AccessRule {
        policy: policy.clone(),
        identities: from.identities.clone(),
        namespaces: from.namespaces.clone(),
        methods: from.methods.clone(),
        path_prefixes: from.path_prefixes.clone(),
    }
}

const fn protocol(from: Protocol) -> v1::Protocol {
    match from {
        Protocol::Detect => v1::Protocol::Detect,
        Protocol::Http1 => v1::Protocol::Http1,
        Protocol::Http2 => v1::Protocol::Http2,
        Protocol::Opaque => v1::Protocol::Opaque,
        Protocol::Tls => v1::Protocol::Tls,
    }
}

//! What the index joined, in the words of the wire protocol.
//!
//! Called by `shelf` alone. Pure. Policy is rendered in the features that a
//! proxy named: a rule that it can't express becomes deny, and is told to the
//! caller, who reports it. Nothing here ever opens what a rule closed.

use std::sync::Arc;

use weft_proto::v1;

use crate::{
    identity::spiffe,
    model::{
        AccessRule, Endpoint, HttpRoute, LoadBalancing, Meaning, PathMatch, Protocol,
        ResolvedAccess, ResolvedPort, ResolvedService, ResolvedWorkload, Rule,
    },
};

/// The policy features that this control plane speaks, as bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) struct Features(u8);

impl Features {
    pub(crate) const HTTP_ROUTE: Self = Self(1);
    pub(crate) const ACCESS_POLICY: Self = Self(2);
    /// A proxy as new as we are.
    pub(crate) const ALL: Self = Self(u8::MAX);

    /// What a proxy names and we don't know is of no use to us.
    pub(crate) fn parse(names: &[String]) -> Self {
        Self(names.iter().fold(0, |all, name| {
            all | match name.as_str() {
                "http-route/v1" => Self::HTTP_ROUTE.0,
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
    }
}

fn service_port(
    service: &ResolvedService,
    port: &ResolvedPort,
    view: &View,
    denied: &mut Vec<String>,
) -> v1::ServicePort {
    let routes = port
        .routes_for(&service.name, &view.namespace)
        .into_iter()
        .map(|it| {
            if view.features.has(Features::HTTP_ROUTE) {
                return route(it);
            }
            denied.push(format!("HTTPRoute {}: needs http-route/v1", it.name));
            // Without rules it matches nothing, so that all is refused.
            v1::Route {
                rules: Vec::new(),
                ..route(it)
            }
        });
    v1::ServicePort {
        port: port.port.into(),
        name: port.name.clone(),
        protocol: protocol(port.protocol).into(),
        routes: routes.collect(),
    }
}

fn route(from: &HttpRoute) -> v1::Route {
    v1::Route {
        namespace: from.name.namespace.clone(),
        name: from.name.name.clone(),
        created_milliseconds: from.created_milliseconds,
        rules: from.rules.iter().map(rule).collect(),
        kind: v1::RouteKind::HttpRoute.into(),
    }
}

fn rule(from: &Rule) -> v1::Rule {
    let matches = from.matches.iter().map(|it| v1::Match {
        path: Some(v1::PathMatch {
            kind: Some(match &it.path {
                PathMatch::Exact(path) => v1::path_match::Kind::Exact(path.clone()),
                PathMatch::Prefix(path) => v1::path_match::Kind::Prefix(path.clone()),
            }),
        }),
        headers: it
            .headers
            .iter()
            .map(|(name, value)| v1::HeaderMatch {
                name: name.clone(),
                value: value.clone(),
                regular_expression: false,
            })
            .collect(),
        ..v1::Match::default()
    });
    let backends = from.backends.iter().map(|it| v1::WeightedBackend {
        weight: it.weight,
        service: Some(v1::ServiceRef {
            namespace: it.backend.service.namespace.clone(),
            name: it.backend.service.name.clone(),
            port: it.backend.port.into(),
        }),
        invalid: it.invalid.clone(),
        filters: Vec::new(),
    });
    v1::Rule {
        name: from.name.clone(),
        matches: matches.collect(),
        backends: backends.collect(),
        request_timeout_milliseconds: from.request_timeout_milliseconds,
        backend_timeout_milliseconds: from.backend_timeout_milliseconds,
        ..v1::Rule::default()
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
    v1::Endpoint {
        uid: from.uid.clone(),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{BackendPolicy, Name, Pod};

    fn cart(namespace: &str) -> ResolvedService {
        let name = Name::new("shop", "cart");
        let route = HttpRoute {
            name: Name::new(namespace, "split"),
            rules: vec![Rule::default()],
            ..HttpRoute::default()
        };
        let port = ResolvedPort {
            port: 80,
            name: String::new(),
            protocol: Protocol::Detect,
            routes: vec![route],
        };
        ResolvedService {
            name,
            ports: vec![port],
            policy: BackendPolicy::default(),
        }
    }

    fn view(features: &[&str], namespace: &str) -> View {
        let features: Vec<String> = features.iter().map(|&it| it.to_owned()).collect();
        View {
            features: Features::parse(&features),
            namespace: namespace.into(),
        }
    }

    #[test]
    fn a_route_that_a_proxy_cannot_express_refuses_everything_and_is_told() {
        let mut denied = Vec::new();
        let old = service(&cart("shop"), &view(&[], "shop"), &mut denied);
        assert_eq!(
            (
                old.ports[0].routes.len(),
                old.ports[0].routes[0].rules.len()
            ),
            (1, 0)
        );
        assert_eq!(denied, ["HTTPRoute shop/split: needs http-route/v1"]);
        let new = service(
            &cart("shop"),
            &view(&["http-route/v1", "future/v9"], "shop"),
            &mut Vec::new(),
        );
        assert_eq!(new.ports[0].routes[0].rules.len(), 1);
    }

    #[test]
    fn a_consumers_route_holds_for_its_own_namespace_alone() {
        let features = ["http-route/v1"];
        let own = service(
            &cart("billing"),
            &view(&features, "billing"),
            &mut Vec::new(),
        );
        let other = service(&cart("billing"), &view(&features, "web"), &mut Vec::new());
        assert_eq!(
            (own.ports[0].routes.len(), other.ports[0].routes.len()),
            (1, 0)
        );
    }

    #[test]
    fn access_rules_that_a_proxy_cannot_express_deny_all() {
        let allow = vec![("shop/readers#0".to_owned(), AccessRule::default())];
        let pod = Pod {
            name: Name::new("shop", "cart-0"),
            ..Pod::default()
        };
        let default_access = ResolvedAccess {
            allow,
            ..ResolvedAccess::default()
        };
        let from = ResolvedWorkload {
            pod,
            meshed: true,
            ports: Default::default(),
            default_access,
        };
        let mut denied = Vec::new();
        let access = workload(&from, Features::default(), &mut denied)
            .default_access
            .unwrap();
        assert!(
            access.default_deny && access.allow.is_empty() && access.mtls() == v1::Mtls::Strict
        );
        assert_eq!(
            denied,
            ["AccessPolicy shop/readers#0: needs access-policy/v1"]
        );
        let access = workload(&from, Features::ACCESS_POLICY, &mut denied)
            .default_access
            .unwrap();
        assert_eq!(access.allow.len(), 1);
    }
}

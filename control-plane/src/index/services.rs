//! What a Service means to its callers: ports, routes, policy.
//!
//! Read by `serve` through `Index::service`. A backend that leads nowhere says
//! so and keeps its weight, since its share of requests is an error (Gateway
//! API, HTTPBackendRef), not somebody else's traffic.
//!
//! Pure: reads tables, returns values.

use super::tables::Tables;
use crate::model::{
    BackendName, BackendPolicyObject, HttpRoute, Name, Parent, ResolvedPort, ResolvedService,
};

pub(super) fn resolve(tables: &Tables, name: &Name) -> Option<ResolvedService> {
    let service = tables.services.get(name)?;
    // Routes match on the ClusterIP (GEP-1294): without one they attach to nothing.
    let mut routes: Vec<&HttpRoute> = match service.addresses.is_empty() {
        true => Vec::new(),
        false => tables
            .routes_by_parent
            .of(name)
            .filter_map(|it| tables.routes.get(it))
            .collect(),
    };
    routes.sort_by_key(|route| (route.created_milliseconds, &route.name));
    let ports = service
        .ports
        .iter()
        .map(|port| ResolvedPort {
            port: port.port,
            name: port.name.clone(),
            protocol: port.protocol,
            routes: routes
                .iter()
                .filter(|route| {
                    route
                        .parents
                        .iter()
                        .any(|it| is_parent(it, name, port.port))
                })
                .map(|route| with_broken_backends(tables, route))
                .collect(),
        })
        .collect();
    Some(ResolvedService {
        name: name.clone(),
        ports,
        policy: policy_of(tables, name)
            .map(|it| it.policy.clone())
            .unwrap_or_default(),
    })
}

/// Where several target one Service: the oldest, then the first by name (GEP-713).
pub(super) fn policy_of<'a>(tables: &'a Tables, service: &Name) -> Option<&'a BackendPolicyObject> {
    tables
        .backend_policies_by_target
        .of(service)
        .filter_map(|it| tables.backend_policies.get(it))
        .min_by_key(|it| (it.created_milliseconds, &it.name))
}

/// Why a backend leads nowhere; empty where it doesn't.
pub(super) fn broken(tables: &Tables, backend: &BackendName) -> String {
    let BackendName { service, port } = backend;
    match tables.services.get(service) {
        None => format!("there is no Service {service}"),
        Some(found) if found.ports.iter().all(|it| it.port != *port) => {
            format!("Service {service} has no port {port}")
        }
        Some(_) => String::new(),
    }
}

fn is_parent(parent: &Parent, service: &Name, port: u16) -> bool {
    parent.service == *service && parent.port.is_none_or(|it| it == port)
}

fn with_broken_backends(tables: &Tables, route: &HttpRoute) -> HttpRoute {
    let mut route = route.clone();
    for backend in route.rules.iter_mut().flat_map(|rule| &mut rule.backends) {
        if backend.invalid.is_empty() {
            backend.invalid = broken(tables, &backend.backend);
        }
    }
    route
}

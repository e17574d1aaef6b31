//! What a Service means to its callers: ports, routes, policy.
//!
//! Read by `serve` through `Index::service`. A backend that leads nowhere says
//! so and keeps its weight, since its share of requests is an error (Gateway
//! API, HTTPBackendRef), not somebody else's traffic.
//!
//! Pure: reads tables, returns values.

use super::{routes, tables::Tables};
use crate::model::{BackendPolicyObject, Name, ResolvedPort, ResolvedService};

pub(super) fn resolve(tables: &Tables, name: &Name) -> Option<ResolvedService> {
    let service = tables.services.get(name)?;
    let ports = service
        .ports
        .iter()
        .map(|port| ResolvedPort {
            port: port.port,
            name: port.name.clone(),
            protocol: port.protocol,
            routes: routes::of_port(tables, service, port.port)
                .into_iter()
                .map(|route| routes::resolve(tables, route))
                .collect(),
        })
        .collect();
    Some(ResolvedService {
        name: name.clone(),
        ports,
        policy: policy_of(tables, name)
            .map(|it| it.policy.clone())
            .unwrap_or_default(),
        own_node_only: service.own_node_only,
        affinity_seconds: service.affinity_seconds,
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

//! Renders what the proxy knows: destinations, endpoints with breaker state, policy.
//!
//! Called for `/dump`. For engineers, so its form may change between versions.

use std::{net::SocketAddr, sync::atomic::Ordering};

use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::{Readiness, Sources};
use crate::{
    discovery::{
        Access, AccessRule, Backend, Endpoint, EndpointState, Meaning, Rejected, RouteTable,
        Security, Snapshot, WeightedBackend, Workload,
    },
    upstream::{balance, breaker},
};

pub(super) async fn of(sources: &Sources) -> Value {
    let snapshot = (sources.snapshot)();
    let now = sources.epoch.milliseconds(Instant::now());
    let mut addresses: Vec<_> = snapshot.addresses.iter().collect();
    addresses.sort_by_key(|(address, _)| **address);
    let addresses: Vec<_> = addresses
        .into_iter()
        .map(|(address, meaning)| destination(*address, &meaning.meaning, now))
        .collect();
    let mut page = Map::new();
    page.insert("version".into(), env!("CARGO_PKG_VERSION").into());
    page.insert("readiness".into(), json!(Readiness::of(sources)));
    page.insert("control_plane".into(), control_plane(sources));
    page.insert("revision".into(), snapshot.revision.into());
    page.insert("ranges".into(), ranges(&snapshot));
    page.insert(
        "workload".into(),
        snapshot.workload.as_deref().map_or(Value::Null, workload),
    );
    page.insert("destinations".into(), addresses.into());
    for (name, section) in &sources.sections {
        page.insert((*name).into(), section().await);
    }
    page.into()
}

fn control_plane(sources: &Sources) -> Value {
    let status = sources.health.status();
    let rejected =
        |of: &Rejected| json!({"name": of.name, "version": of.version, "reason": of.reason});
    json!({
        "stream": status.stream.as_str(),
        "heard_ago_ms": status.heard.map(|at| at.elapsed().as_millis()),
        "error": status.stream_error,
        "held": status.held,
        "rejected": status.rejected.iter().map(rejected).collect::<Vec<_>>(),
        "restored": status.is_restored,
        "certificate_ends": status.certificate_ends.map(|ends| ends.as_secs()),
        "renewal_error": status.renewal_error,
    })
}

fn ranges(snapshot: &Snapshot) -> Value {
    snapshot
        .ranges
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .into()
}

fn destination(address: SocketAddr, meaning: &Meaning, now: u64) -> Value {
    match meaning {
        Meaning::Service(service) => json!({
            "address": address,
            "meaning": "service",
            "service": service.service.to_string(),
            "port": service.port,
            "protocol": format!("{:?}", service.protocol),
            "routes": service.routes.as_ref().map(|table| routes(table, now)),
            "backend": backend(&service.default, now),
        }),
        Meaning::Workload(of) => {
            json!({"address": address, "meaning": "workload", "backend": backend(of, now)})
        }
        Meaning::Unmeshed => json!({"address": address, "meaning": "unmeshed"}),
        Meaning::Unknown => json!({"address": address, "meaning": "unknown"}),
    }
}

fn routes(table: &RouteTable, now: u64) -> Vec<Value> {
    let share = |weighted: &WeightedBackend| match &weighted.backend {
        Ok(of) => json!({
            "weight": weighted.weight,
            "backend": backend(of, now),
            "filters": weighted.filters.as_ref().map(|filters| format!("{filters:?}")),
        }),
        Err(why) => json!({"weight": weighted.weight, "invalid": why}),
    };
    let entries = table.entries.iter();
    entries
        .map(|(matched, rule)| {
            json!({
                "route": rule.route.as_ref(),
                "rule": rule.index,
                "match": format!("{matched:?}"),
                "backends": rule.backends.iter().map(share).collect::<Vec<_>>(),
            })
        })
        .collect()
}

fn backend(of: &Backend, now: u64) -> Value {
    let endpoints = of.endpoints.iter().enumerate();
    let endpoints = endpoints.map(|(at, it)| endpoint(it, of.tier_of(at), now));
    json!({
        "service": of.service.to_string(),
        "port": of.port,
        "policy": format!("{:?}", of.policy),
        "connections": of.cells.connections.taken.load(Ordering::Relaxed),
        "connections_pending": of.cells.connections.waiting.load(Ordering::Relaxed),
        "in_flight": of.cells.requests.taken.load(Ordering::Relaxed),
        "pending": of.cells.requests.waiting.load(Ordering::Relaxed),
        "ejected": of.cells.ejected.load(Ordering::Relaxed),
        "stays_with": balance::stays_with(of, now).map(|endpoint| endpoint.uid.as_ref()),
        "endpoints": endpoints.collect::<Vec<_>>(),
    })
}

fn endpoint(of: &Endpoint, tier: Option<usize>, now: u64) -> Value {
    let breaker = match breaker::state(of) {
        breaker::State::In { failures } => json!({"state": "in", "failures": failures}),
        breaker::State::Ejected { until_ms } => {
            json!({"state": "ejected", "for_ms": until_ms.saturating_sub(now)})
        }
        breaker::State::Probing => json!({"state": "probing"}),
    };
    json!({
        "uid": of.uid.as_ref(),
        "pod": format!("{}/{}", of.namespace, of.pod),
        "address": of.address,
        "identity": match &of.security {
            Security::Mesh { identity, .. } => Some(identity.as_str()),
            Security::Unmeshed => None,
        },
        "node": of.node.as_ref(),
        "zone": of.zone.as_ref(),
        // 0 is used first; null gets no new request.
        "tier": tier,
        "weight": of.weight,
        "state": match of.state {
            EndpointState::Ready => "ready",
            EndpointState::Draining => "draining",
        },
        "breaker": breaker,
        "in_flight": of.cells.in_flight.load(Ordering::Relaxed),
    })
}

fn workload(of: &Workload) -> Value {
    let mut ports: Vec<_> = of.ports.iter().collect();
    ports.sort_by_key(|(port, _)| **port);
    let ports: Vec<_> = ports
        .into_iter()
        .map(|(number, port)| {
            json!({
                "port": number,
                "protocol": format!("{:?}", port.protocol),
                "access": access(&port.access),
            })
        })
        .collect();
    json!({
        "pod": format!("{}/{}", of.namespace, of.pod),
        "uid": of.uid.as_ref(),
        "service_account": of.service_account.as_ref(),
        "addresses": of.addresses,
        "node": of.here.node.as_ref(),
        "zone": of.here.zone.as_ref(),
        "ports": ports,
        "default_access": access(&of.default_access),
    })
}

fn access(of: &Access) -> Value {
    let rules = |rules: &[AccessRule]| {
        rules
            .iter()
            .map(|rule| format!("{rule:?}"))
            .collect::<Vec<_>>()
    };
    json!({
        "strict": of.strict,
        "deny": rules(&of.deny),
        "allow": rules(&of.allow),
        "default": if of.default_deny { "deny" } else { "allow" },
    })
}

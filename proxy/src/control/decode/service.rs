//! Services: ports and the policy towards them; `route` has their routes.
//!
//! Part of `decode`. `store` resolves what is named.

use std::{sync::Arc, time::Duration};

use weft_proto::v1;

use super::{
    Invalid, milliseconds, port, protocol,
    route::{Route, routes},
};
use crate::discovery::{
    BackendPolicy, CircuitBreaking, Limits, LoadBalancing, Protocol, Retries, ServiceName, Timeouts,
};

/// A port of a service, by name.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(crate) struct Target {
    pub(crate) service: ServiceName,
    pub(crate) port: u16,
}

#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) policy: Arc<BackendPolicy>,
    pub(crate) ports: Vec<Port>,
}

#[derive(Debug)]
pub(crate) struct Port {
    pub(crate) port: u16,
    pub(crate) protocol: Protocol,
    pub(crate) routes: Vec<Route>,
}

pub(super) fn service(name: &ServiceName, wire: v1::Service) -> Result<Service, Invalid> {
    if *wire.namespace != *name.namespace || *wire.name != *name.name {
        return Err(Invalid::new("name", "is not the resource's"));
    }
    let mut ports = Vec::with_capacity(wire.ports.len());
    for (at, wire) in wire.ports.into_iter().enumerate() {
        ports.push(service_port(wire).map_err(|e| e.within(format_args!("ports[{at}]")))?);
    }
    let policy = match wire.policy {
        Some(wire) => policy(wire).map_err(|e| e.within("policy"))?,
        None => BackendPolicy::default(),
    };
    let affinity = (wire.affinity_seconds > 0).then_some(wire.affinity_seconds);
    let policy = BackendPolicy {
        own_node_only: wire.own_node_only,
        affinity: affinity.map(|seconds| Duration::from_secs(seconds.into())),
        ..policy
    };
    Ok(Service {
        policy: Arc::new(policy),
        ports,
    })
}

fn service_port(wire: v1::ServicePort) -> Result<Port, Invalid> {
    Ok(Port {
        port: port("port", wire.port)?,
        protocol: protocol(wire.protocol),
        routes: routes(wire.routes)?,
    })
}

pub(super) fn target(wire: &v1::ServiceRef) -> Result<Target, Invalid> {
    if wire.namespace.is_empty() || wire.name.is_empty() {
        return Err(Invalid::new("name", "empty"));
    }
    Ok(Target {
        service: ServiceName {
            namespace: wire.namespace.as_str().into(),
            name: wire.name.as_str().into(),
        },
        port: port("port", wire.port)?,
    })
}

/// What is absent keeps its default.
fn policy(wire: v1::BackendPolicy) -> Result<BackendPolicy, Invalid> {
    let defaults = BackendPolicy::default();
    Ok(BackendPolicy {
        load_balancing: match wire.load_balancing() {
            v1::LoadBalancing::PeakEwma => LoadBalancing::PeakEwma,
            v1::LoadBalancing::RoundRobin => LoadBalancing::RoundRobin,
            v1::LoadBalancing::Weighted => LoadBalancing::Weighted,
        },
        circuit_breaking: match wire.circuit_breaking {
            Some(wire) => circuit_breaking(&wire).map_err(|e| e.within("circuit_breaking"))?,
            None => defaults.circuit_breaking,
        },
        limits: wire
            .limits
            .map_or(defaults.limits, |wire| limits(&wire, &defaults.limits)),
        retries: match wire.retries {
            Some(wire) => retries(&wire, &defaults.retries).map_err(|e| e.within("retries"))?,
            None => defaults.retries,
        },
        timeouts: wire.timeouts.map_or(defaults.timeouts, |wire| Timeouts {
            connect: milliseconds(wire.connect_milliseconds).unwrap_or(defaults.timeouts.connect),
            first_byte: milliseconds(wire.first_byte_milliseconds),
            idle: milliseconds(wire.idle_milliseconds),
            request: milliseconds(wire.request_milliseconds),
        }),
        ..defaults
    })
}

fn circuit_breaking(wire: &v1::CircuitBreaking) -> Result<CircuitBreaking, Invalid> {
    if wire.max_ejected_percent > 100 {
        return Err(Invalid::new(
            "max_ejected_percent",
            wire.max_ejected_percent,
        ));
    }
    let base_ejection = Duration::from_millis(wire.base_ejection_milliseconds);
    let max_ejection = Duration::from_millis(wire.max_ejection_milliseconds);
    if max_ejection < base_ejection {
        return Err(Invalid::new(
            "max_ejection_milliseconds",
            "is less than the base",
        ));
    }
    Ok(CircuitBreaking {
        consecutive_failures: wire.consecutive_failures,
        base_ejection,
        max_ejection,
        max_ejected_percent: wire.max_ejected_percent,
    })
}

fn limits(wire: &v1::Limits, defaults: &Limits) -> Limits {
    let limit = |value: u32| (value > 0).then_some(value);
    Limits {
        connections: limit(wire.connections),
        requests: limit(wire.requests),
        pending: limit(wire.pending),
        pending_timeout: milliseconds(wire.pending_timeout_milliseconds)
            .unwrap_or(defaults.pending_timeout),
    }
}

fn retries(wire: &v1::Retries, defaults: &Retries) -> Result<Retries, Invalid> {
    let status = |code: &u32| {
        u16::try_from(*code)
            .ok()
            .filter(|code| (100..=599).contains(code))
            .ok_or_else(|| Invalid::new("status_codes", code))
    };
    let grpc = |code: &u32| {
        u8::try_from(*code)
            .ok()
            .filter(|code| *code <= 16)
            .ok_or_else(|| Invalid::new("grpc_statuses", code))
    };
    let base_backoff =
        milliseconds(wire.base_backoff_milliseconds).unwrap_or(defaults.base_backoff);
    let max_backoff = milliseconds(wire.max_backoff_milliseconds).unwrap_or(defaults.max_backoff);
    Ok(Retries {
        attempts: wire.attempts,
        status_codes: wire
            .status_codes
            .iter()
            .map(status)
            .collect::<Result<_, _>>()?,
        grpc_statuses: wire
            .grpc_statuses
            .iter()
            .map(grpc)
            .collect::<Result<_, _>>()?,
        non_idempotent: wire.non_idempotent,
        per_try_timeout: milliseconds(wire.per_try_timeout_milliseconds),
        least_backoff: defaults.least_backoff,
        base_backoff,
        max_backoff: max_backoff.max(base_backoff),
        budget_percent: wire.budget_percent,
        budget_minimum_per_second: wire.budget_minimum_per_second,
    })
}

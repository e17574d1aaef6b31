//! Metrics of what is now, looked up when somebody scrapes.
//!
//! `app` registers it over the snapshot and the control plane's health, so
//! that nobody has to keep gauges in step. Never on the path.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, NoLabelSet},
    metrics::MetricType,
};

use tokio::time::Instant;

use crate::{
    clock::Epoch,
    discovery::{
        Backend, BackendCells, EndpointCells, EndpointState, Health, Meaning, Snapshot, Status,
        Stream,
    },
    limit,
    telemetry::Registry,
};

/// The snapshot of the moment.
pub(crate) type Latest = Box<dyn Fn() -> Arc<Snapshot> + Send + Sync>;

/// Registers the gauges of endpoints and of the control plane.
pub(crate) fn observe(registry: &mut Registry, latest: Latest, health: Arc<Health>, epoch: Epoch) {
    let mut area = registry.area("endpoints");
    area.describe(KNOWN.0, KNOWN.1, MetricType::Gauge);
    area.describe(EJECTED.0, EJECTED.1, MetricType::Gauge);
    for (name, help, _) in LOADS {
        area.describe(name, help, MetricType::Gauge);
    }
    area.describe(BUDGET.0, BUDGET.1, MetricType::Gauge);
    area.collector(Box::new(Endpoints { latest, epoch }));
    let mut area = registry.area("control");
    for (name, help, kind, _) in FACTS {
        area.describe(name, help, kind);
    }
    area.collector(Box::new(Control(health)));
}

const KNOWN: (&str, &str) = (
    "known",
    "Endpoints of each service port that we know, by state: ready, draining or ejected",
);
const EJECTED: (&str, &str) = (
    "ejected",
    "1 for each endpoint that the breaker has taken out",
);

/// What a destination's limits are held against, over all workers.
type Load = (&'static str, &'static str, fn(&BackendCells) -> &AtomicU32);

const LOADS: [Load; 4] = [
    (
        "connections",
        "Connections to a service port's endpoints that its limit counts",
        |cells| &cells.connections.taken,
    ),
    (
        "connections_pending",
        "Connections that wait for a free place of a service port",
        |cells| &cells.connections.waiting,
    ),
    (
        "requests_in_flight",
        "Requests to a service port's endpoints that have not ended",
        |cells| &cells.requests.taken,
    ),
    (
        "requests_pending",
        "Requests that wait for a free slot of a service port",
        |cells| &cells.requests.waiting,
    ),
];

const BUDGET: (&str, &str) = (
    "retry_budget_remaining",
    "Retries by policy that the budget of each service port still grants",
);

struct Endpoints {
    latest: Latest,
    epoch: Epoch,
}

impl fmt::Debug for Endpoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Endpoints")
    }
}

impl Collector for Endpoints {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let snapshot = (self.latest)();
        let backends = backends(&snapshot);
        let mut metric = encoder.encode_descriptor(KNOWN.0, KNOWN.1, None, MetricType::Gauge)?;
        for backend in &backends {
            let (service, port) = (backend.service.to_string(), backend.port.to_string());
            for (state, count) in by_state(backend) {
                let labels = [
                    ("service", service.as_str()),
                    ("port", &port),
                    ("state", state),
                ];
                metric.encode_family(&labels)?.encode_gauge(&count)?;
            }
        }
        let mut metric =
            encoder.encode_descriptor(EJECTED.0, EJECTED.1, None, MetricType::Gauge)?;
        for backend in &backends {
            let (service, port) = (backend.service.to_string(), backend.port.to_string());
            for endpoint in backend
                .endpoints
                .iter()
                .filter(|endpoint| is_out(&endpoint.cells))
            {
                let pod = format!("{}/{}", endpoint.namespace, endpoint.pod);
                let labels = [
                    ("service", service.as_str()),
                    ("port", &port),
                    ("pod", &pod),
                ];
                metric.encode_family(&labels)?.encode_gauge(&1_u64)?;
            }
        }
        for (name, help, of) in LOADS {
            let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for backend in &backends {
                let (service, port) = (backend.service.to_string(), backend.port.to_string());
                let labels = [("service", service.as_str()), ("port", &port)];
                let load = of(&backend.cells).load(Ordering::Relaxed);
                metric.encode_family(&labels)?.encode_gauge(&load)?;
            }
        }
        let now_ms = self.epoch.milliseconds(Instant::now());
        let mut metric = encoder.encode_descriptor(BUDGET.0, BUDGET.1, None, MetricType::Gauge)?;
        for backend in &backends {
            let (service, port) = (backend.service.to_string(), backend.port.to_string());
            let labels = [("service", service.as_str()), ("port", &port)];
            let left = limit::remaining(backend, now_ms);
            metric.encode_family(&labels)?.encode_gauge(&left)?;
        }
        Ok(())
    }
}

/// Each once, in a stable order.
fn backends(snapshot: &Snapshot) -> Vec<&Arc<Backend>> {
    let mut all = Vec::new();
    for known in snapshot.addresses.values() {
        match &known.meaning {
            Meaning::Service(service) => {
                all.push(&service.default);
                let rules = service.routes.iter().flat_map(|table| &table.entries);
                all.extend(rules.flat_map(|(_, rule)| rule.destinations()));
            }
            // One pod's own address: a gauge of one adds nothing, and there
            // may be as many as there are pods.
            Meaning::Workload(_) | Meaning::Unmeshed | Meaning::Unknown => {}
        }
    }
    all.sort_by(|one, other| (&one.service, one.port).cmp(&(&other.service, other.port)));
    all.dedup_by(|one, other| one.service == other.service && one.port == other.port);
    all
}

fn by_state(backend: &Backend) -> [(&'static str, u64); 3] {
    let (mut ready, mut draining, mut ejected) = (0, 0, 0);
    for endpoint in &backend.endpoints {
        match endpoint.state {
            EndpointState::Draining => draining += 1,
            EndpointState::Ready if is_out(&endpoint.cells) => ejected += 1,
            EndpointState::Ready => ready += 1,
        }
    }
    [
        ("ready", ready),
        ("draining", draining),
        ("ejected", ejected),
    ]
}

fn is_out(cells: &EndpointCells) -> bool {
    cells.breaker.load(Ordering::Relaxed) & EndpointCells::OUT != 0
}

#[derive(Debug)]
struct Control(Arc<Health>);

type Fact = (
    &'static str,
    &'static str,
    MetricType,
    fn(&Status) -> Option<f64>,
);

/// What is told of the control plane; a fact without a value is left out.
const FACTS: [Fact; 13] = [
    (
        "stream_open",
        "1 while the stream from the control plane stands",
        MetricType::Gauge,
        |status| {
            Some(if status.stream == Stream::Open {
                1.0
            } else {
                0.0
            })
        },
    ),
    (
        "age_seconds",
        "Time since the control plane last confirmed what we hold, by a heartbeat or a resource",
        MetricType::Gauge,
        |status| status.heard.map(|at| at.elapsed().as_secs_f64()),
    ),
    ("streams", "Streams opened", MetricType::Counter, |status| {
        Some(count(status.connections))
    }),
    (
        "held_resources",
        "Resources held",
        MetricType::Gauge,
        |status| Some(count(status.held.len() as u64)),
    ),
    (
        "received_resources",
        "Resources that came over the stream; a stream that opens anew brings only what changed",
        MetricType::Counter,
        |status| Some(count(status.received_total)),
    ),
    (
        "heartbeats",
        "Heartbeats that came over the stream",
        MetricType::Counter,
        |status| Some(count(status.heartbeats_total)),
    ),
    (
        "trusted_roots",
        "Roots of the trust bundle",
        MetricType::Gauge,
        |status| Some(count(status.roots as u64)),
    ),
    (
        "rejected_resources",
        "Resources whose newest version we could not accept",
        MetricType::Gauge,
        |status| Some(count(status.rejected.len() as u64)),
    ),
    (
        "rejects",
        "Versions of resources that we could not accept",
        MetricType::Counter,
        |status| Some(count(status.rejects_total)),
    ),
    (
        "unknown_fields",
        "Fields that came and were ignored, since the control plane is newer than this proxy",
        MetricType::Counter,
        |status| Some(count(status.unknown_fields_total)),
    ),
    (
        "certificate_expiry_seconds",
        "When our certificate ends, in seconds since the Unix epoch",
        MetricType::Gauge,
        |status| status.certificate_ends.map(|ends| ends.as_secs_f64()),
    ),
    (
        "renewals",
        "Certificates received",
        MetricType::Counter,
        |status| Some(count(status.renewals_total)),
    ),
    (
        "renewal_failures",
        "Requests for a certificate that failed",
        MetricType::Counter,
        |status| Some(count(status.renewal_failures_total)),
    ),
];

#[allow(
    clippy::cast_precision_loss,
    reason = "counts here stay far below 2^52"
)]
fn count(number: u64) -> f64 {
    number as f64
}

impl Collector for Control {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let status = self.0.status();
        for (name, help, kind, of) in FACTS {
            let Some(value) = of(&status) else { continue };
            let mut metric = encoder.encode_descriptor(name, help, None, kind)?;
            match kind {
                MetricType::Counter => metric.encode_counter::<NoLabelSet, _, f64>(&value, None)?,
                _ => metric.encode_gauge(&value)?,
            }
        }
        Ok(())
    }
}

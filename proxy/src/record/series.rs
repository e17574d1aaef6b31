//! The metrics of traffic: one set of counters per destination and caller.
//!
//! `record` asks for a `Series` once per connection and destination; counting
//! is atomic additions on it. The number of sets has a hard cap, behind which
//! everything counts as `other`, and a set that nobody holds and that doesn't
//! change is forgotten (at a scrape, which is when it would cost).

mod export;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use prometheus_client::metrics::counter::Counter;
use tokio::time::Instant;

use crate::{
    discovery::{Backend, ServicePort},
    identity::Peer,
    outcome::{NotRetried, Outcome, Reason, Retried, Side},
    telemetry::{Registry, metric::Durations},
};

/// Names of configured objects and of a proved identity; empty where there is none.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Labels {
    side: &'static str,
    service: Box<str>,
    port: Box<str>,
    route: Box<str>,
    backend: Box<str>,
    peer_namespace: Box<str>,
    peer_service_account: Box<str>,
}

impl Labels {
    pub(super) fn new(
        side: Side,
        service: Option<&ServicePort>,
        port: Option<u16>,
        route: Option<&Arc<str>>,
        backend: Option<&Backend>,
        peer: Option<&Peer>,
    ) -> Self {
        let port = port.or_else(|| service.map(|service| service.port));
        let identity = peer.and_then(Peer::identity);
        Self {
            side: side.as_str(),
            service: service
                .map(|service| service.service.to_string())
                .unwrap_or_default()
                .into(),
            port: port.map(|port| port.to_string()).unwrap_or_default().into(),
            route: route.map(AsRef::as_ref).unwrap_or_default().into(),
            backend: backend
                .map(|backend| format!("{}:{}", backend.service, backend.port))
                .unwrap_or_default()
                .into(),
            peer_namespace: identity.map_or("", |identity| identity.namespace()).into(),
            peer_service_account: identity
                .map_or("", |identity| identity.service_account())
                .into(),
        }
    }

    /// What everything beyond the cap counts as.
    fn other(side: &'static str) -> Self {
        let other = || Box::from("other");
        Self {
            side,
            service: other(),
            port: other(),
            route: other(),
            backend: other(),
            peer_namespace: other(),
            peer_service_account: other(),
        }
    }

    pub(super) fn service(&self) -> &str {
        &self.service
    }

    pub(super) fn port(&self) -> &str {
        &self.port
    }

    pub(super) fn backend(&self) -> &str {
        &self.backend
    }

    fn pairs(&self) -> Vec<(&str, &str)> {
        vec![
            ("side", self.side),
            ("service", &self.service),
            ("port", &self.port),
            ("route", &self.route),
            ("backend", &self.backend),
            ("peer_namespace", &self.peer_namespace),
            ("peer_service_account", &self.peer_service_account),
        ]
    }
}

/// How a request or connection ended, as a label.
const RESULTS: [&str; 10] = [
    "1xx",
    "2xx",
    "3xx",
    "4xx",
    "5xx",
    "carried",
    "caller-left",
    "faulted",
    "peer-faulted",
    "broken-off",
];

fn result(outcome: Outcome, status: Option<u16>) -> usize {
    match outcome {
        Outcome::Answered => match status {
            Some(100..=199) => 0,
            Some(300..=399) => 2,
            Some(400..=499) => 3,
            Some(500..=599) => 4,
            _ => 1,
        },
        Outcome::Carried => 5,
        Outcome::CallerLeft => 6,
        Outcome::Faulted(_) => 7,
        Outcome::PeerFaulted(_) => 8,
        Outcome::BrokenOff => 9,
    }
}

#[derive(Debug)]
struct Cells<const N: usize>([AtomicU64; N]);

impl<const N: usize> Default for Cells<N> {
    fn default() -> Self {
        Self([const { AtomicU64::new(0) }; N])
    }
}

impl<const N: usize> Cells<N> {
    fn inc(&self, at: usize) {
        if let Some(cell) = self.0.get(at) {
            cell.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn total(&self) -> u64 {
        self.0.iter().map(|cell| cell.load(Ordering::Relaxed)).sum()
    }
}

/// Counters of one label set.
#[derive(Debug)]
pub(super) struct Series {
    labels: Labels,
    requests: Cells<{ RESULTS.len() }>,
    connections: Cells<{ RESULTS.len() }>,
    grpc: Cells<{ GRPC.len() }>,
    duration: Durations,
    received: AtomicU64,
    sent: AtomicU64,
    attempts: AtomicU64,
    retries: Cells<{ Retried::TEXTS.len() }>,
    not_retried: Cells<{ NotRetried::TEXTS.len() }>,
    faults: Cells<{ Reason::ALL.len() }>,
    peer_faults: Cells<{ Reason::ALL.len() }>,
}

const GRPC: [&str; 17] = [
    "0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15", "16",
];

impl Series {
    fn new(labels: Labels) -> Self {
        Self {
            labels,
            requests: Cells::default(),
            connections: Cells::default(),
            grpc: Cells::default(),
            duration: Durations::default(),
            received: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            attempts: AtomicU64::new(0),
            retries: Cells::default(),
            not_retried: Cells::default(),
            faults: Cells::default(),
            peer_faults: Cells::default(),
        }
    }

    pub(super) fn labels(&self) -> &Labels {
        &self.labels
    }

    pub(super) fn attempted(&self) {
        self.attempts.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn retried(&self, why: Retried) {
        self.retries.inc(why as usize);
    }

    pub(super) fn not_retried(&self, why: NotRetried) {
        self.not_retried.inc(why as usize);
    }

    pub(super) fn bytes(&self, received: u64, sent: u64) {
        self.received.fetch_add(received, Ordering::Relaxed);
        self.sent.fetch_add(sent, Ordering::Relaxed);
    }

    pub(super) fn request_ended(
        &self,
        outcome: Outcome,
        status: Option<u16>,
        grpc: Option<u8>,
        took: Duration,
    ) {
        self.requests.inc(result(outcome, status));
        if let Some(grpc) = grpc {
            self.grpc.inc(usize::from(grpc));
        }
        self.duration.observe(took);
        self.faulted(outcome);
    }

    pub(super) fn connection_ended(&self, outcome: Outcome) {
        self.connections.inc(result(outcome, None));
        self.faulted(outcome);
    }

    /// The proxy that made a fault counts it; the caller's proxy counts
    /// separately that it heard of one, so that sums don't count it twice.
    fn faulted(&self, outcome: Outcome) {
        match outcome {
            Outcome::Faulted(fault) => self.faults.inc(fault.reason as usize),
            Outcome::PeerFaulted(fault) => self.peer_faults.inc(fault.reason as usize),
            Outcome::Answered | Outcome::Carried | Outcome::CallerLeft | Outcome::BrokenOff => {}
        }
    }

    /// Grows with whatever happens on it.
    fn activity(&self) -> u64 {
        self.requests.total() + self.connections.total() + self.attempts.load(Ordering::Relaxed)
    }
}

/// All label sets.
#[derive(Debug)]
pub(super) struct Traffic {
    sets: Mutex<HashMap<Labels, Entry>>,
    cap: usize,
    idle: Duration,
    overflow: Counter,
}

#[derive(Debug)]
struct Entry {
    series: Arc<Series>,
    /// Activity when last looked at, and since when it has been that.
    seen: u64,
    since: Instant,
}

impl Traffic {
    pub(super) fn register(registry: &mut Registry, cap: usize, idle: Duration) -> Arc<Self> {
        let mut area = registry.area("traffic");
        let overflow = area.register(
            "series_overflow",
            "Times that a label set was counted as other because the cap was reached",
            Counter::default(),
        );
        export::describe(&mut area);
        let traffic = Arc::new(Self {
            sets: Mutex::default(),
            cap,
            idle,
            overflow,
        });
        area.collector(Box::new(Arc::clone(&traffic)));
        traffic
    }

    pub(super) fn series(&self, labels: Labels) -> Arc<Series> {
        let mut sets = self.sets.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = sets.get(&labels) {
            return Arc::clone(&entry.series);
        }
        let labels = if sets.len() < self.cap {
            labels
        } else {
            self.overflow.inc();
            Labels::other(labels.side)
        };
        let new = || Entry {
            series: Arc::new(Series::new(labels.clone())),
            seen: 0,
            since: Instant::now(),
        };
        Arc::clone(&sets.entry(labels.clone()).or_insert_with(new).series)
    }

    /// Forgets what nobody uses; returns the others.
    fn current(&self) -> Vec<Arc<Series>> {
        let now = Instant::now();
        let mut sets = self.sets.lock().unwrap_or_else(PoisonError::into_inner);
        sets.retain(|_, entry| {
            let activity = entry.series.activity();
            if activity != entry.seen || Arc::strong_count(&entry.series) > 1 {
                (entry.seen, entry.since) = (activity, now);
            }
            now.duration_since(entry.since) < self.idle
        });
        sets.values()
            .map(|entry| Arc::clone(&entry.series))
            .collect()
    }
}

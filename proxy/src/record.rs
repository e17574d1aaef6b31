//! Writes down how each request and each opaque connection ended: once.
//!
//! The stories start a `ConnectionRecord` per accepted connection; the engines
//! start a `Record` per request of it (or one for its opaque bytes), tell it
//! what they learn on the way and finish it with an `Outcome`. A record that
//! is dropped unfinished says that the caller left. Finishing adds to atomics
//! and perhaps hands one line to the access log's thread.
//!
//! Never takes a lock on a request's path: the series of a destination is
//! looked up once per connection and found again by pointer. Labels come from
//! configured objects and proved identities, never from a request.

mod areas;
mod destination;
mod line;
mod log;
mod series;
mod state;
mod trace;

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use smallvec::SmallVec;
use tokio::time::Instant;

use crate::{
    addr::{OrigDst, PeerAddr},
    clock::Wall,
    discovery::{Backend, Endpoint, Rule, ServicePort},
    drain::{self, Phase},
    identity::Peer,
    outcome::{NotRetried, Outcome, Reason, Retried, Side},
    telemetry::Registry,
};

pub(crate) use areas::Metrics;
pub(crate) use log::{AccessLog, Mode};
pub(crate) use state::observe;
pub(crate) use trace::TraceId;

use destination::Destination;
use series::{Labels, Series, Traffic};

#[derive(Clone, Copy, Debug)]
pub(crate) struct Config {
    /// Most label sets of traffic metrics; what comes after counts as `other`.
    pub(crate) series: usize,
    /// A label set that nothing uses for so long is forgotten.
    pub(crate) series_idle: Duration,
}

/// What all workers record into. Made once; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Shared {
    metrics: Arc<Metrics>,
    traffic: Arc<Traffic>,
    log: AccessLog,
    wall: Wall,
    phase: drain::Watch,
}

impl Shared {
    pub(crate) fn new(
        registry: &mut Registry,
        config: &Config,
        log: AccessLog,
        wall: Wall,
        phase: drain::Watch,
    ) -> Self {
        Self {
            metrics: Arc::new(Metrics::register(registry)),
            traffic: Traffic::register(registry, config.series, config.series_idle),
            log,
            wall,
            phase,
        }
    }

    pub(crate) fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }
}

/// One per worker. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Recorder(Rc<Shared>);

impl Recorder {
    pub(crate) fn new(shared: Shared) -> Self {
        Self(Rc::new(shared))
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    /// Starts the record of an accepted connection, which counts as open until
    /// the last clone is gone.
    pub(crate) fn connection(
        &self,
        side: Side,
        from: PeerAddr,
        to: impl Into<Option<OrigDst>>,
    ) -> ConnectionRecord {
        self.0.metrics.connections.opened(side);
        ConnectionRecord(Rc::new(Connection {
            recorder: self.clone(),
            side,
            from,
            to: to.into(),
            peer: RefCell::new(None),
            service: RefCell::new(None),
            port: Cell::new(None),
            known: RefCell::default(),
        }))
    }
}

/// One accepted connection. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct ConnectionRecord(Rc<Connection>);

#[derive(Debug)]
struct Connection {
    recorder: Recorder,
    side: Side,
    from: PeerAddr,
    /// `None`: made to our own port, or unknown.
    to: Option<OrigDst>,
    /// `None` until it is known.
    peer: RefCell<Option<Peer>>,
    service: RefCell<Option<Arc<ServicePort>>>,
    port: Cell<Option<u16>>,
    /// Series that this connection has used, most recent last.
    known: RefCell<Known>,
}

type Known = SmallVec<[(Destination, Arc<Series>); 2]>;

/// A connection rarely goes to more; then the oldest is looked up again.
const KNOWN_PER_CONNECTION: usize = 8;

/// What is known of a request when its head has arrived.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Head<'a> {
    pub(crate) method: &'a [u8],
    /// Target without scheme and authority, query included.
    pub(crate) path: &'a [u8],
    pub(crate) authority: &'a [u8],
    pub(crate) traceparent: Option<&'a [u8]>,
}

impl ConnectionRecord {
    /// Who called, once it is proved.
    pub(crate) fn peer(&self, peer: &Peer) {
        self.0.known.borrow_mut().clear();
        *self.0.peer.borrow_mut() = Some(peer.clone());
    }

    /// Outbound: the service that the original destination belongs to.
    pub(crate) fn service(&self, service: &Arc<ServicePort>) {
        self.0.known.borrow_mut().clear();
        *self.0.service.borrow_mut() = Some(Arc::clone(service));
    }

    /// Inbound: the workload's port, where the workload declares it.
    pub(crate) fn port(&self, port: u16) {
        self.0.known.borrow_mut().clear();
        self.0.port.set(Some(port));
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        self.0.recorder.metrics()
    }

    pub(crate) fn request(&self, head: &Head<'_>) -> Record {
        let mut record = Record::start(self, Kind::Http);
        record.trace = head.traceparent.and_then(TraceId::from_traceparent);
        if !self.0.recorder.0.log.is_off() {
            record.text = Some(Box::new(line::Text::new(head)));
        }
        record
    }

    /// For opaque bytes, and for what fails before anything is known.
    pub(crate) fn opaque(&self) -> Record {
        Record::start(self, Kind::Opaque)
    }
}

impl Connection {
    fn series(&self, rule: Option<&Arc<Rule>>, backend: Option<&Arc<Backend>>) -> Arc<Series> {
        let mut known = self.known.borrow_mut();
        if let Some((_, series)) = known
            .iter()
            .find(|(destination, _)| destination.is(rule, backend))
        {
            return Arc::clone(series);
        }
        let labels = Labels::new(
            self.side,
            self.service.borrow().as_deref(),
            self.port.get(),
            rule.map(|rule| &rule.route),
            backend.map(AsRef::as_ref),
            self.peer.borrow().as_ref(),
        );
        let series = self.recorder.0.traffic.series(labels);
        if known.len() == KNOWN_PER_CONNECTION {
            known.remove(0);
        }
        let destination = Destination {
            rule: rule.map(|rule| Arc::clone(&rule.cells)),
            backend: backend.map(|backend| Arc::clone(&backend.cells)),
        };
        known.push((destination, Arc::clone(&series)));
        series
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.recorder.0.metrics.connections.closed(self.side);
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Http,
    Opaque,
}

/// One request, or one opaque connection.
#[derive(Debug)]
#[must_use = "dropping it says that the caller left"]
pub(crate) struct Record {
    connection: ConnectionRecord,
    kind: Kind,
    started: Instant,
    first_byte: Option<Duration>,
    text: Option<Box<line::Text>>,
    trace: Option<TraceId>,
    rule: Option<Arc<Rule>>,
    series: Option<Arc<Series>>,
    endpoint: Option<Arc<Endpoint>>,
    policy: Option<Arc<str>>,
    attempts: u32,
    not_retried: Option<NotRetried>,
    status: Option<u16>,
    grpc_status: Option<u8>,
    received: u64,
    sent: u64,
    outcome: Option<Outcome>,
}

impl Record {
    fn start(connection: &ConnectionRecord, kind: Kind) -> Self {
        Self {
            connection: connection.clone(),
            kind,
            started: Instant::now(),
            first_byte: None,
            text: None,
            trace: None,
            rule: None,
            series: None,
            endpoint: None,
            policy: None,
            attempts: 0,
            not_retried: None,
            status: None,
            grpc_status: None,
            received: 0,
            sent: 0,
            outcome: None,
        }
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        self.connection.metrics()
    }

    /// Where it goes: the rule that matched, if any, and the backend chosen.
    pub(crate) fn planned(&mut self, rule: Option<&Arc<Rule>>, backend: &Arc<Backend>) {
        self.series = Some(self.connection.0.series(rule, Some(backend)));
        self.rule = rule.cloned();
    }

    /// The policy that refused it, or allowed it.
    pub(crate) fn judged_by(&mut self, policy: &Arc<str>) {
        self.policy = Some(Arc::clone(policy));
    }

    /// It is sent, or sent again, to `endpoint`.
    pub(crate) fn attempt(&mut self, endpoint: &Arc<Endpoint>) {
        self.attempts = self.attempts.saturating_add(1);
        self.endpoint = Some(Arc::clone(endpoint));
        self.series().attempted();
    }

    /// The attempt failed and another follows.
    pub(crate) fn retried(&mut self, why: Retried) {
        self.series().retried(why);
    }

    /// The attempt failed and no other follows.
    pub(crate) fn not_retried(&mut self, why: NotRetried) {
        self.not_retried = Some(why);
        self.series().not_retried(why);
    }

    /// Final status that the caller gets, the application's or a fault's.
    pub(crate) fn status(&mut self, status: u16) {
        self.status = Some(status);
    }

    pub(crate) fn grpc_status(&mut self, status: u8) {
        self.grpc_status = Some(status);
    }

    /// The answer began.
    pub(crate) fn first_byte(&mut self) {
        self.first_byte
            .get_or_insert_with(|| self.started.elapsed());
    }

    /// Body bytes from the caller.
    pub(crate) fn received(&mut self, bytes: u64) {
        self.received = self.received.saturating_add(bytes);
    }

    /// Body bytes to the caller.
    pub(crate) fn sent(&mut self, bytes: u64) {
        self.sent = self.sent.saturating_add(bytes);
    }

    pub(crate) fn finish(mut self, outcome: Outcome) {
        self.outcome = Some(outcome);
    }

    /// What nobody finished was dropped: with its caller, or by a proxy that
    /// stops and whose grace is over.
    fn outcome(&self) -> Outcome {
        let connection = &self.connection.0;
        let dropped = match connection.recorder.0.phase.phase() {
            Phase::Serving | Phase::Draining => Outcome::CallerLeft,
            Phase::Stopping => Outcome::Faulted(Reason::ShuttingDown.at(connection.side)),
        };
        self.outcome.unwrap_or(dropped)
    }

    /// The planned destination's; before a plan, the connection's.
    fn series(&mut self) -> &Arc<Series> {
        self.series
            .get_or_insert_with(|| self.connection.0.series(None, None))
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let took = self.started.elapsed();
        let (kind, outcome, status, grpc) =
            (self.kind, self.outcome(), self.status, self.grpc_status);
        let (received, sent) = (self.received, self.sent);
        let series = self.series();
        series.bytes(received, sent);
        match kind {
            Kind::Http => series.request_ended(outcome, status, grpc, took),
            Kind::Opaque => series.connection_ended(outcome),
        }
        let shared = &self.connection.0.recorder.0;
        if shared.log.wants(line::is_error(self)) {
            shared
                .log
                .write(line::render(self, shared.wall.now(), took));
        }
    }
}

#[cfg(test)]
mod tests;

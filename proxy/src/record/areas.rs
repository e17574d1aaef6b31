//! Metrics of everything that is not a request: a struct per area, a field per metric.
//!
//! Modules that do the work count on the fields; all are lock-free except
//! where a field's type says otherwise. `app` registers them once.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use prometheus_client::{
    collector::Collector,
    encoding::DescriptorEncoder,
    metrics::{MetricType, counter::Counter, gauge::Gauge},
};
use tokio::time::Instant;

use crate::{
    clock::Epoch,
    outcome::{Reason, Side},
    telemetry::{Area, Registry, metric::Tally},
};

#[derive(Debug)]
pub(crate) struct Metrics {
    pub(crate) connections: Connections,
    pub(crate) outbound: Outbound,
    pub(crate) inbound: Inbound,
    pub(crate) detect: Detect,
    pub(crate) tls: Tls,
    pub(crate) pool: Pool,
    pub(crate) breaker: Breaker,
    pub(crate) discovery: Discovery,
    pub(crate) identity: Identity,
}

impl Metrics {
    pub(crate) fn register(registry: &mut Registry) -> Self {
        Self {
            connections: Connections::register(&mut registry.area("connections")),
            outbound: Outbound::register(&mut registry.area("outbound")),
            inbound: Inbound::register(&mut registry.area("inbound")),
            detect: Detect::register(&mut registry.area("detect")),
            tls: Tls::register(&mut registry.area("tls")),
            pool: Pool::register(&mut registry.area("pool")),
            breaker: Breaker::register(&mut registry.area("breaker")),
            discovery: Discovery::register(&mut registry.area("discovery")),
            identity: Identity::register(&mut registry.area("identity")),
        }
    }
}

/// Accepted connections.
#[derive(Debug)]
pub(crate) struct Connections {
    accepted: Tally,
    outbound_open: Gauge,
    inbound_open: Gauge,
    /// Closed at once: the limit on connections was reached.
    pub(crate) refused: Counter,
}

impl Connections {
    fn register(area: &mut Area<'_>) -> Self {
        Self {
            accepted: area.register(
                "accepted",
                "Connections accepted, by side",
                Tally::new("side", &SIDES),
            ),
            outbound_open: area.register(
                "outbound_open",
                "Connections of our workload that are open",
                Gauge::default(),
            ),
            inbound_open: area.register(
                "inbound_open",
                "Connections to our workload that are open",
                Gauge::default(),
            ),
            refused: area.register(
                "refused",
                "Connections closed at once because WEFT_MAX_CONNECTIONS was reached",
                Counter::default(),
            ),
        }
    }

    pub(super) fn opened(&self, side: Side) {
        self.accepted.inc(side.as_str());
        self.open(side).inc();
    }

    pub(super) fn closed(&self, side: Side) {
        self.open(side).dec();
    }

    fn open(&self, side: Side) -> &Gauge {
        match side {
            Side::Outbound => &self.outbound_open,
            Side::Inbound => &self.inbound_open,
        }
    }
}

const SIDES: [&str; 2] = ["outbound", "inbound"];

#[derive(Debug)]
pub(crate) struct Outbound {
    /// What original destinations meant; `service`, `workload`, `unmeshed`,
    /// `unknown`, `outside` (the mesh's ranges: never asked) or `unanswered`.
    pub(crate) meanings: Tally,
}

impl Outbound {
    fn register(area: &mut Area<'_>) -> Self {
        const MEANINGS: [&str; 6] = [
            "service",
            "workload",
            "unmeshed",
            "unknown",
            "outside",
            "unanswered",
        ];
        Self {
            meanings: area.register(
                "meanings",
                "Connections of our workload, by what their original destination means",
                Tally::new("meaning", &MEANINGS),
            ),
        }
    }
}

#[derive(Debug)]
pub(crate) struct Inbound {
    /// A permissive port took a connection without mutual TLS.
    pub(crate) plaintext: Counter,
}

impl Inbound {
    fn register(area: &mut Area<'_>) -> Self {
        Self {
            plaintext: area.register(
                "plaintext_accepted",
                "Connections without mutual TLS that a permissive port accepted",
                Counter::default(),
            ),
        }
    }
}

#[derive(Debug)]
pub(crate) struct Detect {
    /// `http1`, `http2`, `tls`, `opaque`, `server-first`, `configured` or `closed`.
    pub(crate) verdicts: Tally,
    /// Connections dialled before anyone had spoken.
    pub(crate) speculative: Counter,
    /// Of those, dropped because the client then spoke HTTP.
    pub(crate) speculative_unused: Counter,
}

impl Detect {
    fn register(area: &mut Area<'_>) -> Self {
        const VERDICTS: [&str; 7] = [
            "http1",
            "http2",
            "tls",
            "opaque",
            "server-first",
            "configured",
            "closed",
        ];
        Self {
            verdicts: area.register(
                "verdicts",
                "Connections, by the protocol that their first bytes showed",
                Tally::new("verdict", &VERDICTS),
            ),
            speculative: area.register(
                "speculative_dials",
                "Connections dialled before either side had spoken",
                Counter::default(),
            ),
            speculative_unused: area.register(
                "speculative_unused",
                "Speculative connections dropped because the client then spoke HTTP",
                Counter::default(),
            ),
        }
    }
}

#[derive(Debug)]
pub(crate) struct Tls {
    /// Handshakes that we accepted: `ok` or the name of a `Reason`.
    pub(crate) accepted: Tally,
    /// Handshakes that we began: the same.
    pub(crate) connected: Tally,
}

impl Tls {
    /// What a handshake can end in.
    pub(crate) const RESULTS: [&str; 8] = [
        "ok",
        Reason::TlsHandshake.as_str(),
        Reason::PeerUntrusted.as_str(),
        Reason::PeerExpired.as_str(),
        Reason::PeerIdentityMismatch.as_str(),
        Reason::CertificateRefused.as_str(),
        Reason::CertificateMissing.as_str(),
        "timeout",
    ];

    fn register(area: &mut Area<'_>) -> Self {
        Self {
            accepted: area.register(
                "accepted_handshakes",
                "Handshakes of callers, by result",
                Tally::new("result", &Self::RESULTS),
            ),
            connected: area.register(
                "connected_handshakes",
                "Handshakes with endpoints, by result",
                Tally::new("result", &Self::RESULTS),
            ),
        }
    }
}

#[derive(Debug)]
pub(crate) struct Pool {
    /// Connections to endpoints that are open, idle ones included.
    pub(crate) open: Gauge,
    /// HTTP/1 lanes that are open in mesh connections.
    pub(crate) lanes: Gauge,
    /// `new`, `reused`.
    pub(crate) checkouts: Tally,
    /// `idle`, `age`, `peer`, `error`, `certificate`, `removed` or `drain`.
    pub(crate) closed: Tally,
}

impl Pool {
    fn register(area: &mut Area<'_>) -> Self {
        const CAUSES: [&str; 7] = [
            "idle",
            "age",
            "peer",
            "error",
            "certificate",
            "removed",
            "drain",
        ];
        Self {
            open: area.register("connections_open", "Connections to endpoints that are open", Gauge::default()),
            lanes: area.register("lanes_open", "HTTP/1 lanes open in mesh connections", Gauge::default()),
            checkouts: area.register(
                "checkouts",
                "Times that a connection or lane was taken for a request, by whether it was a new one",
                Tally::new("kind", &["new", "reused"]),
            ),
            closed: area.register(
                "closed",
                "Connections to endpoints that were closed, by why",
                Tally::new("cause", &CAUSES),
            ),
        }
    }
}

#[derive(Debug)]
pub(crate) struct Breaker {
    /// `ejected`, `probing`, `returned`, `spared`: the last endpoint, or the
    /// permitted fraction is out already.
    pub(crate) transitions: Tally,
}

impl Breaker {
    fn register(area: &mut Area<'_>) -> Self {
        Self {
            transitions: area.register(
                "transitions",
                "Endpoints that the breaker ejected, probed, took back or spared",
                Tally::new("to", &["ejected", "probing", "returned", "spared"]),
            ),
        }
    }
}

/// The stream from the control plane. Beside the path: targets are behind a lock.
#[derive(Debug)]
pub(crate) struct Discovery {
    /// 1 while the stream stands.
    pub(crate) connected: Gauge,
    pub(crate) reconnects: Counter,
    pub(crate) applied: Counter,
    /// Resources that we could not accept.
    pub(crate) rejected: Counter,
    /// Fields that a newer control plane sent and that we ignore.
    pub(crate) unknown_fields: Counter,
    /// Questions without an answer within the bounded wait.
    pub(crate) unanswered: Counter,
    ages: Arc<Ages>,
}

impl Discovery {
    fn register(area: &mut Area<'_>) -> Self {
        let ages = Arc::new(Ages {
            epoch: Epoch::start(),
            confirmed: Mutex::default(),
        });
        area.describe(AGE, AGE_HELP, MetricType::Gauge);
        area.collector(Box::new(Arc::clone(&ages)));
        Self {
            connected: area.register(
                "connected",
                "1 while the stream from the control plane stands",
                Gauge::default(),
            ),
            reconnects: area.register(
                "reconnects",
                "Times that the stream was opened again",
                Counter::default(),
            ),
            applied: area.register(
                "applied_resources",
                "Resources taken into a snapshot",
                Counter::default(),
            ),
            rejected: area.register(
                "rejected_resources",
                "Resources refused with a reason",
                Counter::default(),
            ),
            unknown_fields: area.register(
                "unknown_fields",
                "Fields of a newer control plane that were ignored",
                Counter::default(),
            ),
            unanswered: area.register(
                "unanswered_questions",
                "Addresses that the control plane did not explain in time",
                Counter::default(),
            ),
            ages,
        }
    }

    /// The control plane has just said that our `kind` of `target` is current.
    /// `kind` is that of a resource, `target` the name of a configured object.
    pub(crate) fn confirmed(&self, kind: &'static str, target: &str) {
        let now = self.ages.epoch.milliseconds(Instant::now());
        let mut confirmed = self
            .ages
            .confirmed
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match confirmed.get(&(kind, target.into())) {
            Some(at) => at.store(now, Ordering::Relaxed),
            None => {
                confirmed.insert((kind, target.into()), AtomicU64::new(now));
            }
        }
    }

    /// We subscribe to it no longer.
    pub(crate) fn forgotten(&self, kind: &'static str, target: &str) {
        let mut confirmed = self
            .ages
            .confirmed
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        confirmed.remove(&(kind, target.into()));
    }
}

const AGE: &str = "age_seconds";
const AGE_HELP: &str = "Time since the control plane last confirmed what we hold";

#[derive(Debug)]
struct Ages {
    epoch: Epoch,
    confirmed: Mutex<HashMap<(&'static str, Box<str>), AtomicU64>>,
}

impl Collector for Ages {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let now = self.epoch.milliseconds(Instant::now());
        let confirmed = self
            .confirmed
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let mut metric = encoder.encode_descriptor(AGE, AGE_HELP, None, MetricType::Gauge)?;
        for ((kind, target), at) in confirmed.iter() {
            let age = now.saturating_sub(at.load(Ordering::Relaxed));
            let labels = [("kind", *kind), ("target", target.as_ref())];
            #[allow(
                clippy::cast_precision_loss,
                reason = "an age in milliseconds is far below 2^52"
            )]
            metric
                .encode_family(&labels)?
                .encode_gauge(&(age as f64 / 1000.0))?;
        }
        Ok(())
    }
}

/// Our own certificate and the roots that we trust.
#[derive(Debug)]
pub(crate) struct Identity {
    /// Seconds since the Unix epoch; 0 while there is none.
    pub(crate) certificate_expiry: Gauge,
    pub(crate) renewals: Counter,
    pub(crate) failures: Counter,
    pub(crate) trusted_roots: Gauge,
}

impl Identity {
    fn register(area: &mut Area<'_>) -> Self {
        Self {
            certificate_expiry: area.register(
                "certificate_expiry_seconds",
                "When our certificate ends, in seconds since the Unix epoch; 0 while there is none",
                Gauge::default(),
            ),
            renewals: area.register("renewals", "Certificates received", Counter::default()),
            failures: area.register(
                "renewal_failures",
                "Requests for a certificate that failed",
                Counter::default(),
            ),
            trusted_roots: area.register(
                "trusted_roots",
                "Roots in the trust bundle",
                Gauge::default(),
            ),
        }
    }
}

//! Metrics of everything that is not a request: a struct per area, a field per metric.
//!
//! Modules that do the work count on the fields, all of them lock-free.
//! `app` registers them once. What can be seen at a scrape is not counted here
//! but looked up then, by `state`.

use prometheus_client::metrics::{counter::Counter, gauge::Gauge};

use crate::{
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
    pub(crate) mirror: Mirror,
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
            mirror: Mirror::register(&mut registry.area("mirror")),
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
    pub(crate) const RESULTS: [&str; 7] = [
        "ok",
        Reason::TlsHandshake.as_str(),
        Reason::PeerUntrusted.as_str(),
        Reason::PeerExpired.as_str(),
        Reason::PeerIdentityMismatch.as_str(),
        Reason::CertificateRefused.as_str(),
        Reason::CertificateMissing.as_str(),
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
    /// `idle`, `peer`, `error`, `certificate`, `removed` or `limit`.
    pub(crate) closed: Tally,
}

impl Pool {
    fn register(area: &mut Area<'_>) -> Self {
        const CAUSES: [&str; 6] = ["idle", "peer", "error", "certificate", "removed", "limit"];
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
    /// To `in`, `ejected` or `probing`.
    pub(crate) transitions: Tally,
}

impl Breaker {
    fn register(area: &mut Area<'_>) -> Self {
        Self {
            transitions: area.register(
                "transitions",
                "Endpoints that the breaker ejected, probed or took back in, by the state that they went to",
                Tally::new("to", &["in", "ejected", "probing"]),
            ),
        }
    }
}

#[derive(Debug)]
pub(crate) struct Mirror {
    /// `answered`, or why not.
    pub(crate) requests: Tally,
}

impl Mirror {
    fn register(area: &mut Area<'_>) -> Self {
        const RESULTS: [&str; 8] = [
            "answered",
            "failed",
            "timed-out",
            "too-large",
            "incomplete",
            "busy",
            "upgrade",
            "invalid",
        ];
        Self {
            requests: area.register(
                "requests",
                "Copies of requests that a route's mirrors were owed, by what became of each",
                Tally::new("result", &RESULTS),
            ),
        }
    }
}

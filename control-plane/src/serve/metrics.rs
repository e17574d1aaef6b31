//! What `serve` counts, under `weft_control_plane_`: `weft_control_`
//! is what a proxy says of its control plane.
//!
//! Registered in `app`. Labels are enums: nothing that a caller sent.

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    pub(crate) connections: Gauge,
    pub(crate) refused: Family<Refused, Counter>,
    pub(crate) streams: Gauge,
    pub(crate) streams_refused: Counter,
    pub(crate) resources: Gauge,
    pub(crate) pushes: Counter,
    pub(crate) pushed_bytes: Counter,
    pub(crate) rejects: Counter,
    pub(crate) ended: Family<Ended, Counter>,
    pub(crate) certificates: Counter,
    pub(crate) certificates_refused: Family<CertificateRefused, Counter>,
    pub(crate) propagation: Histogram,
    pub(crate) problems: Gauge,
    pub(crate) unknown_fields: Counter,
}

/// A connection that came to nothing.
#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
pub(crate) struct Refused {
    pub(crate) reason: Reason,
}

/// A stream's end.
#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
pub(crate) struct Ended {
    pub(crate) reason: Reason,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
pub(crate) struct CertificateRefused {
    pub(crate) reason: Reason,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Reason {
    TooMany,
    Handshake,
    HandshakeTimeout,
    PeerIdentity,
    Left,
    Silent,
    CertificateExpired,
    RootRemoved,
    Revoked,
    Going,
    Protocol,
    NotReady,
    Token,
    Unverifiable,
    Pod,
    Account,
    Request,
}

impl Reason {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::TooMany => "too-many",
            Self::Handshake => "handshake",
            Self::HandshakeTimeout => "handshake-timeout",
            Self::PeerIdentity => "peer-identity",
            Self::Left => "left",
            Self::Silent => "silent",
            Self::CertificateExpired => "certificate-expired",
            Self::RootRemoved => "root-removed",
            Self::Revoked => "revoked",
            Self::Going => "going",
            Self::Protocol => "protocol",
            Self::NotReady => "not-ready",
            Self::Token => "token",
            Self::Unverifiable => "unverifiable",
            Self::Pod => "pod",
            Self::Account => "account",
            Self::Request => "request",
        }
    }
}

impl EncodeLabelValue for Reason {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        EncodeLabelValue::encode(&self.as_str(), encoder)
    }
}

/// From a push within a process to a proxy that was asleep; seconds.
const PROPAGATION: [f64; 12] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0,
];

impl Metrics {
    pub(crate) fn new() -> Self {
        Self {
            connections: Gauge::default(),
            refused: Family::default(),
            streams: Gauge::default(),
            streams_refused: Counter::default(),
            resources: Gauge::default(),
            pushes: Counter::default(),
            pushed_bytes: Counter::default(),
            rejects: Counter::default(),
            ended: Family::default(),
            certificates: Counter::default(),
            certificates_refused: Family::default(),
            propagation: Histogram::new(PROPAGATION),
            problems: Gauge::default(),
            unknown_fields: Counter::default(),
        }
    }

    pub(crate) fn register(&self, registry: &mut Registry) {
        let control = registry.sub_registry_with_prefix("weft_control_plane");
        control.register("connections", "Open connections", self.connections.clone());
        control.register(
            "connections_refused",
            "Connections that came to nothing",
            self.refused.clone(),
        );
        control.register("streams", "Proxies that watch", self.streams.clone());
        control.register(
            "streams_refused",
            "Streams whose caller was not who it had to be",
            self.streams_refused.clone(),
        );
        control.register(
            "resources",
            "Resources that some proxy subscribes to",
            self.resources.clone(),
        );
        control.register(
            "pushes",
            "Responses sent, heartbeats included",
            self.pushes.clone(),
        );
        control.register(
            "pushed_bytes",
            "Bytes of responses sent",
            self.pushed_bytes.clone(),
        );
        control.register(
            "rejects",
            "Resources that a proxy rejected",
            self.rejects.clone(),
        );
        control.register("streams_ended", "Ends of streams", self.ended.clone());
        control.register(
            "certificates",
            "Certificates issued",
            self.certificates.clone(),
        );
        control.register(
            "certificates_refused",
            "Certificates refused",
            self.certificates_refused.clone(),
        );
        let help = "From a change until a proxy has applied it";
        control.register("propagation_seconds", help, self.propagation.clone());
        control.register(
            "problems",
            "Objects and files that can't hold as they are",
            self.problems.clone(),
        );
        control.register(
            "unknown_fields",
            "Fields that came and were ignored, since a proxy is newer than this control plane",
            self.unknown_fields.clone(),
        );
    }

    pub(crate) fn refuse(&self, reason: Reason) {
        self.refused.get_or_create(&Refused { reason }).inc();
    }

    pub(crate) fn end(&self, reason: Reason) {
        self.ended.get_or_create(&Ended { reason }).inc();
    }

    pub(crate) fn refuse_certificate(&self, reason: Reason) {
        self.certificates_refused
            .get_or_create(&CertificateRefused { reason })
            .inc();
    }
}

//! Declares each knob of the proxy: its name, form, default, and why that default.
//!
//! `config` reads them; `docs/configuration.md` is made of them and a test
//! holds the two together. A knob that is declared and never read, or read
//! twice, fails a test of `config`. Over budget: a table, whose rows are long.

/// How a knob's text is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Text,
    Path,
    Address,
    Duration,
    DurationOrNone,
    Bytes,
    Count,
    NumberOrNone,
    LogFilter,
    LogFormat,
    AccessLog,
    Probes,
    Page,
}

impl Kind {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Path => "a path",
            Self::Address => "an address and port such as 0.0.0.0:15001",
            Self::Duration => "a duration such as 5ms, 30s, 10m or 24h",
            Self::DurationOrNone => "a duration such as 30s, or none",
            Self::Bytes => "a number of bytes",
            Self::Count => "a whole number",
            Self::NumberOrNone => "a whole number, or none",
            Self::LogFilter => "a log filter such as info or info,weft_proxy=debug",
            Self::LogFormat => "text or json",
            Self::AccessLog => "off, errors or all",
            Self::Page => "a port and a path such as 9090/metrics, or empty",
            Self::Probes => "JSON, as in the annotation `weft.dev/probes`",
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Knob {
    /// Of the environment variable.
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    /// `None`: it must be set.
    pub(crate) default: Option<&'static str>,
    pub(crate) help: &'static str,
    /// Why this default.
    pub(crate) why: &'static str,
}

// Who we are.

pub(super) const POD_NAMESPACE: Knob = Knob {
    name: "WEFT_POD_NAMESPACE",
    kind: Kind::Text,
    default: None,
    help: "Namespace of the pod that this proxy serves",
    why: "The injector or `weft run` knows it; no guess is safe.",
};

pub(super) const POD_NAME: Knob = Knob {
    name: "WEFT_POD_NAME",
    kind: Kind::Text,
    default: None,
    help: "Name of the pod that this proxy serves",
    why: "The injector or `weft run` knows it; no guess is safe.",
};

pub(super) const POD_UID: Knob = Knob {
    name: "WEFT_POD_UID",
    kind: Kind::Text,
    default: Some(""),
    help: "UID of the pod; empty where the namespace and name say enough",
    why: "A Kubernetes pod has one; the files source makes do without.",
};

pub(super) const SERVICE_ACCOUNT: Knob = Knob {
    name: "WEFT_SERVICE_ACCOUNT",
    kind: Kind::Text,
    default: Some("default"),
    help: "Service account of the pod: the identity that its certificate carries",
    why: "What Kubernetes gives a pod that names none.",
};

pub(super) const MAX_SUBSCRIPTIONS: Knob = Knob {
    name: "WEFT_MAX_SUBSCRIPTIONS",
    kind: Kind::Count,
    default: Some("10000"),
    help: "Addresses that are kept up to date at once; the longest unused one goes first",
    why: "Far above what one pod calls; a scan of the mesh's ranges stays bounded.",
};

pub(super) const TRUST_DOMAIN: Knob = Knob {
    name: "WEFT_TRUST_DOMAIN",
    kind: Kind::Text,
    default: Some("cluster.local"),
    help: "SPIFFE trust domain of the mesh",
    why: "What the control plane uses unless told otherwise.",
};

// Control plane.

pub(super) const CONTROL_ADDRESS: Knob = Knob {
    name: "WEFT_CONTROL_ADDRESS",
    kind: Kind::Text,
    default: None,
    help: "Control plane, as host:port",
    why: "It differs in every installation.",
};

pub(super) const TOKEN_FILE: Knob = Knob {
    name: "WEFT_TOKEN_FILE",
    kind: Kind::Path,
    default: Some("/var/run/secrets/weft/token"),
    help: "Service-account token that proves who we are; read again for each use",
    why: "Where the injector mounts the projected token.",
};

pub(super) const TRUST_BUNDLE_FILE: Knob = Knob {
    name: "WEFT_TRUST_BUNDLE_FILE",
    kind: Kind::Path,
    default: Some("/var/run/weft/trust-bundle/ca.pem"),
    help: "Roots that the control plane's certificate must chain to, until newer ones come over the stream; a change is noticed, and adds to them for the control plane alone",
    why: "Where the injector mounts the bundle. What was streamed is kept in the state directory and preferred at a restart; whom pods trust is the control plane's word alone.",
};

pub(super) const STATE_DIR: Knob = Knob {
    name: "WEFT_STATE_DIR",
    kind: Kind::Path,
    default: Some("/var/run/weft/state"),
    help: "Directory for certificate, key, trust bundle and configuration over a restart",
    why: "An emptyDir of the pod: it ends with the pod, as the identity does.",
};

pub(super) const ASK_TIMEOUT: Knob = Knob {
    name: "WEFT_ASK_TIMEOUT",
    kind: Kind::Duration,
    default: Some("2s"),
    help: "How long a connection waits to learn what its destination is",
    why: "Longer than a reconnect to another replica, shorter than common client timeouts.",
};

pub(super) const SUBSCRIPTION_IDLE: Knob = Knob {
    name: "WEFT_SUBSCRIPTION_IDLE",
    kind: Kind::Duration,
    default: Some("10m"),
    help: "A destination that nothing used for so long is watched no longer",
    why: "Long enough for periodic jobs, short enough for memory to follow what is really called.",
};

// Listeners.

pub(super) const OUTBOUND_LISTEN: Knob = Knob {
    name: "WEFT_OUTBOUND_LISTEN",
    kind: Kind::Address,
    default: Some("[::]:15001"),
    help: "Where the redirected connections of our workload arrive",
    why: "Fixed port of the mesh; `[::]` takes both families.",
};

pub(super) const INBOUND_LISTEN: Knob = Knob {
    name: "WEFT_INBOUND_LISTEN",
    kind: Kind::Address,
    default: Some("[::]:15006"),
    help: "Where the redirected connections to our workload arrive",
    why: "Fixed port of the mesh; `[::]` takes both families.",
};

pub(super) const METRICS_LISTEN: Knob = Knob {
    name: "WEFT_METRICS_LISTEN",
    kind: Kind::Address,
    default: Some("[::]:15020"),
    help: "Prometheus metrics, and nothing else",
    why: "Prometheus scrapes from outside of the pod; `[::]` takes both families.",
};

pub(super) const HEALTH_LISTEN: Knob = Knob {
    name: "WEFT_HEALTH_LISTEN",
    kind: Kind::Address,
    default: Some("[::]:15021"),
    help: "Liveness and readiness, of the proxy and of the application",
    why: "The kubelet asks from outside of the pod; `[::]` takes both families.",
};

pub(super) const PROBES: Knob = Knob {
    name: "WEFT_PROBES",
    kind: Kind::Probes,
    default: Some(""),
    help: "Probes and hooks of the application that the health port carries out",
    why: "The injector knows them; without it nothing is rewritten.",
};

pub(super) const APPLICATION_METRICS: Knob = Knob {
    name: "WEFT_APPLICATION_METRICS",
    kind: Kind::Page,
    default: Some(""),
    help: "The application's own metrics, which the metrics port serves at /application/metrics",
    why: "It answers whoever reaches the port, whatever policy says: only where somebody asks for it.",
};

pub(super) const DEBUG_LISTEN: Knob = Knob {
    name: "WEFT_DEBUG_LISTEN",
    kind: Kind::Address,
    default: Some("127.0.0.1:15022"),
    help: "Dump of what the proxy knows",
    why: "Loopback alone: it names every destination.",
};

pub(super) const ADMIN_SOCKET: Knob = Knob {
    name: "WEFT_ADMIN_SOCKET",
    kind: Kind::Path,
    default: Some("/var/run/weft/admin.sock"),
    help: "Unix socket that takes the drain command",
    why: "File permissions guard what changes state; TCP can't (server-side request forgery).",
};

pub(super) const MAX_CONNECTIONS: Knob = Knob {
    name: "WEFT_MAX_CONNECTIONS",
    kind: Kind::Count,
    default: Some("20000"),
    help: "Most accepted connections at a time, both sides together; more are closed at once",
    why: "Each takes up to about 12 KB: 240 MB, below common memory limits' order of magnitude.",
};

pub(super) const WORKERS: Knob = Knob {
    name: "WEFT_WORKERS",
    kind: Kind::Count,
    default: Some("1"),
    help: "Threads that carry traffic",
    why: "A sidecar is small, and one worker keeps pools whole.",
};

// Sockets.

pub(super) const PROXY_MARK: Knob = Knob {
    name: "WEFT_PROXY_MARK",
    kind: Kind::NumberOrNone,
    default: Some("none"),
    help: "Packet mark of the proxy's own connections",
    why: "Only needed where a user namespace has a single uid, so that the redirection can't go by uid.",
};

pub(super) const KEEPALIVE: Knob = Knob {
    name: "WEFT_KEEPALIVE",
    kind: Kind::Duration,
    default: Some("30s"),
    help: "TCP keep-alive: idle time before the first probe, and between probes",
    why: "Finds dead peers within two minutes, on both legs, at a negligible cost.",
};

pub(super) const USER_TIMEOUT: Knob = Knob {
    name: "WEFT_USER_TIMEOUT",
    kind: Kind::Duration,
    default: Some("60s"),
    help: "TCP_USER_TIMEOUT: sent bytes that nobody acknowledged for so long end the connection",
    why: "Longer than a switch-over of a node's network, shorter than the kernel's 15 minutes.",
};

// Detection and TLS.

pub(super) const CLIENT_SILENCE: Knob = Knob {
    name: "WEFT_CLIENT_SILENCE",
    kind: Kind::Duration,
    default: Some("5ms"),
    help: "After so much silence of the client an endpoint is dialled, so that the server can speak first",
    why: "Below the 20 ms that server-first protocols may lose, above the time that a client needs to send its first bytes.",
};

pub(super) const HANDSHAKE_TIMEOUT: Knob = Knob {
    name: "WEFT_HANDSHAKE_TIMEOUT",
    kind: Kind::Duration,
    default: Some("10s"),
    help: "A TLS handshake of a caller must end within",
    why: "Generous for a busy node; bounds what a silent peer holds.",
};

// HTTP.

pub(super) const MAX_HEADER_BYTES: Knob = Knob {
    name: "WEFT_MAX_HEADER_BYTES",
    kind: Kind::Bytes,
    default: Some("65536"),
    help: "Longest header section, requests and responses, trailers too",
    why: "Large cookies and tokens fit; the same on all legs, so that no leg mangles what another took.",
};

pub(super) const MAX_HEADERS: Knob = Knob {
    name: "WEFT_MAX_HEADERS",
    kind: Kind::Count,
    default: Some("256"),
    help: "Most fields in a header section",
    why: "Applications use dozens; the limit bounds work, not them.",
};

pub(super) const MAX_TARGET_BYTES: Knob = Knob {
    name: "WEFT_MAX_TARGET_BYTES",
    kind: Kind::Bytes,
    default: Some("16384"),
    help: "Longest request target",
    why: "Twice what common servers take.",
};

pub(super) const HEADER_TIMEOUT: Knob = Knob {
    name: "WEFT_HEADER_TIMEOUT",
    kind: Kind::Duration,
    default: Some("30s"),
    help: "A begun header section, or HTTP/2 frame other than DATA, must be complete within",
    why: "Slow clients finish; a slowloris doesn't hold a connection for long.",
};

pub(super) const KEEP_ALIVE_TIMEOUT: Knob = Knob {
    name: "WEFT_KEEP_ALIVE_TIMEOUT",
    kind: Kind::DurationOrNone,
    default: Some("none"),
    help: "How long an idle connection of a caller is kept",
    why: "The application's own proxy must not close what the application thinks is open.",
};

pub(super) const MAX_STREAMS: Knob = Knob {
    name: "WEFT_MAX_STREAMS",
    kind: Kind::Count,
    default: Some("256"),
    help: "Most concurrent HTTP/2 streams of one connection",
    why: "Go and Java servers allow about as many; a mesh connection that needs more gets a second one.",
};

pub(super) const STREAM_WINDOW: Knob = Knob {
    name: "WEFT_STREAM_WINDOW",
    kind: Kind::Bytes,
    default: Some("262144"),
    help: "HTTP/2 flow-control window of a stream",
    why: "Inside a cluster: 2 Gbit/s at a round trip of 1 ms; and all streams fit the connection's.",
};

pub(super) const CONNECTION_WINDOW: Knob = Knob {
    name: "WEFT_CONNECTION_WINDOW",
    kind: Kind::Bytes,
    default: Some("67108864"),
    help: "HTTP/2 flow-control window of a connection; memory that its slow readers can hold at most",
    why: "All 256 streams full at once: slow readers of some never stall the others.",
};

pub(super) const MAX_PENDING_RESETS: Knob = Knob {
    name: "WEFT_MAX_PENDING_RESETS",
    kind: Kind::Count,
    default: Some("50"),
    help: "Streams that a peer may reset before we accepted them",
    why: "CVE-2023-44487; an honest client stays far below.",
};

// Pool.

pub(super) const POOL_MAX_IDLE: Knob = Knob {
    name: "WEFT_POOL_MAX_IDLE",
    kind: Kind::Count,
    default: Some("64"),
    help: "Idle connections kept per worker and endpoint",
    why: "Covers bursts; idle ones cost about 12 KB each.",
};

pub(super) const POOL_IDLE_TIMEOUT: Knob = Knob {
    name: "WEFT_POOL_IDLE_TIMEOUT",
    kind: Kind::Duration,
    default: Some("60s"),
    help: "An idle connection to an endpoint is closed after",
    why: "Between sidecars nobody closes sooner; an unmeshed server may, and a reused connection's death is replayed.",
};

// Life.

pub(super) const DRAIN_GRACE: Knob = Knob {
    name: "WEFT_DRAIN_GRACE",
    kind: Kind::Duration,
    default: Some("25s"),
    help: "After SIGTERM, what is in flight has so long to finish",
    why: "Below Kubernetes' default grace period of 30 s.",
};

// Telemetry.

pub(super) const LOG: Knob = Knob {
    name: "WEFT_LOG",
    kind: Kind::LogFilter,
    default: Some("info"),
    help: "Log filter, such as `info` or `info,weft_proxy::tls=debug`",
    why: "Life-cycle events; nothing per connection.",
};

pub(super) const LOG_FORMAT: Knob = Knob {
    name: "WEFT_LOG_FORMAT",
    kind: Kind::LogFormat,
    default: Some("json"),
    help: "Form of the log lines on standard error",
    why: "Log pipelines parse it without rules.",
};

pub(super) const ACCESS_LOG: Knob = Knob {
    name: "WEFT_ACCESS_LOG",
    kind: Kind::AccessLog,
    default: Some("errors"),
    help: "Which requests and opaque connections get a line on standard error",
    why: "A failure can be explained afterwards; traffic that goes well costs nothing.",
};

pub(super) const ACCESS_LOG_PER_SECOND: Knob = Knob {
    name: "WEFT_ACCESS_LOG_PER_SECOND",
    kind: Kind::Count,
    default: Some("100"),
    help: "Most lines a second while only errors are logged",
    why: "An outage must not become a flood of lines.",
};

pub(super) const METRIC_SERIES: Knob = Knob {
    name: "WEFT_METRIC_SERIES",
    kind: Kind::Count,
    default: Some("1000"),
    help: "Most label sets of traffic metrics; what comes after counts as `other`",
    why: "Forty destinations with 25 callers; about 2 KB each.",
};

pub(super) const METRIC_IDLE: Knob = Knob {
    name: "WEFT_METRIC_IDLE",
    kind: Kind::Duration,
    default: Some("30m"),
    help: "A label set that nothing changed for so long is forgotten",
    why: "Longer than a scrape outage; counters of departed peers go away.",
};

/// Every knob, in the order of the documents.
pub(crate) const ALL: &[Knob] = &[
    POD_NAMESPACE,
    POD_NAME,
    POD_UID,
    SERVICE_ACCOUNT,
    TRUST_DOMAIN,
    CONTROL_ADDRESS,
    TOKEN_FILE,
    TRUST_BUNDLE_FILE,
    STATE_DIR,
    ASK_TIMEOUT,
    SUBSCRIPTION_IDLE,
    MAX_SUBSCRIPTIONS,
    OUTBOUND_LISTEN,
    INBOUND_LISTEN,
    METRICS_LISTEN,
    HEALTH_LISTEN,
    PROBES,
    APPLICATION_METRICS,
    DEBUG_LISTEN,
    ADMIN_SOCKET,
    MAX_CONNECTIONS,
    WORKERS,
    PROXY_MARK,
    KEEPALIVE,
    USER_TIMEOUT,
    CLIENT_SILENCE,
    HANDSHAKE_TIMEOUT,
    MAX_HEADER_BYTES,
    MAX_HEADERS,
    MAX_TARGET_BYTES,
    HEADER_TIMEOUT,
    KEEP_ALIVE_TIMEOUT,
    MAX_STREAMS,
    STREAM_WINDOW,
    CONNECTION_WINDOW,
    MAX_PENDING_RESETS,
    POOL_MAX_IDLE,
    POOL_IDLE_TIMEOUT,
    DRAIN_GRACE,
    LOG,
    LOG_FORMAT,
    ACCESS_LOG,
    ACCESS_LOG_PER_SECOND,
    METRIC_SERIES,
    METRIC_IDLE,
];

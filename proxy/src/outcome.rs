//! How a request or connection ended: the closed list of faults and their answers.
//!
//! Data. `http` turns a fault into a response, `tcp` into a reset, `record`
//! into one log field and one label. A fault is made by the mesh; what the
//! application answers, 5xx included, never is one.

/// Which proxy speaks.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Side {
    /// The caller's proxy.
    Outbound,
    /// The called workload's proxy.
    Inbound,
}

impl Side {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Outbound => "outbound",
            Self::Inbound => "inbound",
        }
    }
}

/// What the mesh answers instead of the application, and on which side it did.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Fault {
    pub(crate) side: Side,
    pub(crate) reason: Reason,
}

macro_rules! reasons {
    ($($variant:ident $text:literal $http:literal $grpc:literal $retry:ident $proxy_status:literal $help:literal)*) => {
        /// Why. The list is closed; `docs/faults.md` documents each.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
        pub(crate) enum Reason {
            $(#[doc = $help] $variant,)*
        }

        impl Reason {
            pub(crate) const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Its name in `proxy-status`, logs, metrics and documents.
            pub(crate) const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            /// Status of the HTTP answer, where one can still be sent.
            pub(crate) const fn http_status(self) -> u16 {
                match self { $(Self::$variant => $http,)* }
            }

            /// `grpc-status` of the answer to a gRPC request.
            pub(crate) const fn grpc_status(self) -> u8 {
                match self { $(Self::$variant => $grpc,)* }
            }

            /// May the caller's proxy try another endpoint?
            pub(crate) const fn retryable(self) -> Retryable {
                match self { $(Self::$variant => Retryable::$retry,)* }
            }

            /// Its error type in RFC 9209 §2.3.
            pub(crate) const fn proxy_error(self) -> &'static str {
                match self { $(Self::$variant => $proxy_status,)* }
            }

            /// One sentence for operators.
            pub(crate) const fn help(self) -> &'static str {
                match self { $(Self::$variant => $help,)* }
            }
        }
    };
}

/// Whether a failed attempt may be made again elsewhere.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Retryable {
    /// Nothing of the request was sent: always, outside the budget.
    Unsent,
    /// Policy and method decide, inside the budget.
    ByPolicy,
    Never,
}

reasons! {
    MalformedRequest "malformed-request" 400 13 Never "http_request_error" "The request violates RFC 9112 or RFC 9113 framing or syntax."
    AmbiguousPath "ambiguous-path" 400 3 Never "http_request_denied" "The path has no single canonical form and the port has path rules."
    HeadersTooLarge "headers-too-large" 431 8 Never "http_request_error" "The request's header section exceeds the configured size or count."
    TargetTooLong "target-too-long" 414 8 Never "http_request_error" "The request target exceeds the configured length."
    HeaderTimeout "header-timeout" 408 4 Never "http_request_error" "The request's header section did not arrive in time."
    ConnectMethod "connect-method" 501 12 Never "http_request_denied" "The mesh carries no CONNECT but WebSocket over HTTP/2."
    WebsocketUnsupported "websocket-unsupported" 501 12 Never "http_upgrade_failed" "The application does not offer WebSocket over HTTP/2."
    NoRoute "no-route" 404 12 Never "destination_not_found" "Routes are attached to the service port and none matches."
    BackendInvalid "backend-invalid" 500 14 Never "proxy_configuration_error" "The chosen backend does not exist or has no such port."
    NoEndpoints "no-endpoints" 503 14 Never "destination_unavailable" "The destination has no ready endpoint."
    NoLocalEndpoints "no-local-endpoints" 503 14 Never "destination_unavailable" "The destination's internalTrafficPolicy is Local, and none of its endpoints is on this node."
    DiscoveryUnavailable "discovery-unavailable" 503 14 Never "destination_ip_unroutable" "The control plane did not say in time what the address means."
    TooManyConnections "too-many-connections" 503 8 Never "connection_limit_reached" "The limit on connections is reached."
    TooManyRequests "too-many-requests" 503 8 Never "connection_limit_reached" "The limit on requests in flight, and the pending queue, are full."
    PendingTimeout "pending-timeout" 503 8 Never "connection_limit_reached" "The request waited too long for a free slot."
    ConnectRefused "connect-refused" 503 14 Unsent "connection_refused" "The endpoint refused the connection."
    ConnectTimeout "connect-timeout" 503 14 Unsent "connection_timeout" "The endpoint did not accept the connection in time."
    ConnectUnreachable "connect-unreachable" 503 14 Unsent "destination_ip_unroutable" "The endpoint's address can't be reached."
    TlsHandshake "tls-handshake" 503 14 Unsent "tls_protocol_error" "The TLS handshake with the peer proxy broke."
    PeerUntrusted "peer-untrusted" 503 14 Unsent "tls_certificate_error" "The peer's certificate chains to no trusted root."
    PeerExpired "peer-expired" 503 14 Unsent "tls_certificate_error" "The peer's certificate is not valid at this time."
    PeerIdentityMismatch "peer-identity-mismatch" 503 14 Unsent "tls_certificate_error" "The peer's certificate names another identity than the endpoint's."
    CertificateRefused "certificate-refused" 503 14 Unsent "tls_alert_received" "The peer proxy refused our certificate."
    CertificateMissing "certificate-missing" 503 14 Never "proxy_internal_error" "This proxy has no valid certificate yet."
    PlaintextRefused "plaintext-refused" 403 7 Never "connection_terminated" "Plaintext on a port that demands mutual TLS."
    StreamRefused "stream-refused" 503 14 Unsent "connection_terminated" "The peer refused the stream before reading the request."
    UpstreamReset "upstream-reset" 502 14 ByPolicy "connection_terminated" "The connection broke before the response began."
    ResponseTruncated "response-truncated" 502 14 Never "http_response_incomplete" "The response broke off after its head was passed on."
    MalformedResponse "malformed-response" 502 13 ByPolicy "http_protocol_error" "The response violates RFC 9112 or RFC 9113 framing or syntax."
    ResponseHeadersTooLarge "response-headers-too-large" 502 8 Never "http_response_header_section_size" "The response's header section exceeds the configured size or count."
    FirstByteTimeout "first-byte-timeout" 504 4 ByPolicy "http_response_timeout" "No response byte arrived in time."
    RequestTimeout "request-timeout" 504 4 Never "http_response_timeout" "The request's total time is over."
    IdleTimeout "idle-timeout" 504 4 Never "connection_read_timeout" "No byte moved for the idle timeout."
    AccessDenied "access-denied" 403 7 Never "http_request_denied" "An AccessPolicy denies this caller, method or path."
    OpaqueRefused "opaque-refused" 403 7 Never "http_request_denied" "The port's policy has HTTP conditions and the bytes are not HTTP."
    PolicyMissing "policy-missing" 503 14 Never "proxy_configuration_error" "This proxy has not received its workload's policy yet."
    DirectConnection "direct-connection" 403 7 Never "connection_terminated" "The connection was made to the proxy's own port."
    ShuttingDown "shutting-down" 503 14 Unsent "connection_terminated" "The proxy is stopping and admits nothing new."
}

impl Reason {
    pub(crate) const fn at(self, side: Side) -> Fault {
        Fault { side, reason: self }
    }

    pub(crate) fn from_text(text: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .copied()
            .find(|reason| reason.as_str() == text)
    }
}

/// Why an attempt was made again.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Retried {
    /// Nothing of the request had been sent.
    Unsent,
    /// A reused connection died before the first byte of the answer.
    Replay,
    /// The policy asks for it.
    Policy,
}

impl Retried {
    /// In the order of the variants.
    pub(crate) const TEXTS: &'static [&'static str] = &["unsent", "replay", "policy"];
}

/// Why a failed attempt was not made again.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum NotRetried {
    /// Neither policy nor safety lets this failure be repeated.
    NotRetryable,
    ResponseStarted,
    /// The caller's own proxy is already retrying.
    IsRetry,
    NotIdempotent,
    /// More of the body was sent than is kept for a replay.
    BodyTooLarge,
    AttemptsSpent,
    NoOtherEndpoint,
    /// Too little of the total time is left.
    Deadline,
    BudgetSpent,
}

impl NotRetried {
    /// In the order of the variants.
    pub(crate) const TEXTS: &'static [&'static str] = &[
        "not-retryable",
        "response-started",
        "is-retry",
        "not-idempotent",
        "body-too-large",
        "attempts-spent",
        "no-other-endpoint",
        "deadline",
        "budget-spent",
    ];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::NotRetryable => "not-retryable",
            Self::ResponseStarted => "response-started",
            Self::IsRetry => "is-retry",
            Self::NotIdempotent => "not-idempotent",
            Self::BodyTooLarge => "body-too-large",
            Self::AttemptsSpent => "attempts-spent",
            Self::NoOtherEndpoint => "no-other-endpoint",
            Self::Deadline => "deadline",
            Self::BudgetSpent => "budget-spent",
        }
    }
}

impl Fault {
    /// Value of the `proxy-status` field (RFC 9209 §2): which proxy, which
    /// error type, and our own reason as its detail.
    pub(crate) fn proxy_status(self) -> String {
        let Self { side, reason } = self;
        format!(
            "weft-{}; error={}; details=\"{}\"",
            side.as_str(),
            reason.proxy_error(),
            reason.as_str()
        )
    }

    /// Body of the HTTP answer, `text/plain`: what an engineer sees in curl.
    pub(crate) fn body(self) -> String {
        let Self { side, reason } = self;
        format!(
            "weft-{}: {}. {} See `{}` in docs/faults.md.\n",
            side.as_str(),
            reason.as_str(),
            reason.help(),
            reason.as_str()
        )
    }

    /// Value of `grpc-message`: the body's sentence, percent-encoded where
    /// the gRPC protocol asks for it. Our sentences are ASCII without `%`.
    pub(crate) fn grpc_message(self) -> String {
        format!(
            "weft-{}: {}: {}",
            self.side.as_str(),
            self.reason.as_str(),
            self.reason.help()
        )
    }
}

/// How it ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    /// The application's answer was passed on, whatever its status; or a
    /// route's filter answered as its author wanted.
    Answered,
    /// An opaque connection ended as its two ends wanted.
    Carried,
    /// The caller left before the answer was complete.
    CallerLeft,
    /// The application reset its connection or stream itself, which was passed on.
    BrokenOff,
    /// The peer proxy refused; its fault came in `weft-fault`.
    PeerFaulted(Fault),
    Faulted(Fault),
}

impl Outcome {
    pub(crate) const fn fault(self) -> Option<Fault> {
        match self {
            Self::PeerFaulted(fault) | Self::Faulted(fault) => Some(fault),
            Self::Answered | Self::Carried | Self::CallerLeft | Self::BrokenOff => None,
        }
    }

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Carried => "carried",
            Self::CallerLeft => "caller-left",
            Self::BrokenOff => "broken-off",
            Self::PeerFaulted(_) => "peer-faulted",
            Self::Faulted(_) => "faulted",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_short_and_its_names_are_unique() {
        assert!(Reason::ALL.len() <= 40);
        for reason in Reason::ALL {
            assert_eq!(Reason::from_text(reason.as_str()), Some(*reason));
            assert!((400..600).contains(&reason.http_status()));
            assert!((1..=16).contains(&reason.grpc_status()));
        }
    }
}

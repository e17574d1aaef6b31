//! What an attempt says of its endpoint, for the breaker.
//!
//! Client errors and what our own side did say nothing; a fault of the way and
//! what a server says when it is in trouble are failures. Pure.

use crate::{outcome::Reason, upstream::breaker::Verdict};

/// What a reason says of the endpoint.
pub(super) fn of_fault(reason: Reason) -> Verdict {
    match reason {
        // Our own side, the policy's or the caller's doing.
        Reason::CertificateMissing
        | Reason::TooManyConnections
        | Reason::TooManyRequests
        | Reason::PendingTimeout
        | Reason::AccessDenied
        | Reason::AmbiguousPath
        | Reason::MalformedRequest
        | Reason::ConnectMethod
        | Reason::WebsocketUnsupported
        | Reason::HeadersTooLarge
        | Reason::TargetTooLong => Verdict::Ignore,
        _ => Verdict::Failure,
    }
}

pub(super) fn of_http(status: u16) -> Verdict {
    match status {
        500.. => Verdict::Failure,
        400..500 => Verdict::Ignore,
        _ => Verdict::Success,
    }
}

/// Those that a server makes when it is in trouble: UNKNOWN, INTERNAL,
/// UNAVAILABLE, DATA_LOSS. The others tell of the call.
pub(super) fn of_grpc(status: u8) -> Verdict {
    match status {
        0 => Verdict::Success,
        2 | 13 | 14 | 15 => Verdict::Failure,
        _ => Verdict::Ignore,
    }
}

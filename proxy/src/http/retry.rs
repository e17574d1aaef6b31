//! Whether a failed attempt is made again.

use std::time::Duration;

use crate::{discovery::Retries, outcome::Reason};

/// How an attempt failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Failure {
    /// A fault of our side or of the peer proxy's.
    Fault(Reason),
    /// The connection was used before and died before the first response byte.
    ReusedConnectionDied,
    /// The response's head says so.
    Status(u16),
    /// In the head, or in trailers that follow no data.
    GrpcStatus(u8),
}

/// The attempt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Attempt {
    pub(crate) failure: Failure,
    /// Any byte of the request may have reached the endpoint.
    pub(crate) sent: bool,
    /// Anything of a response was passed on to the caller.
    pub(crate) response_started: bool,
}

/// What is known of the request and its earlier attempts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Situation<'a> {
    pub(crate) method: &'a str,
    /// The body was kept whole (at most `REPLAY_BYTES`), or there is none.
    pub(crate) replayable: bool,
    /// `weft-attempt` of the caller's proxy; 1 is the first.
    pub(crate) incoming_attempt: u32,
    /// Retries made so far for reasons of policy.
    pub(crate) retries: u32,
    /// A connection that died in our hands was replaced once already.
    pub(crate) replayed: bool,
    /// An endpoint remains that was not tried.
    pub(crate) other_endpoint: bool,
    /// `None`: no deadline.
    pub(crate) remaining: Option<Duration>,
}

/// Bodies up to this size are kept for a replay.
pub(crate) const REPLAY_BYTES: usize = 64 * 1024;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum On {
    OtherEndpoint,
    Same,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Decision {
    Again {
        on: On,
        backoff: Duration,
        kind: Kind,
    },
    Stop(NotRetried),
}

/// What was made again, for the metric.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// Nothing was sent.
    Unsent,
    /// A reused connection died.
    Replay,
    /// The policy asks for it.
    Policy,
}

/// Why a failed attempt was not made again. Closed; each is counted and logged.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum NotRetried {
    NotRetryable,
    ResponseStarted,
    IsRetry,
    NotIdempotent,
    BodyTooLarge,
    AttemptsSpent,
    NoOtherEndpoint,
    Deadline,
    BudgetSpent,
}

/// `withdraw` takes from the budget; asked last, and only where the budget counts.
pub(crate) fn decide(
    _attempt: &Attempt,
    _situation: &Situation<'_>,
    _policy: &Retries,
    _random: &mut fastrand::Rng,
    _withdraw: impl FnOnce() -> bool,
) -> Decision {
    unimplemented!()
}

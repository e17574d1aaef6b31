//! Whether a failed attempt is made again.
//!
//! Called by `http::exchange` after each attempt that failed. Three kinds:
//! what was never sent goes to each other endpoint once; a reused connection
//! that died is replaced once; the rest is the policy's, within its attempts
//! and the destination's budget. All of it ends with the deadline, and nothing
//! is made again once the caller has seen a response.
//!
//! Pure: the budget is asked through a function, last, so that a retry that is
//! not made for another reason costs nothing.

use std::time::Duration;

use crate::{
    discovery::Retries,
    outcome::{NotRetried, Reason, Retried, Retryable},
};

/// How an attempt failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Failure {
    /// A fault of our side or of the peer proxy's. The end of a per-try time
    /// is `FirstByteTimeout`.
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
    /// Any byte of the request may have left us, so a body that wasn't kept is gone.
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
    /// On a new connection.
    Same,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Decision {
    Again {
        on: On,
        backoff: Duration,
        kind: Retried,
    },
    Stop(NotRetried),
}

/// `withdraw` takes one from the destination's budget; false when it is spent.
pub(crate) fn decide(
    attempt: &Attempt,
    situation: &Situation<'_>,
    policy: &Retries,
    random: &mut fastrand::Rng,
    withdraw: impl FnOnce() -> bool,
) -> Decision {
    let decided = match kind(attempt, situation, policy) {
        Ok(kind @ Retried::Unsent) => {
            unsent(attempt, situation).map(|()| (On::OtherEndpoint, Duration::ZERO, kind))
        }
        Ok(kind @ Retried::Replay) => {
            in_time(situation, Duration::ZERO).map(|()| (On::Same, Duration::ZERO, kind))
        }
        Ok(kind @ Retried::Policy) => by_policy(attempt, situation, policy, random, withdraw)
            .map(|(on, backoff)| (on, backoff, kind)),
        Err(reason) => Err(reason),
    };
    match decided {
        Ok((on, backoff, kind)) => Decision::Again { on, backoff, kind },
        Err(reason) => Decision::Stop(reason),
    }
}

/// RFC 9110 §9.2.2.
pub(crate) fn is_idempotent(method: &str) -> bool {
    matches!(
        method,
        "GET" | "HEAD" | "OPTIONS" | "TRACE" | "PUT" | "DELETE"
    )
}

fn kind(
    attempt: &Attempt,
    situation: &Situation<'_>,
    policy: &Retries,
) -> Result<Retried, NotRetried> {
    if attempt.response_started {
        return Err(NotRetried::ResponseStarted);
    }
    let is_asked = match attempt.failure {
        Failure::Fault(reason) => match reason.retryable() {
            // Once on each other endpoint; a policy may go on where there is none.
            Retryable::Unsent if situation.other_endpoint || policy.attempts == 0 => {
                return Ok(Retried::Unsent);
            }
            Retryable::Unsent => true,
            Retryable::ByPolicy => true,
            Retryable::Never => false,
        },
        Failure::ReusedConnectionDied => {
            let is_safe =
                !attempt.sent || (is_idempotent(situation.method) && situation.replayable);
            if is_safe && !situation.replayed {
                return Ok(Retried::Replay);
            }
            true
        }
        Failure::Status(status) => policy.status_codes.contains(&status),
        Failure::GrpcStatus(status) => policy.grpc_statuses.contains(&status),
    };
    if is_asked && policy.attempts > 0 {
        Ok(Retried::Policy)
    } else {
        Err(NotRetried::NotRetryable)
    }
}

fn unsent(attempt: &Attempt, situation: &Situation<'_>) -> Result<(), NotRetried> {
    // A refused stream was not acted upon, but its body may be gone.
    can_send_again(attempt, situation)?;
    if !situation.other_endpoint {
        return Err(NotRetried::NoOtherEndpoint);
    }
    in_time(situation, Duration::ZERO)
}

fn by_policy(
    attempt: &Attempt,
    situation: &Situation<'_>,
    policy: &Retries,
    random: &mut fastrand::Rng,
    withdraw: impl FnOnce() -> bool,
) -> Result<(On, Duration), NotRetried> {
    if situation.incoming_attempt > 1 {
        return Err(NotRetried::IsRetry);
    }
    if !policy.non_idempotent && !is_harmless(attempt.failure) && !is_idempotent(situation.method) {
        return Err(NotRetried::NotIdempotent);
    }
    can_send_again(attempt, situation)?;
    if situation.retries >= policy.attempts {
        return Err(NotRetried::AttemptsSpent);
    }
    let backoff = backoff(policy, situation.retries, random);
    in_time(situation, backoff)?;
    if !withdraw() {
        return Err(NotRetried::BudgetSpent);
    }
    Ok((
        if situation.other_endpoint {
            On::OtherEndpoint
        } else {
            On::Same
        },
        backoff,
    ))
}

/// Whatever the method: what wasn't taken, and gRPC's statuses. Every gRPC call
/// is a POST, so who lists them has asked (gRFC A6).
fn is_harmless(failure: Failure) -> bool {
    match failure {
        Failure::Fault(reason) => reason.retryable() == Retryable::Unsent,
        Failure::GrpcStatus(_) => true,
        Failure::Status(_) | Failure::ReusedConnectionDied => false,
    }
}

fn can_send_again(attempt: &Attempt, situation: &Situation<'_>) -> Result<(), NotRetried> {
    if attempt.sent && !situation.replayable {
        Err(NotRetried::BodyTooLarge)
    } else {
        Ok(())
    }
}

/// A wait that outlasts the deadline is not begun.
fn in_time(situation: &Situation<'_>, backoff: Duration) -> Result<(), NotRetried> {
    let has_time = situation
        .remaining
        .is_none_or(|remaining| backoff < remaining);
    if has_time {
        Ok(())
    } else {
        Err(NotRetried::Deadline)
    }
}

/// Exponential with full jitter, after the least wait: callers that failed
/// together don't come back together.
fn backoff(policy: &Retries, retries: u32, random: &mut fastrand::Rng) -> Duration {
    let grown = policy
        .base_backoff
        .saturating_mul(1_u32.checked_shl(retries).unwrap_or(u32::MAX));
    policy.least_backoff + grown.min(policy.max_backoff).mul_f64(random.f64())
}

#[cfg(test)]
mod tests;

//! How long a request may take.
//!
//! Made with the plan of a request; `http::exchange` and `upstream::queue` ask
//! it. There is no time that nobody configured or sent: without any, a request
//! may take for ever.
//!
//! Pure: `now` is an argument.

use std::time::Duration;

use tokio::time::Instant;

use crate::{
    discovery::{BackendPolicy, Rule},
    outcome::Reason,
    request::{Request, is_grpc},
};

/// The times of one request; `None` never ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Deadline {
    total: Option<Instant>,
    per_try: Option<Duration>,
    first_byte: Option<Duration>,
}

impl Deadline {
    /// The shortest of the route's and the policy's, and of the caller's `grpc-timeout`.
    pub(crate) fn new(
        rule: Option<&Rule>,
        policy: &BackendPolicy,
        request: &impl Request,
        now: Instant,
    ) -> Self {
        let of_route = rule.and_then(|rule| rule.request_timeout);
        let total = shortest([of_route, policy.timeouts.request, grpc_timeout(request)]);
        let of_backend = rule.and_then(|rule| rule.backend_timeout);
        Self {
            // Later than the clock can say is never.
            total: total.and_then(|total| now.checked_add(total)),
            per_try: shortest([of_backend, policy.retries.per_try_timeout]),
            first_byte: policy.timeouts.first_byte,
        }
    }

    /// Of the whole request.
    pub(crate) fn total(&self) -> Option<Instant> {
        self.total
    }

    /// `None`: no end. Zero: it is over.
    pub(crate) fn remaining(&self, now: Instant) -> Option<Duration> {
        self.total.map(|total| total.saturating_duration_since(now))
    }

    /// Of an attempt that begins now. Its own end, when before the total one,
    /// is `FirstByteTimeout` until the response begins.
    pub(crate) fn of_try(&self, now: Instant) -> Option<Instant> {
        self.bounded(self.per_try, now)
    }

    /// Of the first byte of the response, once the attempt's request is sent.
    pub(crate) fn of_first_byte(&self, now: Instant) -> Option<Instant> {
        self.bounded(self.first_byte, now)
    }

    /// What the end of a wait for the response is called: the whole request's
    /// goes before a try's. Either way the endpoint did not answer in time.
    pub(crate) fn over(&self, now: Instant) -> Reason {
        if self.total.is_some_and(|total| total <= now) {
            Reason::RequestTimeout
        } else {
            Reason::FirstByteTimeout
        }
    }

    fn bounded(&self, time: Option<Duration>, now: Instant) -> Option<Instant> {
        let own = time.and_then(|time| now.checked_add(time));
        [own, self.total].into_iter().flatten().min()
    }
}

fn shortest<const N: usize>(times: [Option<Duration>; N]) -> Option<Duration> {
    times.into_iter().flatten().min()
}

/// Of gRPC requests alone; elsewhere the header means nothing.
fn grpc_timeout(request: &impl Request) -> Option<Duration> {
    if !is_grpc(request) {
        return None;
    }
    request
        .header("grpc-timeout")
        .filter_map(parse_grpc_timeout)
        .min()
}

/// gRPC over HTTP2, "Timeout": at most 8 digits and a unit. What is none is
/// left for the application to refuse.
pub(crate) fn parse_grpc_timeout(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let value = digits
        .iter()
        .fold(0_u64, |value, digit| value * 10 + u64::from(digit - b'0'));
    match unit {
        b'H' => Some(Duration::from_secs(value * 3600)),
        b'M' => Some(Duration::from_secs(value * 60)),
        b'S' => Some(Duration::from_secs(value)),
        b'm' => Some(Duration::from_millis(value)),
        b'u' => Some(Duration::from_micros(value)),
        b'n' => Some(Duration::from_nanos(value)),
        _ => None,
    }
}

#[cfg(test)]
mod tests;

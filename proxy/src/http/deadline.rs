//! How long a request may take.

use std::time::Duration;

use tokio::time::Instant;

use crate::{
    discovery::{BackendPolicy, Rule},
    request::Request,
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
        _rule: Option<&Rule>,
        _policy: &BackendPolicy,
        _request: &impl Request,
        _now: Instant,
    ) -> Self {
        unimplemented!()
    }

    /// Of the whole request.
    pub(crate) fn total(&self) -> Option<Instant> {
        self.total
    }

    /// `None`: no end. Zero: it is over.
    pub(crate) fn remaining(&self, _now: Instant) -> Option<Duration> {
        unimplemented!()
    }

    /// Of an attempt that begins now.
    pub(crate) fn of_try(&self, _now: Instant) -> Option<Instant> {
        unimplemented!()
    }

    /// Of the first byte of the response, once the attempt's request is sent.
    pub(crate) fn of_first_byte(&self, _now: Instant) -> Option<Instant> {
        unimplemented!()
    }
}

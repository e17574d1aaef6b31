//! Takes endpoints out that fail, and lets them back in by one probe.

use crate::discovery::{Backend, Endpoint};

/// What an attempt says about its endpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    Success,
    /// No connection, a broken one, a timeout, a 5xx.
    Failure,
    /// Says nothing: client errors, the caller left, a fault of our own side.
    Ignore,
}

/// Where an endpoint stands. Times are milliseconds of `clock::Epoch`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum State {
    In {
        failures: u32,
    },
    Ejected {
        until_ms: u64,
    },
    /// One request is out to see whether it is back.
    Probing,
}

/// Why the state changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Why {
    ConsecutiveFailures,
    TimeOver,
    ProbeSucceeded,
    ProbeFailed,
    ProbeAbandoned,
}

/// To be logged and counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Transition {
    pub(crate) from: State,
    pub(crate) to: State,
    pub(crate) why: Why,
}

/// For the admin page.
pub(crate) fn state(_endpoint: &Endpoint) -> State {
    unimplemented!()
}

/// Leave to send one request to an endpoint.
#[derive(Debug)]
pub(crate) struct Pass {}

/// `None` while it is out. `now_ms` of `clock::Epoch`.
pub(crate) fn admit(_endpoint: &Endpoint, _now_ms: u64) -> Option<Pass> {
    unimplemented!()
}

/// At the end of an attempt, once.
pub(crate) fn report(
    _backend: &Backend,
    _endpoint: &Endpoint,
    _pass: &mut Pass,
    _verdict: Verdict,
    _now_ms: u64,
) -> Option<Transition> {
    unimplemented!()
}

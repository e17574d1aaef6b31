//! Chooses the endpoint of one attempt.

use std::{sync::Arc, time::Duration};

use crate::{
    discovery::{Backend, Endpoint, EndpointKey},
    outcome::Reason,
    upstream::breaker::{Transition, Verdict},
};

/// Latencies as one worker sees them.
#[derive(Default, Debug)]
pub(crate) struct Averages {}

impl Averages {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// The time to the first byte of a response.
    pub(crate) fn observe(&mut self, _key: EndpointKey, _latency: Duration, _now_ms: u64) {
        unimplemented!()
    }

    /// A failure, so that failing fast attracts nobody.
    pub(crate) fn punish(&mut self, _key: EndpointKey, _now_ms: u64) {
        unimplemented!()
    }

    /// Forgets endpoints that the snapshot no longer holds.
    pub(crate) fn retain(&mut self, _is_held: impl Fn(EndpointKey) -> bool) {
        unimplemented!()
    }
}

/// One attempt under way; ends on drop. Rides the response body.
#[derive(Debug)]
pub(crate) struct InFlight {
    endpoint: Arc<Endpoint>,
}

impl InFlight {
    pub(crate) fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }

    /// What choosing it changed: an ejected endpoint is being probed.
    pub(crate) fn began(&self) -> Option<Transition> {
        unimplemented!()
    }

    /// Tells the breaker, once: at the first byte of the response or at the
    /// fault. Dropped without, a probe counts as never made.
    pub(crate) fn report(
        &mut self,
        _backend: &Backend,
        _verdict: Verdict,
        _now_ms: u64,
    ) -> Option<Transition> {
        unimplemented!()
    }
}

/// One that is ready, in, and not in `tried`. `Err(None)`: there are others no
/// more; `Err(Some)`: there is none at all.
pub(crate) fn pick(
    _backend: &Backend,
    _averages: &mut Averages,
    _tried: &[EndpointKey],
    _now_ms: u64,
    _random: &mut fastrand::Rng,
) -> Result<InFlight, Nobody> {
    unimplemented!()
}

/// Why `pick` found none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Nobody {
    /// The backend has no ready endpoint.
    NoEndpoints,
    /// All that it has were tried.
    AllTried,
}

impl Nobody {
    pub(crate) const fn reason(self) -> Reason {
        Reason::NoEndpoints
    }
}

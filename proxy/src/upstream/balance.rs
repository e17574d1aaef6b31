//! Chooses the endpoint of one attempt.
//!
//! Called by `http::exchange` per request and by `tcp` per connection; `pool`
//! or `connect` comes after. Draining endpoints and those that the breaker
//! holds out get nothing new, unless all are: then any is better than none.
//!
//! A pick looks at two endpoints, whatever their number; it scans only when
//! what it drew is unusable. It allocates nothing.

mod averages;

use std::sync::{Arc, atomic::Ordering};

use crate::{
    discovery::{Backend, Endpoint, EndpointKey, LoadBalancing},
    outcome::Reason,
    upstream::breaker::{self, Pass, Transition, Verdict},
};

pub(crate) use averages::Averages;

/// Why `pick` found none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Nobody {
    /// The backend has no endpoint, not even one that drains.
    NoEndpoints,
    /// All that may be used were tried.
    AllTried,
}

impl Nobody {
    /// Of a first attempt; a later one keeps the reason of the one before.
    pub(crate) const fn reason(self) -> Reason {
        Reason::NoEndpoints
    }
}

/// One attempt under way; ends on drop. Rides the response body.
#[derive(Debug)]
pub(crate) struct InFlight {
    endpoint: Arc<Endpoint>,
    pass: Pass,
    began: Option<Transition>,
}

impl InFlight {
    fn new(endpoint: &Arc<Endpoint>, pass: Pass, began: Option<Transition>) -> Self {
        endpoint.cells.in_flight.fetch_add(1, Ordering::Relaxed);
        Self {
            endpoint: Arc::clone(endpoint),
            pass,
            began,
        }
    }

    pub(crate) fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }

    /// What choosing it changed: an ejected endpoint is being probed.
    pub(crate) fn began(&self) -> Option<Transition> {
        self.began
    }

    /// Tells the breaker, once: at the first byte of the response or at the
    /// fault. Dropped without, a probe counts as never made.
    pub(crate) fn report(
        &mut self,
        backend: &Backend,
        verdict: Verdict,
        now_ms: u64,
    ) -> Option<Transition> {
        breaker::report(backend, &self.endpoint, &mut self.pass, verdict, now_ms)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.endpoint
            .cells
            .in_flight
            .fetch_sub(1, Ordering::Relaxed);
    }
}

/// One endpoint that is ready, in, and not in `tried`.
pub(crate) fn pick(
    backend: &Backend,
    averages: &mut Averages,
    tried: &[EndpointKey],
    now_ms: u64,
    random: &mut fastrand::Rng,
) -> Result<InFlight, Nobody> {
    let field = Field {
        ready: backend.ready(),
        tried,
        may_probe: true,
        now_ms,
    };
    let picked = field.pick(backend, averages, random)?;
    picked.or_else(|| field.any(random)).ok_or(Nobody::AllTried)
}

/// One endpoint for a copy, which proves nothing: never as a probe, and none
/// while all are out.
pub(crate) fn pick_for_copy(
    backend: &Backend,
    averages: &mut Averages,
    now_ms: u64,
    random: &mut fastrand::Rng,
) -> Result<InFlight, Nobody> {
    let field = Field {
        ready: backend.ready(),
        tried: &[],
        may_probe: false,
        now_ms,
    };
    let picked = field.pick(backend, averages, random)?;
    picked.ok_or(Nobody::AllTried)
}

/// What there is to choose from, now.
struct Field<'a> {
    ready: &'a [Arc<Endpoint>],
    tried: &'a [EndpointKey],
    /// Whether one that is out may be handed out to see if it is back.
    may_probe: bool,
    now_ms: u64,
}

/// Draws, until two are usable. With half of the endpoints out, one pick in a
/// hundred goes on to the scan.
const DRAWS: usize = 8;

impl Field<'_> {
    /// By the backend's rule, among those that are in.
    fn pick(
        &self,
        backend: &Backend,
        averages: &mut Averages,
        random: &mut fastrand::Rng,
    ) -> Result<Option<InFlight>, Nobody> {
        if self.ready.is_empty() {
            return Err(Nobody::NoEndpoints);
        }
        Ok(match backend.policy.load_balancing {
            LoadBalancing::PeakEwma => self.cheaper_of_two(averages, random),
            LoadBalancing::RoundRobin => self.first_from(turn(backend, self.ready.len())),
            LoadBalancing::Weighted => self.by_weight(backend),
        })
    }

    /// An endpoint whose ejection is over is probed by the first request that
    /// draws it: by its cost it would not be chosen.
    fn cheaper_of_two(
        &self,
        averages: &mut Averages,
        random: &mut fastrand::Rng,
    ) -> Option<InFlight> {
        let mut first: Option<&Arc<Endpoint>> = None;
        let mut last = usize::MAX;
        for draw in 0..DRAWS.min(self.ready.len() * 2) {
            let at = self.draw(draw, last, random);
            last = at;
            let Some(endpoint) = self
                .ready
                .get(at)
                .filter(|endpoint| self.is_usable(endpoint))
            else {
                continue;
            };
            if breaker::state(endpoint).is_out() {
                match self.take(endpoint) {
                    Some(probe) => return Some(probe),
                    None => continue,
                }
            }
            match first {
                None => first = Some(endpoint),
                Some(other) if other.key == endpoint.key => {}
                Some(other) => {
                    let chosen = averages.cheaper(other, endpoint, self.now_ms, random);
                    return self.take(chosen);
                }
            }
        }
        first
            .and_then(|endpoint| self.take(endpoint))
            .or_else(|| self.first_from(random.usize(..self.ready.len())))
    }

    /// The second draw is never the first again.
    fn draw(&self, draw: usize, last: usize, random: &mut fastrand::Rng) -> usize {
        let count = self.ready.len();
        if draw == 1 && count > 1 {
            (last + 1 + random.usize(..count - 1)) % count
        } else {
            random.usize(..count)
        }
    }

    fn by_weight(&self, backend: &Backend) -> Option<InFlight> {
        let schedule = backend.schedule()?;
        // A turn that can't be used passes to the next one, so that the shares
        // of the others stay in proportion.
        for _ in 0..DRAWS {
            let at = schedule.at(backend.cells.next.fetch_add(1, Ordering::Relaxed))?;
            let endpoint = self
                .ready
                .get(at)
                .filter(|endpoint| self.is_usable(endpoint));
            if let Some(chosen) = endpoint.and_then(|endpoint| self.take(endpoint)) {
                return Some(chosen);
            }
        }
        self.first_from(turn(backend, self.ready.len()))
    }

    fn first_from(&self, start: usize) -> Option<InFlight> {
        let (before, after) = self.ready.split_at(start.min(self.ready.len()));
        after
            .iter()
            .chain(before)
            .filter(|endpoint| self.is_usable(endpoint))
            .find_map(|endpoint| self.take(endpoint))
    }

    /// While every one is out: the choice is at random, and proves nothing.
    fn any(&self, random: &mut fastrand::Rng) -> Option<InFlight> {
        if !self
            .ready
            .iter()
            .all(|endpoint| breaker::state(endpoint).is_out())
        {
            return None;
        }
        let (before, after) = self.ready.split_at(random.usize(..self.ready.len()));
        let endpoint = after
            .iter()
            .chain(before)
            .find(|endpoint| self.is_untried(endpoint))?;
        Some(InFlight::new(endpoint, Pass::without_other(), None))
    }

    fn take(&self, endpoint: &Arc<Endpoint>) -> Option<InFlight> {
        breaker::admit(endpoint, self.now_ms)
            .map(|(pass, began)| InFlight::new(endpoint, pass, began))
    }

    fn is_usable(&self, endpoint: &Endpoint) -> bool {
        let is_in = match self.may_probe {
            true => breaker::is_open(endpoint, self.now_ms),
            false => !breaker::state(endpoint).is_out(),
        };
        is_in && self.is_untried(endpoint)
    }

    fn is_untried(&self, endpoint: &Endpoint) -> bool {
        !self.tried.contains(&endpoint.key)
    }
}

fn turn(backend: &Backend, count: usize) -> usize {
    let turn = backend.cells.next.fetch_add(1, Ordering::Relaxed);
    usize::try_from(turn % count.max(1) as u64).unwrap_or_default()
}

#[cfg(test)]
mod tests;

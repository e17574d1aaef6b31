//! Chooses the endpoint of one attempt.
//!
//! Called by `http::exchange` per request and by `tcp` per connection; `pool`
//! or `connect` comes after. Draining endpoints and those that the breaker
//! holds out get nothing new, unless all are: then any is better than none.
//!
//! Those tiers of endpoints that `discovery` put first are used first. Where
//! the Service asks for it a caller stays with one endpoint (`affinity`).
//!
//! A pick looks at two endpoints, whatever their number; it scans only when
//! what it drew is unusable. It allocates nothing.

mod affinity;
mod averages;

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use crate::{
    discovery::{Backend, Endpoint, EndpointKey, LoadBalancing, Tier},
    outcome::Reason,
    upstream::breaker::{self, Pass, Transition, Verdict},
};

use affinity::Held;
pub(crate) use averages::Averages;

/// Why `pick` found none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Nobody {
    /// The backend has no endpoint, not even one that drains.
    NoEndpoints,
    /// It asks for the caller's own node, where it has none.
    NoLocalEndpoints,
    /// All that may be used were tried.
    AllTried,
}

impl Nobody {
    /// Of a first attempt; a later one keeps the reason of the one before.
    pub(crate) const fn reason(self) -> Reason {
        match self {
            Self::NoEndpoints | Self::AllTried => Reason::NoEndpoints,
            Self::NoLocalEndpoints => Reason::NoLocalEndpoints,
        }
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
    let mut choice = Choice {
        backend,
        averages,
        tried,
        may_probe: true,
        now_ms,
        random,
    };
    let picked = choice.pick()?;
    picked.or_else(|| choice.any()).ok_or(Nobody::AllTried)
}

/// One endpoint for a copy, which proves nothing: never as a probe, and none
/// while all are out.
pub(crate) fn pick_for_copy(
    backend: &Backend,
    averages: &mut Averages,
    now_ms: u64,
    random: &mut fastrand::Rng,
) -> Result<InFlight, Nobody> {
    let mut choice = Choice {
        backend,
        averages,
        tried: &[],
        may_probe: false,
        now_ms,
        random,
    };
    choice.pick()?.ok_or(Nobody::AllTried)
}

/// # Errors
/// When no request could be sent to `backend` from here, whatever was tried.
pub(crate) fn nobody(backend: &Backend) -> Result<(), Nobody> {
    match (backend.ready().is_empty(), backend.endpoints.is_empty()) {
        (false, _) => Ok(()),
        (true, true) => Err(Nobody::NoEndpoints),
        (true, false) => Err(Nobody::NoLocalEndpoints),
    }
}

/// Whom callers of this backend stay with, for the admin page.
pub(crate) fn stays_with(backend: &Backend, now_ms: u64) -> Option<&Arc<Endpoint>> {
    let timeout = backend.policy.affinity?;
    Held::read(backend, timeout, now_ms).endpoint
}

/// One pick under way.
struct Choice<'a> {
    backend: &'a Backend,
    averages: &'a mut Averages,
    tried: &'a [EndpointKey],
    /// Whether one that is out may be handed out to see if it is back.
    may_probe: bool,
    now_ms: u64,
    random: &'a mut fastrand::Rng,
}

impl<'a> Choice<'a> {
    /// By the backend's rule, among those that are in.
    fn pick(&mut self) -> Result<Option<InFlight>, Nobody> {
        nobody(self.backend)?;
        Ok(match self.backend.policy.affinity {
            None => self.of_tiers(),
            Some(timeout) => self.staying(timeout),
        })
    }

    /// From the first tier that has somebody. One that has nobody takes no
    /// turns: they are the next one's.
    fn of_tiers(&mut self) -> Option<InFlight> {
        let backend = self.backend;
        let is_alone = backend.tiers().nth(1).is_none();
        backend.tiers().find_map(|tier| {
            let field = self.field(tier.endpoints);
            if !(is_alone || field.has_usable()) {
                return None;
            }
            match backend.policy.load_balancing {
                LoadBalancing::PeakEwma => field.cheaper_of_two(self.averages, self.random),
                LoadBalancing::RoundRobin => field.first_from(turn(backend, field.ready.len())),
                LoadBalancing::Weighted => field.by_weight(backend, &tier),
            }
        })
    }

    /// The endpoint that was used last, as long as it can be; else another, for
    /// good. Another try of one request goes elsewhere and moves nobody.
    fn staying(&mut self, timeout: Duration) -> Option<InFlight> {
        for _ in 0..MOVES {
            let held = Held::read(self.backend, timeout, self.now_ms);
            if let Some(endpoint) = held.endpoint {
                let field = self.field(self.backend.ready());
                if !field.is_untried(endpoint) {
                    break;
                }
                let usable = Some(endpoint).filter(|it| field.is_usable(it));
                if let Some(flight) = usable.and_then(|it| field.take(it)) {
                    held.renew();
                    return Some(flight);
                }
            }
            let flight = self.of_tiers()?;
            if held.replace(flight.endpoint()) {
                return Some(flight);
            }
        }
        self.of_tiers()
    }

    /// While every one is out: the choice is at random, and proves nothing.
    fn any(&mut self) -> Option<InFlight> {
        let ready = self.backend.ready();
        self.field(ready).any(self.random)
    }

    fn field(&self, ready: &'a [Arc<Endpoint>]) -> Field<'a> {
        Field {
            ready,
            tried: self.tried,
            may_probe: self.may_probe,
            now_ms: self.now_ms,
        }
    }
}

/// How often another worker may be first to choose whom callers stay with.
const MOVES: usize = 3;

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

    fn by_weight(&self, backend: &Backend, tier: &Tier<'_>) -> Option<InFlight> {
        let schedule = tier.schedule?;
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

    fn has_usable(&self) -> bool {
        self.ready.iter().any(|endpoint| self.is_usable(endpoint))
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

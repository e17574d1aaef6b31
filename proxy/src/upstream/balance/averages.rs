//! Latencies as one worker sees them, and what they say about two endpoints.
//!
//! Peak-EWMA: a slow response counts at once, a fast one by and by, and an
//! endpoint that isn't used is forgiven with time. The cost of an endpoint is
//! its latency times its requests in flight, those of all workers.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use crate::discovery::{Endpoint, EndpointKey};

/// Per worker, unshared.
#[derive(Default, Debug)]
pub(crate) struct Averages(HashMap<EndpointKey, Average, BuildHasherDefault<KeyHasher>>);

#[derive(Clone, Copy, Debug)]
struct Average {
    /// `None` until the first response.
    microseconds: Option<f64>,
    at_ms: u64,
    first_seen_ms: u64,
}

/// In which faster responses bring an average down by all but 1/e of the
/// difference. Short: among equals, whoever had the last slow response would
/// otherwise go without for long, and shares differ by a fifth.
const FALL_MS: f64 = 500.0;

/// In which an endpoint that isn't used is forgiven all but 1/e.
const DECAY_MS: f64 = 10_000.0;

/// Differences below this are noise of the machine, not of the endpoint.
const NOISE_MICROSECONDS: f64 = 100.0;

/// In which a new endpoint comes to its full share, so that it is neither
/// flooded while cold nor starved: at least 80 % of its share over 10 s.
const WARM_UP_MS: f64 = 4_000.0;

/// By how much one response can raise an average: a single pause of a garbage
/// collector is forgiven at once, and a backend that became a hundred times
/// slower is known after five answers; what is on its way to it counts before.
const STEEPEST: f64 = 3.0;

/// Up to which the first response counts: it may have waited for a
/// connection beyond the peer proxy and a cold application. Whoever is really
/// slow is known for it after a few more. No more than a failure, or failing would look cheaper.
const FIRST_MICROSECONDS: f64 = FAILURE_MICROSECONDS.0;

/// Of an idle endpoint, however slow it was: a tenth of its fair share.
const LOOK: f64 = 0.05;

/// A new endpoint's chances in a pair at first, beside 1 of a warm one.
const COLD: f64 = 0.1;

/// What one failure costs at least and at most.
const FAILURE_MICROSECONDS: (f64, f64) = (10_000.0, 5_000_000.0);

impl Averages {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// The time to the first byte of a response.
    pub(crate) fn observe(&mut self, key: EndpointKey, latency: Duration, now_ms: u64) {
        self.average(key, now_ms)
            .observe(latency.as_secs_f64() * 1e6, now_ms);
    }

    /// A failure, so that failing fast attracts nobody.
    pub(crate) fn punish(&mut self, key: EndpointKey, now_ms: u64) {
        let average = self.average(key, now_ms);
        let (least, most) = FAILURE_MICROSECONDS;
        let penalty = (average.decayed(now_ms).unwrap_or(0.0) * 4.0).clamp(least, most);
        average.observe(penalty, now_ms);
    }

    /// Forgets endpoints that the snapshot no longer holds.
    pub(crate) fn retain(&mut self, is_held: impl Fn(EndpointKey) -> bool) {
        self.0.retain(|key, _| is_held(*key));
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The cheaper one when it costs half or less; between that and equal cost
    /// its share falls from all to half. A hard choice would starve whoever is
    /// a hair slower and make latencies of equals oscillate.
    pub(super) fn cheaper<'a>(
        &mut self,
        one: &'a Arc<Endpoint>,
        other: &'a Arc<Endpoint>,
        now_ms: u64,
        random: &mut fastrand::Rng,
    ) -> &'a Arc<Endpoint> {
        let (a, b) = (
            *self.average(one.key, now_ms),
            *self.average(other.key, now_ms),
        );
        let latencies = (a.decayed(now_ms), b.decayed(now_ms));
        // One that never answered is taken to be like the other.
        let known = |latency: Option<f64>, else_: Option<f64>| latency.or(else_).unwrap_or(0.0);
        let cost_a = cost(known(latencies.0, latencies.1), one);
        let cost_b = cost(known(latencies.1, latencies.0), other);
        let by_cost = if cost_a <= cost_b {
            cost_b / cost_a / 2.0
        } else {
            1.0 - cost_a / cost_b / 2.0
        };
        let share = by_cost.clamp(look(one), 1.0 - look(other));
        // The colder one gets no more than its warmth, however fast it looks:
        // the average of the warm one remembers its peaks.
        let (warm_a, warm_b) = (a.warmth(now_ms), b.warmth(now_ms));
        let most = warm_a / (warm_a + warm_b);
        let share = if warm_a < warm_b {
            share.min(most)
        } else {
            share
        };
        let share = if warm_b < warm_a {
            share.max(most)
        } else {
            share
        };
        if random.f64() < share { one } else { other }
    }

    fn average(&mut self, key: EndpointKey, now_ms: u64) -> &mut Average {
        self.0.entry(key).or_insert(Average {
            microseconds: None,
            at_ms: now_ms,
            first_seen_ms: now_ms,
        })
    }
}

impl Average {
    fn observe(&mut self, microseconds: f64, now_ms: u64) {
        let kept = weight(now_ms.saturating_sub(self.at_ms), FALL_MS);
        self.microseconds = Some(match self.microseconds {
            Some(average) if microseconds < average => average * kept + microseconds * (1.0 - kept),
            Some(average) => microseconds.min(average.max(NOISE_MICROSECONDS) * STEEPEST),
            None => microseconds.min(FIRST_MICROSECONDS),
        });
        self.at_ms = self.at_ms.max(now_ms);
    }

    fn decayed(&self, now_ms: u64) -> Option<f64> {
        Some(self.microseconds? * weight(now_ms.saturating_sub(self.at_ms), DECAY_MS))
    }

    fn warmth(&self, now_ms: u64) -> f64 {
        let age = now_ms.saturating_sub(self.first_seen_ms) as f64;
        (COLD + (1.0 - COLD) * age / WARM_UP_MS).min(1.0)
    }
}

fn cost(microseconds: f64, endpoint: &Endpoint) -> f64 {
    let in_flight = f64::from(endpoint.cells.in_flight.load(Ordering::Relaxed));
    (microseconds + NOISE_MICROSECONDS) * (in_flight + 1.0)
}

/// The least chance of an endpoint in a pair: while nothing is on its way to
/// it, somebody has to look whether it is fast again.
fn look(endpoint: &Endpoint) -> f64 {
    if endpoint.cells.in_flight.load(Ordering::Relaxed) == 0 {
        LOOK
    } else {
        0.0
    }
}

fn weight(elapsed_ms: u64, time_ms: f64) -> f64 {
    (-(elapsed_ms as f64) / time_ms).exp()
}

/// Keys are our own numbers: nobody can choose them to collide.
#[derive(Default, Debug)]
pub(crate) struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, value: u64) {
        // Fibonacci hashing: spreads counting keys over the high bits too,
        // which the table uses as tags.
        self.0 = (self.0.rotate_left(5) ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

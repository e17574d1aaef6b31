//! Who stays with whom, and what ends it.

use crate::{
    discovery::{
        Backend, BackendCells, BackendPolicy, EndpointKey, EndpointState, LoadBalancing, samples,
    },
    upstream::{
        balance::{Averages, InFlight, Nobody, pick, stays_with},
        breaker::Verdict,
    },
};

use super::*;

const TIMEOUT: Duration = Duration::from_secs(60);
const ALL: [LoadBalancing; 3] = [
    LoadBalancing::PeakEwma,
    LoadBalancing::RoundRobin,
    LoadBalancing::Weighted,
];

/// Of the service's endpoints, those with these keys, in these states.
fn backend(
    load_balancing: LoadBalancing,
    cells: &Arc<BackendCells>,
    endpoints: &[(u64, EndpointState)],
) -> Backend {
    let defaults = BackendPolicy::default();
    let mut policy = BackendPolicy {
        load_balancing,
        affinity: Some(TIMEOUT),
        ..defaults
    };
    policy.circuit_breaking.consecutive_failures = 1;
    policy.circuit_breaking.max_ejected_percent = 100;
    let made = endpoints
        .iter()
        .map(|(key, state)| samples::endpoint(*key, 1, *state, cells));
    let endpoints = made.collect();
    Backend::new(
        samples::service("cart"),
        80,
        Arc::new(policy),
        endpoints,
        Arc::clone(cells),
    )
}

fn ready(keys: std::ops::Range<u64>) -> Vec<(u64, EndpointState)> {
    keys.map(|key| (key, EndpointState::Ready)).collect()
}

struct Worker(Averages, fastrand::Rng);

impl Worker {
    fn new(seed: u64) -> Self {
        Self(Averages::new(), fastrand::Rng::with_seed(seed))
    }

    fn flight(
        &mut self,
        backend: &Backend,
        tried: &[u64],
        now_ms: u64,
    ) -> Result<InFlight, Nobody> {
        let tried: Vec<_> = tried.iter().copied().map(EndpointKey).collect();
        pick(backend, &mut self.0, &tried, now_ms, &mut self.1)
    }

    fn key(&mut self, backend: &Backend, tried: &[u64], now_ms: u64) -> u64 {
        let flight = self.flight(backend, tried, now_ms).unwrap();
        flight.endpoint().key.0
    }
}

#[test]
fn all_workers_stay_with_the_one_that_the_first_request_got() {
    for load_balancing in ALL {
        let backend = backend(load_balancing, &Arc::default(), &ready(1..11));
        let mut workers = [Worker::new(1), Worker::new(2)];
        let first = workers[0].key(&backend, &[], 1);
        for now_ms in 1..500 {
            for worker in &mut workers {
                assert_eq!(worker.key(&backend, &[], now_ms), first);
            }
        }
        assert_eq!(stays_with(&backend, 500).unwrap().key.0, first);
    }
}

#[test]
fn it_is_a_choice_of_the_policy_and_falls_on_all() {
    let mut seen = [0; 10];
    for seed in 0..300 {
        let backend = backend(LoadBalancing::PeakEwma, &Arc::default(), &ready(0..10));
        seen[Worker::new(seed).key(&backend, &[], 1) as usize] += 1;
    }
    assert!(seen.iter().all(|count| *count > 0), "{seen:?}");
}

#[test]
fn it_lasts_until_the_timeout_since_the_last_use() {
    let backend = backend(LoadBalancing::RoundRobin, &Arc::default(), &ready(1..11));
    let mut worker = Worker::new(1);
    let first = worker.key(&backend, &[], 1);
    let mut now_ms = 1;
    for _ in 0..5 {
        now_ms += 59_999;
        assert_eq!(worker.key(&backend, &[], now_ms), first);
    }
    // Round robin: whoever is chosen anew is another.
    let next = worker.key(&backend, &[], now_ms + 62_000);
    assert_ne!(next, first);
    assert_eq!(worker.key(&backend, &[], now_ms + 62_001), next);
}

#[test]
fn another_try_goes_elsewhere_and_the_next_request_is_back() {
    for load_balancing in ALL {
        let backend = backend(load_balancing, &Arc::default(), &ready(1..4));
        let mut worker = Worker::new(1);
        let first = worker.key(&backend, &[], 1);
        for now_ms in 1..100 {
            assert_ne!(worker.key(&backend, &[first], now_ms), first);
            assert_eq!(worker.key(&backend, &[], now_ms), first);
        }
        let all: Vec<u64> = (1..4).collect();
        assert_eq!(
            worker.flight(&backend, &all, 100).unwrap_err(),
            Nobody::AllTried
        );
    }
}

#[test]
fn whom_the_breaker_ejects_is_left_for_good() {
    for load_balancing in ALL {
        let backend = backend(load_balancing, &Arc::default(), &ready(1..4));
        let mut worker = Worker::new(1);
        let mut flight = worker.flight(&backend, &[], 1).unwrap();
        let first = flight.endpoint().key.0;
        flight.report(&backend, Verdict::Failure, 1).unwrap();
        drop(flight);
        let next = worker.key(&backend, &[], 2);
        assert_ne!(next, first);
        // Long after the first is back.
        for now_ms in (2..40_000).step_by(1000) {
            let mut flight = worker.flight(&backend, &[], now_ms).unwrap();
            assert_eq!(flight.endpoint().key.0, next);
            flight.report(&backend, Verdict::Success, now_ms);
        }
    }
}

#[test]
fn whoever_drains_or_leaves_is_stayed_with_no_longer() {
    let cells = Arc::default();
    let before = backend(LoadBalancing::RoundRobin, &cells, &ready(1..4));
    let mut worker = Worker::new(1);
    let first = worker.key(&before, &[], 1);
    let mut others = ready(1..4);
    others.retain(|(key, _)| *key != first);
    let gone = backend(LoadBalancing::RoundRobin, &cells, &others);
    let second = worker.key(&gone, &[], 2);
    assert_ne!(second, first);
    // Back under its key, it has no right to its callers any more.
    assert_eq!(worker.key(&before, &[], 3), second);
    let draining: Vec<_> = ready(1..4)
        .into_iter()
        .map(|(key, ready)| match key == second {
            true => (key, EndpointState::Draining),
            false => (key, ready),
        })
        .collect();
    let draining = backend(LoadBalancing::RoundRobin, &cells, &draining);
    assert_ne!(worker.key(&draining, &[], 4), second);
}

#[test]
fn while_all_are_out_nobody_is_chosen_for_good() {
    let cells = Arc::default();
    let endpoints: Vec<_> = (1..3)
        .map(|key| samples::endpoint(key, 1, EndpointState::Ready, &cells))
        .collect();
    let mut policy = BackendPolicy {
        affinity: Some(TIMEOUT),
        ..BackendPolicy::default()
    };
    policy.circuit_breaking.consecutive_failures = 1;
    policy.circuit_breaking.max_ejected_percent = 100;
    let of = |count: usize| {
        Backend::new(
            samples::service("cart"),
            80,
            Arc::new(policy.clone()),
            endpoints[..count].to_vec(),
            Arc::clone(&cells),
        )
    };
    let mut worker = Worker::new(1);
    let both = of(2);
    let mut flight = worker.flight(&both, &[2], 1).unwrap();
    flight.report(&both, Verdict::Failure, 1).unwrap();
    drop(flight);
    cells.affinity.store(0, Ordering::Relaxed);
    // The healthy one goes; the other is out, and serves all the same.
    let one = of(1);
    assert_eq!(worker.key(&one, &[], 2), 1);
    assert!(stays_with(&one, 2).is_none());
}

#[test]
fn the_word_keeps_what_it_was_given() {
    assert_eq!(unpack(0), None);
    for (key, now_ms) in [(0, 0), (1, 999), (7, 61_000), (HALF, u64::MAX >> 24)] {
        let (read, second) = unpack(pack(EndpointKey(key), now_ms)).unwrap();
        assert_eq!(read, EndpointKey(key));
        assert!(second <= now_ms / 1000 && (second == now_ms / 1000 || second >= HALF - 1));
    }
}

//! Who gets how much, and who gets nothing.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    time::Duration,
};

use proptest::prelude::*;

use super::*;
use crate::discovery::{BackendPolicy, CircuitBreaking, EndpointState, Here, Hints, samples};

fn policy(load_balancing: LoadBalancing) -> BackendPolicy {
    let defaults = BackendPolicy::default();
    let circuit_breaking = CircuitBreaking {
        consecutive_failures: 1,
        max_ejected_percent: 100,
        ..defaults.circuit_breaking
    };
    BackendPolicy {
        load_balancing,
        circuit_breaking,
        ..defaults
    }
}

fn backend(load_balancing: LoadBalancing, weights: &[u32]) -> Arc<Backend> {
    samples::backend(policy(load_balancing), weights)
}

/// A worker's own things.
struct Worker {
    averages: Averages,
    random: fastrand::Rng,
}

impl Worker {
    fn new(seed: u64) -> Self {
        Self {
            averages: Averages::new(),
            random: fastrand::Rng::with_seed(seed),
        }
    }

    fn pick(&mut self, backend: &Backend, tried: &[u64], now_ms: u64) -> Result<InFlight, Nobody> {
        let tried: Vec<_> = tried.iter().copied().map(EndpointKey).collect();
        pick(
            backend,
            &mut self.averages,
            &tried,
            now_ms,
            &mut self.random,
        )
    }

    fn key(&mut self, backend: &Backend, tried: &[u64], now_ms: u64) -> Result<u64, Nobody> {
        self.pick(backend, tried, now_ms)
            .map(|picked| picked.endpoint().key.0)
    }
}

fn eject(backend: &Backend, at: usize, now_ms: u64) {
    let (mut pass, _) = breaker::admit(&backend.endpoints[at], now_ms).unwrap();
    breaker::report(
        backend,
        &backend.endpoints[at],
        &mut pass,
        Verdict::Failure,
        now_ms,
    )
    .unwrap();
}

const ALL: [LoadBalancing; 3] = [
    LoadBalancing::PeakEwma,
    LoadBalancing::RoundRobin,
    LoadBalancing::Weighted,
];

/// Requests come at a steady pace and each endpoint answers after its latency.
struct Simulation {
    worker: Worker,
    answers: BinaryHeap<Reverse<(u64, u64)>>,
    in_flight: HashMap<u64, (InFlight, Duration)>,
    counts: HashMap<u64, u32>,
    noise: fastrand::Rng,
    now_us: u64,
    serial: u64,
}

impl Simulation {
    fn new(seed: u64) -> Self {
        Self {
            worker: Worker::new(seed),
            answers: BinaryHeap::new(),
            in_flight: HashMap::new(),
            counts: HashMap::new(),
            noise: fastrand::Rng::with_seed(seed + 1),
            now_us: 1_000_000,
            serial: 0,
        }
    }

    fn run(
        &mut self,
        backend: &Backend,
        rps: u64,
        milliseconds: u64,
        latency: impl Fn(u64, &mut fastrand::Rng) -> u64,
    ) {
        let end = self.now_us + milliseconds * 1000;
        while self.now_us < end {
            self.now_us += 1_000_000 / rps;
            while let Some(Reverse((at, serial))) = self
                .answers
                .peek()
                .copied()
                .filter(|answer| answer.0.0 <= self.now_us)
            {
                self.answers.pop();
                let (picked, latency) = self.in_flight.remove(&serial).unwrap();
                self.worker
                    .averages
                    .observe(picked.endpoint().key, latency, at / 1000);
            }
            let picked = self.worker.pick(backend, &[], self.now_us / 1000).unwrap();
            let key = picked.endpoint().key.0;
            let time = latency(key, &mut self.noise);
            *self.counts.entry(key).or_default() += 1;
            self.serial += 1;
            self.answers
                .push(Reverse((self.now_us + time, self.serial)));
            self.in_flight
                .insert(self.serial, (picked, Duration::from_micros(time)));
        }
    }

    fn share(&self, key: u64) -> f64 {
        let all: u32 = self.counts.values().sum();
        f64::from(self.counts.get(&key).copied().unwrap_or_default()) / f64::from(all)
    }
}

/// 1 to 3 ms, and now and then ten times as long.
fn usual(_: u64, noise: &mut fastrand::Rng) -> u64 {
    let time = noise.u64(1000..3000);
    if noise.u32(..100) == 0 {
        time * 10
    } else {
        time
    }
}

#[test]
fn ten_equal_backends_get_equal_shares() {
    for (seed, rps) in [(1, 10), (2, 200), (5, 200), (8, 1000), (4, 5000)] {
        let backend = backend(LoadBalancing::PeakEwma, &[1; 10]);
        let mut simulation = Simulation::new(seed);
        let milliseconds = if rps < 100 { 600_000 } else { 30_000 };
        simulation.run(&backend, rps, milliseconds, usual);
        let variance: f64 = (0..10)
            .map(|key| (simulation.share(key) * 10.0 - 1.0).powi(2))
            .sum::<f64>()
            / 10.0;
        assert!(variance.sqrt() < 0.1, "{rps} rps: {:?}", simulation.counts);
    }
}

#[test]
fn a_backend_ten_times_slower_gets_less_than_a_third_of_its_share() {
    for (seed, rps) in [(1, 50), (2, 500), (3, 5000)] {
        let backend = backend(LoadBalancing::PeakEwma, &[1; 5]);
        let mut simulation = Simulation::new(seed);
        simulation.run(&backend, rps, 20_000, |key, noise| {
            usual(key, noise) * if key == 0 { 10 } else { 1 }
        });
        assert!(
            simulation.share(0) < 0.2 / 3.0,
            "{rps} rps: {:?}",
            simulation.counts
        );
    }
}

#[test]
fn a_cold_first_answer_is_forgotten_soon_and_real_slowness_is_not() {
    let backend = backend(LoadBalancing::PeakEwma, &[1; 2]);
    let mut worker = Worker::new(1);
    // Both have been there for long, but only one was ever asked.
    let _ = worker.key(&backend, &[], 1);
    let (usual, slow) = (Duration::from_millis(5), Duration::from_secs(5));
    for now_ms in 1..10_000 {
        worker.averages.observe(EndpointKey(0), usual, now_ms);
    }
    worker.averages.observe(EndpointKey(1), slow, 10_000);
    // A second of the few requests that go and look.
    for tenth in 1..=10 {
        worker
            .averages
            .observe(EndpointKey(1), usual, 10_000 + tenth * 100);
    }
    let picks = (0..1000).filter(|_| worker.key(&backend, &[], 11_001) == Ok(1));
    assert!(picks.count() > 300);

    for answer in 0..7 {
        worker
            .averages
            .observe(EndpointKey(1), slow, 11_001 + answer);
    }
    let picks = (0..1000).filter(|_| worker.key(&backend, &[], 11_010) == Ok(1));
    assert!(picks.count() < 80);
}

#[test]
fn a_backend_that_slows_down_and_recovers_loses_its_share_and_gets_it_back() {
    let backend = backend(LoadBalancing::PeakEwma, &[1; 5]);
    let mut simulation = Simulation::new(1);
    simulation.run(&backend, 1000, 10_000, usual);
    simulation.counts.clear();
    simulation.run(&backend, 1000, 10_000, |key, noise| {
        usual(key, noise) * if key == 0 { 20 } else { 1 }
    });
    assert!(simulation.share(0) < 0.2 / 3.0, "{:?}", simulation.counts);
    simulation.run(&backend, 1000, 30_000, usual);
    simulation.counts.clear();
    simulation.run(&backend, 1000, 10_000, usual);
    assert!(simulation.share(0) > 0.2 * 0.8, "{:?}", simulation.counts);
}

#[test]
fn a_new_backend_is_not_flooded_and_has_its_share_within_ten_seconds() {
    let cells = Arc::default();
    let endpoints: Vec<_> = (0..5)
        .map(|key| samples::endpoint(key, 1, EndpointState::Ready, &cells))
        .collect();
    let of = |count: usize| {
        let policy = Arc::new(policy(LoadBalancing::PeakEwma));
        Backend::new(
            samples::service("cart"),
            80,
            policy,
            endpoints[..count].to_vec(),
            Arc::clone(&cells),
        )
    };
    for rps in [100, 2000] {
        let mut simulation = Simulation::new(rps);
        simulation.run(&of(4), rps, 20_000, usual);
        simulation.counts.clear();
        simulation.run(&of(5), rps, 1000, usual);
        assert!(
            simulation.share(4) < 0.2 * 0.8,
            "warming up: {:?}",
            simulation.counts
        );
        simulation.run(&of(5), rps, 9000, usual);
        assert!(simulation.share(4) > 0.2 * 0.8, "{:?}", simulation.counts);
    }
}

#[test]
fn a_backend_that_hangs_gets_no_more_than_what_it_takes_to_see_it() {
    let backend = backend(LoadBalancing::PeakEwma, &[1; 5]);
    let mut simulation = Simulation::new(1);
    simulation.run(&backend, 1000, 30_000, |key, noise| {
        if key == 0 {
            3_600_000_000
        } else {
            usual(key, noise)
        }
    });
    assert!(simulation.counts[&0] < 100, "{:?}", simulation.counts);
}

#[test]
fn failing_fast_attracts_nobody() {
    let backend = backend(LoadBalancing::PeakEwma, &[1; 2]);
    let mut worker = Worker::new(1);
    let mut failures = 0;
    for now in 0..10_000 {
        let key = EndpointKey(worker.key(&backend, &[], now).unwrap());
        if key == EndpointKey(0) {
            failures += 1;
            worker.averages.punish(key, now);
        } else {
            worker.averages.observe(key, Duration::from_millis(2), now);
        }
    }
    // Its fair share is 5,000; looking whether it is back costs a tenth.
    assert!(failures < 600, "{failures}");
}

#[test]
fn round_robin_and_weights_are_exact() {
    let even = backend(LoadBalancing::RoundRobin, &[1; 4]);
    let weighted = backend(LoadBalancing::Weighted, &[1, 2, 5]);
    let mut worker = Worker::new(1);
    let mut count = |backend: &Backend, picks: usize| {
        let mut counts = vec![0; backend.endpoints.len()];
        (0..picks).for_each(|_| counts[worker.key(backend, &[], 1).unwrap() as usize] += 1);
        counts
    };
    assert_eq!(count(&even, 400), [100, 100, 100, 100]);
    assert_eq!(count(&weighted, 800), [100, 200, 500]);
    // One that is out leaves the others' proportion.
    eject(&weighted, 2, 1);
    assert_eq!(count(&weighted, 300), [100, 200, 0]);
}

#[test]
fn draining_gets_nothing_and_none_ready_is_no_endpoints() {
    for load_balancing in ALL {
        let cells = Arc::default();
        let of = |states: &[EndpointState]| {
            let endpoints = states
                .iter()
                .zip(0..)
                .map(|(state, key)| samples::endpoint(key, 1, *state, &cells))
                .collect();
            Backend::new(
                samples::service("cart"),
                80,
                Arc::new(policy(load_balancing)),
                endpoints,
                Arc::clone(&cells),
            )
        };
        let mut worker = Worker::new(1);
        let one = of(&[
            EndpointState::Draining,
            EndpointState::Ready,
            EndpointState::Draining,
        ]);
        assert!((0..100).all(|_| worker.key(&one, &[], 1) == Ok(1)));
        assert_eq!(worker.key(&one, &[1], 1), Err(Nobody::AllTried));
        assert_eq!(worker.key(&of(&[]), &[], 1), Err(Nobody::NoEndpoints));
        // None is ready: those that still serve are better than none.
        let all = of(&[EndpointState::Draining; 2]);
        assert!((0..100).all(|_| worker.key(&all, &[], 1).is_ok()));
        assert_eq!(worker.key(&all, &[1], 1), Ok(0));
        assert_eq!(worker.key(&all, &[0, 1], 1), Err(Nobody::AllTried));
    }
}

/// Two hinted to our zone and two that aren't.
fn in_two_zones(load_balancing: LoadBalancing) -> Backend {
    let cells = Arc::default();
    let hinted = |key: u64, zone: &str| {
        samples::placed(key, EndpointState::Ready, &cells, |endpoint| {
            endpoint.hints = Hints {
                zones: Arc::new([zone.into()]),
                ..Hints::default()
            };
        })
    };
    let endpoints = vec![
        hinted(0, "there"),
        hinted(1, "here"),
        hinted(2, "there"),
        hinted(3, "here"),
    ];
    let here = Here {
        node: "n".into(),
        zone: "here".into(),
    };
    let policy = Arc::new(policy(load_balancing));
    let cells = Arc::clone(&cells);
    Backend::seen_from(
        &here,
        samples::service("cart"),
        80,
        policy,
        endpoints,
        cells,
    )
}

#[test]
fn the_own_zone_has_all_until_nobody_of_it_can_be_used() {
    for load_balancing in ALL {
        let backend = in_two_zones(load_balancing);
        let place = |key: u64| backend.endpoints.iter().position(|it| it.key.0 == key);
        let mut worker = Worker::new(1);
        let mut seen = |now_ms: u64, tried: &[u64]| {
            let mut keys: Vec<_> = (0..100)
                .map(|_| worker.key(&backend, tried, now_ms).unwrap())
                .collect();
            keys.sort_unstable();
            keys.dedup();
            keys
        };
        assert_eq!(seen(1, &[]), [1, 3], "{load_balancing:?}");
        assert_eq!(seen(1, &[1]), [3]);
        // Another try finds somebody as long as there is one.
        assert_eq!(seen(1, &[1, 3]), [0, 2]);
        eject(&backend, place(1).unwrap(), 1);
        assert_eq!(seen(2, &[]), [3]);
        eject(&backend, place(3).unwrap(), 1);
        assert_eq!(seen(2, &[]), [0, 2]);
        // The first request after the ejection finds out whether it is over.
        let mut probe = worker.pick(&backend, &[], 5001).unwrap();
        assert!(matches!(probe.endpoint().key.0, 1 | 3));
        probe.report(&backend, Verdict::Success, 5001).unwrap();
    }
}

#[test]
fn own_node_only_is_served_by_the_own_node_or_not_at_all() {
    for load_balancing in ALL {
        let cells = Arc::default();
        let on = |key: u64, node: &str| {
            samples::placed(key, EndpointState::Ready, &cells, |endpoint| {
                endpoint.node = node.into();
            })
        };
        let policy = Arc::new(BackendPolicy {
            own_node_only: true,
            ..policy(load_balancing)
        });
        let of = |node: &str, endpoints: Vec<Arc<Endpoint>>| {
            let here = Here {
                node: node.into(),
                zone: "".into(),
            };
            let (policy, cells) = (Arc::clone(&policy), Arc::clone(&cells));
            Backend::seen_from(
                &here,
                samples::service("cart"),
                80,
                policy,
                endpoints,
                cells,
            )
        };
        let mut worker = Worker::new(1);
        let both = vec![on(0, "a"), on(1, "b")];
        let from_b = of("b", both.clone());
        assert!((0..100).all(|_| worker.key(&from_b, &[], 1) == Ok(1)));
        assert_eq!(worker.key(&from_b, &[1], 1), Err(Nobody::AllTried));
        // Ejected or not, it is the only one.
        assert_eq!(from_b.ready().len(), 1);
        let from_c = of("c", both);
        assert_eq!(worker.key(&from_c, &[], 1), Err(Nobody::NoLocalEndpoints));
        assert_eq!(Nobody::NoLocalEndpoints.reason(), Reason::NoLocalEndpoints);
        assert_eq!(
            worker.key(&of("c", Vec::new()), &[], 1),
            Err(Nobody::NoEndpoints)
        );
    }
}

#[test]
fn each_other_endpoint_is_tried_once() {
    for load_balancing in ALL {
        let backend = backend(load_balancing, &[1; 20]);
        let (mut worker, mut tried) = (Worker::new(1), Vec::new());
        while let Ok(key) = worker.key(&backend, &tried, 1) {
            assert!(!tried.contains(&key));
            tried.push(key);
        }
        assert_eq!(tried.len(), 20);
    }
}

#[test]
fn an_ejected_one_gets_nothing_but_its_probe() {
    for load_balancing in ALL {
        let backend = backend(load_balancing, &[1; 3]);
        let mut worker = Worker::new(1);
        eject(&backend, 0, 1);
        assert!((0..200).all(|_| worker.key(&backend, &[], 5000) != Ok(0)));
        assert_eq!(worker.key(&backend, &[1, 2], 5000), Err(Nobody::AllTried));
        let mut probes: Vec<_> = (0..200)
            .map(|_| worker.pick(&backend, &[], 5001).unwrap())
            .collect();
        probes.retain(|picked| picked.endpoint().key.0 == 0);
        let [mut probe] = <[InFlight; 1]>::try_from(probes).unwrap();
        assert_eq!(probe.began().unwrap().why, breaker::Why::TimeOver);
        let back = probe.report(&backend, Verdict::Success, 5002).unwrap();
        assert_eq!(back.why, breaker::Why::ProbeSucceeded);
        drop(probe);
        assert!((0..200).any(|_| worker.key(&backend, &[], 5002) == Ok(0)));
    }
}

#[test]
fn a_copy_never_probes_and_goes_to_nobody_while_all_are_out() {
    for load_balancing in ALL {
        let backend = backend(load_balancing, &[1; 2]);
        let mut worker = Worker::new(1);
        let mut copy = |now_ms| {
            let Worker { averages, random } = &mut worker;
            pick_for_copy(&backend, averages, now_ms, random).map(|it| it.endpoint().key.0)
        };
        eject(&backend, 0, 1);
        // Its time is over at 5001.
        assert!((0..200).all(|_| copy(6000) == Ok(1)));
        let state = breaker::state(&backend.endpoints[0]);
        assert!(matches!(state, breaker::State::Ejected { .. }), "{state:?}");
    }
    let backend = samples::backend(policy(LoadBalancing::PeakEwma), &[]);
    let mut worker = Worker::new(1);
    let none = pick_for_copy(&backend, &mut worker.averages, 1, &mut worker.random);
    assert_eq!(none.unwrap_err(), Nobody::NoEndpoints);
}

#[test]
fn while_all_are_out_any_serves_and_proves_nothing() {
    for load_balancing in ALL {
        let cells = Arc::default();
        let endpoints: Vec<_> = (0..3)
            .map(|key| samples::endpoint(key, 1, EndpointState::Ready, &cells))
            .collect();
        let of = |endpoints: &[Arc<Endpoint>]| {
            let policy = Arc::new(policy(load_balancing));
            Backend::new(
                samples::service("cart"),
                80,
                policy,
                endpoints.to_vec(),
                Arc::clone(&cells),
            )
        };
        let before = of(&endpoints);
        eject(&before, 0, 1);
        eject(&before, 1, 1);
        // The healthy one goes: the last one left is out, and still serves.
        let after = of(&endpoints[..2]);
        let mut worker = Worker::new(1);
        let mut seen = [0; 2];
        for _ in 0..100 {
            let mut picked = worker.pick(&after, &[], 2).unwrap();
            seen[picked.endpoint().key.0 as usize] += 1;
            assert_eq!(picked.report(&after, Verdict::Success, 2), None);
            let Worker { averages, random } = &mut worker;
            let copy = pick_for_copy(&after, averages, 2, random);
            assert_eq!(copy.unwrap_err(), Nobody::AllTried);
        }
        assert!(seen.iter().all(|count| *count > 20), "{seen:?}");
        assert_eq!(worker.key(&after, &[0], 2), Ok(1));
        assert_eq!(worker.key(&after, &[0, 1], 2), Err(Nobody::AllTried));
    }
}

#[test]
fn half_of_a_hundred_out_leaves_even_shares() {
    let backend = backend(LoadBalancing::PeakEwma, &[1; 100]);
    (0..100).step_by(2).for_each(|at| eject(&backend, at, 1));
    let (mut worker, mut counts) = (Worker::new(1), [0; 100]);
    (0..50_000).for_each(|_| counts[worker.key(&backend, &[], 2).unwrap() as usize] += 1);
    for (key, count) in counts.iter().enumerate() {
        assert!(
            if key % 2 == 0 {
                *count == 0
            } else {
                (700..1300).contains(count)
            },
            "{key}: {count}"
        );
    }
}

#[test]
fn requests_in_flight_are_counted_until_dropped() {
    let backend = backend(LoadBalancing::PeakEwma, &[1]);
    let mut worker = Worker::new(1);
    let picked = [
        worker.pick(&backend, &[], 1).unwrap(),
        worker.pick(&backend, &[], 1).unwrap(),
    ];
    assert_eq!(
        backend.endpoints[0].cells.in_flight.load(Ordering::Relaxed),
        2
    );
    drop(picked);
    assert_eq!(
        backend.endpoints[0].cells.in_flight.load(Ordering::Relaxed),
        0
    );
}

#[test]
fn averages_forget_what_the_snapshot_no_longer_holds() {
    let mut averages = Averages::new();
    (0..10).for_each(|key| averages.observe(EndpointKey(key), Duration::from_millis(1), 1));
    averages.retain(|key| key.0 < 3);
    assert_eq!(averages.len(), 3);
}

proptest! {
    /// Whatever is ejected and tried: a pick is ready and untried, is in while
    /// any is in, and is refused only when nothing is left.
    #[test]
    fn a_pick_is_always_allowed(
        count in 1_usize..12,
        out in prop::collection::vec(any::<bool>(), 12),
        tried in prop::collection::vec(any::<bool>(), 12),
        kind in prop::sample::select(ALL.to_vec()),
        seed in any::<u64>(),
    ) {
        let backend = backend(kind, &vec![2; count]);
        let healthy = (0..count).filter(|at| !out[*at]).count();
        if healthy > 0 {
            (0..count).filter(|at| out[*at]).for_each(|at| eject(&backend, at, 1));
        }
        let tried: Vec<u64> = (0..count).filter(|at| tried[*at]).map(|at| at as u64).collect();
        let is_left = (0..count).any(|at| (healthy == 0 || !out[at]) && !tried.contains(&(at as u64)));
        match Worker::new(seed).key(&backend, &tried, 2) {
            Ok(key) => {
                prop_assert!(!tried.contains(&key));
                prop_assert!(healthy == 0 || !out[key as usize]);
            }
            Err(nobody) => {
                prop_assert_eq!(nobody, Nobody::AllTried);
                prop_assert!(!is_left);
            }
        }
    }
}

//! Exactly N, never too many, never the last one, and back by one probe.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::discovery::{BackendPolicy, EndpointState, samples};

fn policy(failures: u32, percent: u32) -> BackendPolicy {
    let circuit_breaking = CircuitBreaking {
        consecutive_failures: failures,
        base_ejection: Duration::from_secs(5),
        max_ejection: Duration::from_secs(30),
        max_ejected_percent: percent,
    };
    BackendPolicy {
        circuit_breaking,
        ..BackendPolicy::default()
    }
}

fn backend(failures: u32, percent: u32, count: usize) -> Arc<Backend> {
    samples::backend(policy(failures, percent), &vec![1; count])
}

fn attempt(backend: &Backend, at: usize, verdict: Verdict, now_ms: u64) -> Option<Transition> {
    let endpoint = &backend.endpoints[at];
    let (mut pass, _) = admit(endpoint, now_ms)?;
    report(backend, endpoint, &mut pass, verdict, now_ms)
}

fn ejected(backend: &Backend) -> u32 {
    backend.cells.ejected.load(Ordering::SeqCst)
}

#[test]
fn exactly_n_failures_in_a_row_eject() {
    let backend = backend(3, 50, 2);
    for _ in 0..2 {
        assert_eq!(attempt(&backend, 0, Verdict::Failure, 1), None);
        assert_eq!(attempt(&backend, 0, Verdict::Failure, 1), None);
        assert_eq!(attempt(&backend, 0, Verdict::Ignore, 1), None);
        assert_eq!(state(&backend.endpoints[0]), State::In { failures: 2 });
        assert_eq!(attempt(&backend, 0, Verdict::Success, 1), None);
    }
    for _ in 0..2 {
        assert_eq!(attempt(&backend, 0, Verdict::Failure, 1), None);
    }
    let out = State::Ejected { until_ms: 5001 };
    let transition = Transition {
        from: State::In { failures: 3 },
        to: out,
        why: Why::ConsecutiveFailures,
    };
    assert_eq!(attempt(&backend, 0, Verdict::Failure, 1), Some(transition));
    assert_eq!((state(&backend.endpoints[0]), ejected(&backend)), (out, 1));
    assert!(admit(&backend.endpoints[0], 5000).is_none());
}

#[test]
fn zero_never_ejects() {
    let backend = backend(0, 50, 2);
    for _ in 0..100 {
        assert_eq!(attempt(&backend, 0, Verdict::Failure, 1), None);
    }
    assert!(is_open(&backend.endpoints[0], 1));
}

#[test]
fn one_probe_at_a_time_brings_it_back() {
    let backend = backend(1, 50, 2);
    let endpoint = &backend.endpoints[0];
    attempt(&backend, 0, Verdict::Failure, 1).unwrap();
    let (mut probe, began) = admit(endpoint, 5001).unwrap();
    assert_eq!(began.unwrap().why, Why::TimeOver);
    assert!(probe.is_probe() && admit(endpoint, 9999).is_none());
    let ended = report(&backend, endpoint, &mut probe, Verdict::Success, 5002).unwrap();
    assert_eq!(
        (ended.to, ended.why),
        (State::In { failures: 0 }, Why::ProbeSucceeded)
    );
    assert_eq!(ejected(&backend), 0);
    assert_eq!(
        report(&backend, endpoint, &mut probe, Verdict::Failure, 5002),
        None,
        "a pass reports once"
    );
}

#[test]
fn a_probe_that_fails_ejects_for_longer_up_to_the_maximum() {
    let backend = backend(1, 50, 2);
    attempt(&backend, 0, Verdict::Failure, 0).unwrap();
    let mut now = 0;
    for expected in [5000, 10_000, 20_000, 30_000, 30_000] {
        let State::Ejected { until_ms } = state(&backend.endpoints[0]) else {
            panic!("it is in")
        };
        assert_eq!(until_ms - now, expected);
        now = until_ms;
        assert_eq!(
            attempt(&backend, 0, Verdict::Failure, now).unwrap().why,
            Why::ProbeFailed
        );
    }
    assert_eq!(ejected(&backend), 1);
}

#[test]
fn a_probe_that_is_abandoned_leaves_room_for_the_next() {
    let backend = backend(1, 50, 2);
    let endpoint = &backend.endpoints[0];
    attempt(&backend, 0, Verdict::Failure, 0).unwrap();
    drop(admit(endpoint, 5000).unwrap());
    assert_eq!(state(endpoint), State::Ejected { until_ms: 5000 });
    assert_eq!(
        attempt(&backend, 0, Verdict::Ignore, 5000).unwrap().why,
        Why::ProbeAbandoned
    );
    assert_eq!(
        attempt(&backend, 0, Verdict::Success, 5000).unwrap().why,
        Why::ProbeSucceeded
    );
}

#[test]
fn what_was_sent_before_the_ejection_changes_nothing_after() {
    let backend = backend(1, 50, 2);
    let endpoint = &backend.endpoints[0];
    let mut early: Vec<_> = (0..3).map(|_| admit(endpoint, 0).unwrap().0).collect();
    attempt(&backend, 0, Verdict::Failure, 0).unwrap();
    for (pass, verdict) in
        early
            .iter_mut()
            .zip([Verdict::Success, Verdict::Failure, Verdict::Ignore])
    {
        assert_eq!(report(&backend, endpoint, pass, verdict, 1), None);
        assert_eq!(state(endpoint), State::Ejected { until_ms: 5000 });
    }
}

#[test]
fn good_conduct_shortens_the_next_ejection() {
    let backend = backend(1, 50, 2);
    attempt(&backend, 0, Verdict::Failure, 0).unwrap();
    attempt(&backend, 0, Verdict::Failure, 5000).unwrap();
    attempt(&backend, 0, Verdict::Success, 15_000).unwrap();
    // It was out for 10 s: until it was in for as long, the row of ejections stands.
    attempt(&backend, 0, Verdict::Success, 24_999);
    assert_eq!(read(&backend.endpoints[0].cells).ejections, 2);
    attempt(&backend, 0, Verdict::Success, 25_000);
    assert_eq!(read(&backend.endpoints[0].cells).ejections, 1);
    attempt(&backend, 0, Verdict::Success, 30_000);
    let to = attempt(&backend, 0, Verdict::Failure, 30_000).unwrap().to;
    assert_eq!(to, State::Ejected { until_ms: 35_000 });
}

#[test]
fn never_more_than_the_fraction_and_never_the_last() {
    for (percent, count, most) in [
        (50, 10, 5),
        (50, 3, 1),
        (50, 1, 0),
        (100, 1, 0),
        (100, 4, 3),
        (10, 5, 0),
        (0, 9, 0),
        (250, 3, 2),
    ] {
        let backend = backend(1, percent, count);
        for at in 0..count {
            attempt(&backend, at, Verdict::Failure, 1);
        }
        let out = backend
            .endpoints
            .iter()
            .filter(|endpoint| state(endpoint).is_out())
            .count();
        assert_eq!(
            (out, ejected(&backend)),
            (most, most as u32),
            "{percent} % of {count}"
        );
    }
}

#[test]
fn the_only_ready_one_is_the_last_one() {
    let cells = Arc::default();
    let endpoints = [
        (0, EndpointState::Ready),
        (1, EndpointState::Draining),
        (2, EndpointState::Draining),
    ]
    .map(|(key, state)| samples::endpoint(key, 1, state, &cells));
    let backend = Backend::new(
        samples::service("cart"),
        80,
        Arc::new(policy(1, 100)),
        endpoints.into(),
        cells,
    );
    assert_eq!(attempt(&backend, 0, Verdict::Failure, 1), None);
}

#[test]
fn an_endpoint_that_goes_while_it_is_out_gives_its_place_back() {
    let backend = backend(1, 50, 4);
    let cells = Arc::clone(&backend.cells);
    attempt(&backend, 0, Verdict::Failure, 1).unwrap();
    attempt(&backend, 1, Verdict::Failure, 1).unwrap();
    assert_eq!(attempt(&backend, 2, Verdict::Failure, 1), None);
    drop(backend);
    assert_eq!(cells.ejected.load(Ordering::SeqCst), 0);
}

#[test]
fn a_word_survives_its_packing() {
    for phase in [Phase::In, Phase::Out, Phase::Probing] {
        for (ejections, failures, time_ms) in [
            (0, 0, 0),
            (1, 2, 3),
            (Word::MOST_EJECTIONS, Word::MOST_FAILURES, Word::LATEST_MS),
        ] {
            let word = Word {
                phase,
                ejections,
                failures,
                time_ms,
            };
            assert_eq!(Word::unpack(word.pack()), word);
        }
    }
}

#[test]
fn exactly_n_holds_over_workers() {
    // Every thread reports failures of its own; together one short of N.
    for round in 0..50 {
        let backend = backend(400, 50, 2);
        let failures = |count: u32| {
            let backend = &backend;
            move || {
                (0..count)
                    .filter(|_| attempt(backend, 0, Verdict::Failure, 1).is_some())
                    .count()
            }
        };
        let transitions: usize = std::thread::scope(|scope| {
            let workers: Vec<_> = [100, 100, 100, 99]
                .map(|count| scope.spawn(failures(count)))
                .into();
            workers
                .into_iter()
                .map(|worker| worker.join().unwrap())
                .sum()
        });
        assert_eq!(
            (transitions, state(&backend.endpoints[0])),
            (0, State::In { failures: 399 }),
            "{round}"
        );
        assert!(attempt(&backend, 0, Verdict::Failure, 1).is_some());
    }
}

#[test]
fn the_fraction_and_the_single_probe_hold_over_workers() {
    for round in 0..50 {
        let backend = backend(1, 50, 8);
        let story = |worker: usize| {
            let backend = &backend;
            move || {
                let mut random = fastrand::Rng::with_seed((round * 4 + worker) as u64);
                for step in 0..300 {
                    let verdict = if random.bool() {
                        Verdict::Failure
                    } else {
                        Verdict::Success
                    };
                    attempt(backend, random.usize(..8), verdict, step * 100);
                    assert!(ejected(backend) <= 4);
                    let out = backend
                        .endpoints
                        .iter()
                        .filter(|endpoint| state(endpoint).is_out())
                        .count();
                    assert!(out < 8);
                }
            }
        };
        std::thread::scope(|scope| (0..4).for_each(|worker| drop(scope.spawn(story(worker)))));
        let out = backend
            .endpoints
            .iter()
            .filter(|endpoint| state(endpoint).is_out())
            .count();
        assert_eq!(ejected(&backend) as usize, out);
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Admit(usize),
    /// Of the oldest pass of the endpoint.
    Report(usize, Verdict),
    Leave(usize),
    Wait(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let verdict = prop::sample::select(vec![
        Verdict::Success,
        Verdict::Failure,
        Verdict::Failure,
        Verdict::Ignore,
    ]);
    let step = prop_oneof![
        3 => (0_usize..4).prop_map(Step::Admit),
        3 => (0_usize..4, verdict).prop_map(|(at, verdict)| Step::Report(at, verdict)),
        1 => (0_usize..4).prop_map(Step::Leave),
        1 => (0_u64..8000).prop_map(Step::Wait),
    ];
    prop::collection::vec(step, 0..120)
}

proptest! {
    /// Against a model that counts by hand.
    #[test]
    fn any_interleaving_of_passes_keeps_the_promises(steps in steps(), threshold in 1_u32..4) {
        let backend = backend(threshold, 75, 4);
        let mut passes: Vec<Vec<Pass>> = (0..4).map(|_| Vec::new()).collect();
        let (mut now, mut in_a_row) = (1, [0_u32; 4]);
        for step in steps {
            match step {
                Step::Wait(time) => now += time,
                Step::Admit(at) => {
                    let before = state(&backend.endpoints[at]);
                    let pass = admit(&backend.endpoints[at], now);
                    let expected = match before {
                        State::In { .. } => true,
                        State::Ejected { until_ms } => until_ms <= now,
                        State::Probing => false,
                    };
                    prop_assert_eq!(pass.is_some(), expected);
                    passes[at].extend(pass.map(|(pass, _)| pass));
                }
                Step::Leave(at) => drop(passes[at].pop()),
                Step::Report(at, verdict) => {
                    if passes[at].is_empty() {
                        continue;
                    }
                    let mut pass = passes[at].remove(0);
                    let (was_in, is_probe) = (!state(&backend.endpoints[at]).is_out(), pass.is_probe());
                    let changed = report(&backend, &backend.endpoints[at], &mut pass, verdict, now);
                    match verdict {
                        Verdict::Success if was_in || is_probe => in_a_row[at] = 0,
                        Verdict::Failure if was_in => in_a_row[at] += 1,
                        _ => {}
                    }
                    let is_ejected = matches!(changed, Some(change) if change.why == Why::ConsecutiveFailures);
                    if is_ejected {
                        prop_assert!(in_a_row[at] >= threshold);
                        in_a_row[at] = 0;
                    } else if was_in && verdict == Verdict::Failure && in_a_row[at] >= threshold {
                        prop_assert_eq!(ejected(&backend), 3, "it stays only when no place is left");
                    }
                }
            }
            let out = backend.endpoints.iter().filter(|endpoint| state(endpoint).is_out()).count();
            prop_assert_eq!(out as u32, ejected(&backend));
            prop_assert!(out <= 3);
        }
    }
}

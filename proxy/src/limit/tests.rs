//! Limits are exact; the budget is a share of what was asked.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::discovery::{BackendPolicy, Retries, samples};

fn backend(percent: u32, minimum: u32) -> Arc<Backend> {
    let defaults = BackendPolicy::default();
    let retries = Retries {
        budget_percent: percent,
        budget_minimum_per_second: minimum,
        ..defaults.retries
    };
    samples::backend(
        BackendPolicy {
            retries,
            ..defaults
        },
        &[1],
    )
}

fn withdrawals(backend: &Backend, now_ms: u64) -> usize {
    (0..1000).take_while(|_| withdraw(backend, now_ms)).count()
}

#[test]
fn counting_stops_at_the_limit() {
    let counter = AtomicU32::new(0);
    assert!(take(&counter, Some(1)));
    assert!(!take(&counter, Some(1)));
    assert!(take(&counter, None));
    assert_eq!(counter.into_inner(), 2);
}

#[test]
fn a_fifth_of_the_requests_may_be_retried() {
    let backend = backend(20, 0);
    assert_eq!(withdrawals(&backend, 1), 0);
    (0..100).for_each(|_| deposit(&backend, 1));
    assert_eq!(remaining(&backend, 1), 20);
    assert_eq!(withdrawals(&backend, 1), 20);
    assert_eq!(remaining(&backend, 1), 0);
}

#[test]
fn a_small_floor_is_there_without_requests() {
    let backend = backend(20, 3);
    assert_eq!(withdrawals(&backend, 5000), 30);
    assert_eq!(withdrawals(&backend, 5999), 0);
    assert_eq!(withdrawals(&backend, 14_999), 0);
    assert_eq!(withdrawals(&backend, 15_000), 30);
}

#[test]
fn requests_count_for_ten_seconds() {
    let backend = backend(10, 0);
    (0..100).for_each(|_| deposit(&backend, 1000));
    assert_eq!(remaining(&backend, 10_999), 10);
    assert_eq!(remaining(&backend, 11_000), 0);
    // The ring's cell is used again, from zero.
    (0..50).for_each(|_| deposit(&backend, 11_000));
    assert_eq!(remaining(&backend, 11_000), 5);
    // Long silence forgets everything.
    assert_eq!(remaining(&backend, 1_000_000), 0);
}

#[test]
fn workers_together_never_take_more_than_there_is() {
    for _ in 0..20 {
        let backend = backend(20, 0);
        (0..1000).for_each(|_| deposit(&backend, 1));
        let taken: usize = std::thread::scope(|scope| {
            let taker = || (0..200).filter(|_| withdraw(&backend, 1)).count();
            let workers: Vec<_> = (0..4).map(|_| scope.spawn(taker)).collect();
            workers
                .into_iter()
                .map(|worker| worker.join().unwrap())
                .sum()
        });
        assert!(taken <= 200, "{taken}");
        // A race may have refused some; they are still there.
        assert_eq!(taken + withdrawals(&backend, 1), 200);
    }
}

proptest! {
    /// Against a plain list of what happened when.
    #[test]
    fn the_ring_counts_like_a_list(events in prop::collection::vec((0_u64..4000, any::<bool>()), 0..200), percent in 0_u32..60, minimum in 0_u32..3) {
        let backend = backend(percent, minimum);
        let (mut now, mut requests, mut retries) = (1, Vec::new(), Vec::new());
        for (wait, is_request) in events {
            now += wait;
            let second = now / 1000;
            let recent = |times: &Vec<u64>| times.iter().filter(|time| **time + 10 > second).count() as u64;
            if is_request {
                deposit(&backend, now);
                requests.push(second);
                continue;
            }
            let granted = recent(&requests) * u64::from(percent) / 100 + u64::from(minimum) * 10;
            let expected = recent(&retries) < granted;
            prop_assert_eq!(withdraw(&backend, now), expected);
            if expected {
                retries.push(second);
            }
        }
    }
}

//! First come, first served; no slot is lost and none is given twice.

use std::{
    future::Future,
    pin::{Pin, pin},
    sync::atomic::AtomicU32,
    task::{Context, Poll, Waker},
    time::Duration,
};

use super::*;
use crate::discovery::{BackendPolicy, Limits, samples};

fn backend(requests: Option<u32>, pending: Option<u32>) -> Arc<Backend> {
    let limits = Limits {
        connections: None,
        requests,
        pending,
        pending_timeout: Duration::from_secs(1),
    };
    samples::backend(
        BackendPolicy {
            limits,
            ..BackendPolicy::default()
        },
        &[1],
    )
}

fn poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

fn counts(backend: &Backend) -> (u32, u32) {
    (
        backend.cells.requests.taken.load(Ordering::SeqCst),
        backend.cells.requests.waiting.load(Ordering::SeqCst),
    )
}

#[tokio::test(start_paused = true)]
async fn without_a_limit_everyone_enters_and_is_counted() {
    let backend = backend(None, None);
    let slots = [
        enter(&backend, None).await.unwrap(),
        enter(&backend, None).await.unwrap(),
    ];
    assert_eq!(counts(&backend), (2, 0));
    drop(slots);
    assert_eq!(counts(&backend), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn those_who_wait_are_served_in_order() {
    let backend = backend(Some(1), None);
    let first = enter(&backend, None).await.unwrap();
    let (mut second, mut third) = (pin!(enter(&backend, None)), pin!(enter(&backend, None)));
    assert!(poll(second.as_mut()).is_pending() && poll(third.as_mut()).is_pending());
    assert_eq!(counts(&backend), (1, 2));
    drop(first);
    // Whoever comes now comes after them, though a slot looks free.
    let mut fourth = pin!(enter(&backend, None));
    assert!(poll(fourth.as_mut()).is_pending() && poll(third.as_mut()).is_pending());
    let Poll::Ready(Ok(slot)) = poll(second.as_mut()) else {
        panic!("not served")
    };
    drop(slot);
    assert!(poll(fourth.as_mut()).is_pending());
    let Poll::Ready(Ok(slot)) = poll(third.as_mut()) else {
        panic!("not served")
    };
    drop(slot);
    assert!(poll(fourth.as_mut()).is_ready());
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_refuses_at_once_and_patience_ends() {
    let backend = backend(Some(1), Some(1));
    let _slot = enter(&backend, None).await.unwrap();
    let began = Instant::now();
    let mut waiting = pin!(enter(&backend, None));
    assert!(poll(waiting.as_mut()).is_pending());
    assert_eq!(
        enter(&backend, None).await.unwrap_err(),
        Reason::TooManyRequests
    );
    assert_eq!(began.elapsed(), Duration::ZERO);
    assert_eq!(waiting.await.unwrap_err(), Reason::PendingTimeout);
    assert_eq!(began.elapsed(), Duration::from_secs(1));
    let deadline = Instant::now() + Duration::from_millis(300);
    assert_eq!(
        enter(&backend, Some(deadline)).await.unwrap_err(),
        Reason::RequestTimeout
    );
    assert_eq!(counts(&backend), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn no_pending_means_none_waits() {
    let backend = backend(Some(1), Some(0));
    let _slot = enter(&backend, None).await.unwrap();
    assert_eq!(
        enter(&backend, None).await.unwrap_err(),
        Reason::TooManyRequests
    );
}

#[tokio::test(start_paused = true)]
async fn a_slot_granted_to_one_who_leaves_goes_to_the_next() {
    let backend = backend(Some(1), None);
    let first = enter(&backend, None).await.unwrap();
    let (mut second, mut third) = (Box::pin(enter(&backend, None)), pin!(enter(&backend, None)));
    assert!(poll(second.as_mut()).is_pending() && poll(third.as_mut()).is_pending());
    drop(first);
    drop(second);
    assert!(poll(third.as_mut()).is_ready());
    assert_eq!(counts(&backend), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn one_who_left_before_is_passed_over() {
    let backend = backend(Some(1), None);
    let first = enter(&backend, None).await.unwrap();
    let (mut second, mut third) = (Box::pin(enter(&backend, None)), pin!(enter(&backend, None)));
    assert!(poll(second.as_mut()).is_pending() && poll(third.as_mut()).is_pending());
    drop(second);
    drop(first);
    assert!(poll(third.as_mut()).is_ready());
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_comes_later_is_served_by_slots_taken_before() {
    let unlimited = backend(None, None);
    let early = enter(&unlimited, None).await.unwrap();
    let mut limited = backend(Some(1), None);
    Arc::get_mut(&mut limited).unwrap().cells = Arc::clone(&unlimited.cells);
    let mut waiting = pin!(enter(&limited, None));
    assert!(poll(waiting.as_mut()).is_pending());
    drop(early);
    assert!(poll(waiting.as_mut()).is_ready());
}

#[tokio::test(start_paused = true)]
async fn connections_wait_as_requests_do_and_apart_from_them() {
    let limits = Limits {
        connections: Some(1),
        requests: Some(1),
        pending: Some(1),
        pending_timeout: Duration::from_secs(1),
    };
    let defaults = BackendPolicy::default();
    let backend = samples::backend(BackendPolicy { limits, ..defaults }, &[1]);
    let enter = || connections(&backend).enter(None);
    let _request = super::enter(&backend, None).await.unwrap();
    let first = enter().await.unwrap();
    assert!(connections(&backend).is_full() && !is_wanted(first.places()));
    assert!(is_full(&backend));
    let mut waiting = pin!(enter());
    assert!(poll(waiting.as_mut()).is_pending());
    assert!(is_wanted(first.places()));
    assert_eq!(enter().await.unwrap_err(), Reason::TooManyConnections);
    drop(first);
    let second = waiting.await.unwrap();
    assert_eq!(enter().await.unwrap_err(), Reason::PendingTimeout);
    drop(second);
    assert!(!connections(&backend).is_full() && !is_full(&backend));
    assert!(enter().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn what_nobody_asked_for_takes_what_is_free_while_nobody_waits() {
    let backend = backend(Some(2), None);
    let spare = spare_request(&backend).unwrap();
    assert!(spare_request(&backend).is_none(), "never the last");
    let last = enter(&backend, None).await.unwrap();
    let mut waiting = pin!(enter(&backend, None));
    assert!(poll(waiting.as_mut()).is_pending());
    drop((spare, last));
    // A place is free now, and has its taker.
    assert!(spare_request(&backend).is_none());
    assert!(poll(waiting.as_mut()).is_ready());

    let unlimited = self::backend(None, None);
    let held: Vec<_> = (0..100).map(|_| spare_request(&unlimited)).collect();
    assert!(held.iter().all(Option::is_some));
}

#[tokio::test(start_paused = true)]
async fn a_connection_before_anyone_spoke_takes_the_last_place_and_no_turn() {
    let limits = Limits {
        connections: Some(1),
        requests: None,
        pending: None,
        pending_timeout: Duration::from_secs(1),
    };
    let defaults = BackendPolicy::default();
    let backend = samples::backend(BackendPolicy { limits, ..defaults }, &[1]);
    assert!(spare_connection(&backend).is_none());
    let early = connection_now(&backend).unwrap();
    assert!(connection_now(&backend).is_none());
    assert!(!is_wanted(early.places()), "nobody is in the queue");
}

#[test]
fn workers_together_never_exceed_the_limit_and_all_are_served() {
    let (backend, most) = (backend(Some(3), None), AtomicU32::new(0));
    let work = || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        runtime.block_on(async {
            for round in 0..200 {
                let several = (0..4).map(|at| {
                    let (backend, most) = (&backend, &most);
                    async move {
                        let slot = enter(backend, None).await.unwrap();
                        most.fetch_max(
                            backend.cells.requests.taken.load(Ordering::SeqCst),
                            Ordering::SeqCst,
                        );
                        if (round + at) % 2 == 0 {
                            tokio::task::yield_now().await;
                        }
                        drop(slot);
                    }
                });
                futures_util::future::join_all(several).await;
            }
        });
    };
    std::thread::scope(|scope| (0..4).for_each(|_| drop(scope.spawn(work))));
    assert_eq!(counts(&backend), (0, 0));
    assert!(most.into_inner() <= 3);
}

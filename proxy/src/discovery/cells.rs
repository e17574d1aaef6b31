//! Counters that all workers share and that outlive a snapshot.
//!
//! Plain atomics: `control::decode` carries them from one snapshot to the next
//! by key; `limit`, `upstream::queue` and `upstream::breaker` give them their
//! meaning. The one lock guards the list of those that wait for a full
//! destination; whoever need not wait never takes it.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
};

use tokio::sync::oneshot;

/// Of one endpoint as a member of one backend.
#[derive(Debug)]
pub(crate) struct EndpointCells {
    pub(crate) in_flight: AtomicU32,
    /// State, failures, ejections and their time in one word, so that each
    /// change is one exchange: `upstream::breaker` packs and unpacks it.
    pub(crate) breaker: AtomicU64,
    backend: Arc<BackendCells>,
}

impl EndpointCells {
    /// Set in `breaker` while the endpoint is out, and counted in `ejected`.
    pub(crate) const OUT: u64 = 1 << 63;

    /// Of a new endpoint of the backend with these cells.
    pub(crate) fn new(backend: &Arc<BackendCells>) -> Arc<Self> {
        Arc::new(Self {
            in_flight: AtomicU32::new(0),
            breaker: AtomicU64::new(0),
            backend: Arc::clone(backend),
        })
    }

    pub(crate) fn backend(&self) -> &Arc<BackendCells> {
        &self.backend
    }
}

impl Drop for EndpointCells {
    /// One that leaves the snapshot while it is out gives its place back.
    fn drop(&mut self) {
        if *self.breaker.get_mut() & Self::OUT != 0 {
            self.backend.ejected.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

/// Of one backend.
#[derive(Debug, Default)]
pub(crate) struct BackendCells {
    pub(crate) requests: Arc<Places>,
    pub(crate) connections: Arc<Places>,
    pub(crate) ejected: AtomicU32,
    /// Position in the turns of `RoundRobin` and `Weighted`.
    pub(crate) next: AtomicU64,
    pub(crate) budget: BudgetCells,
    /// Whom callers stay with, and since when they haven't called:
    /// `upstream::balance` packs and unpacks it. 0 is nobody.
    pub(crate) affinity: AtomicU64,
}

/// What a limit is held against, over all workers.
#[derive(Debug, Default)]
pub(crate) struct Places {
    pub(crate) taken: AtomicU32,
    pub(crate) waiting: AtomicU32,
    waiters: Mutex<VecDeque<Waiter>>,
}

/// Waits for a place to come free, in order.
#[derive(Debug)]
pub(crate) struct Waiter {
    /// Of its own snapshot's policy.
    pub(crate) limit: u32,
    /// The message moves one place, counted already.
    pub(crate) grant: oneshot::Sender<()>,
}

/// Of one backend's retry budget: one cell per second of the window, the
/// second in the upper half and its count in the lower one.
#[derive(Debug, Default)]
pub(crate) struct BudgetCells {
    pub(crate) requests: [AtomicU64; 10],
    pub(crate) retries: [AtomicU64; 10],
}

/// Of one rule: the position in its weights.
#[derive(Debug, Default)]
pub(crate) struct RuleCells {
    pub(crate) next: AtomicU64,
}

impl Places {
    /// Runs `f` on the list of waiters. Never across a wake-up: a waiter's
    /// waker may run anything.
    pub(crate) fn with_waiters<T>(&self, f: impl FnOnce(&mut VecDeque<Waiter>) -> T) -> T {
        f(&mut self.waiters.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

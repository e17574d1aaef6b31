//! Counters that all workers share and that outlive a snapshot.
//!
//! Plain atomics: `control::decode` carries them from one snapshot to the next
//! by key; `limit` and `upstream::breaker` give them their meaning. Never a lock.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};

/// Of one endpoint. Times are milliseconds of `clock::Epoch`.
#[derive(Debug, Default)]
pub(crate) struct EndpointCells {
    pub(crate) in_flight: AtomicU32,
    pub(crate) consecutive_failures: AtomicU32,
    /// 0 while it is in.
    pub(crate) ejected_until: AtomicU64,
    /// Ejections in a row; the next one lasts longer.
    pub(crate) ejections: AtomicU32,
    /// One request is out to see whether it is back.
    pub(crate) probing: AtomicBool,
}

/// Of one backend.
#[derive(Debug, Default)]
pub(crate) struct BackendCells {
    pub(crate) connections: AtomicU32,
    pub(crate) in_flight: AtomicU32,
    pub(crate) pending: AtomicU32,
    pub(crate) ejected: AtomicU32,
    pub(crate) next: AtomicU64,
}

/// Of one rule: the position in its weights.
#[derive(Debug, Default)]
pub(crate) struct RuleCells {
    pub(crate) next: AtomicU64,
}

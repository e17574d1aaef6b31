//! Limits and budgets. Pure.

use std::sync::Arc;

use crate::{
    discovery::{Backend, BackendCells},
    outcome::Reason,
};

/// A connection of the backend's limit; given back on drop.
#[derive(Debug)]
pub(crate) struct Connection(Arc<BackendCells>);

/// Takes one, or says `TooManyConnections`. Exact across workers.
pub(crate) fn connection(_backend: &Backend) -> Result<Connection, Reason> {
    unimplemented!()
}

/// Counts a request (not its retries) towards the retry budget.
pub(crate) fn deposit(_backend: &Backend, _now_ms: u64) {
    unimplemented!()
}

/// Takes one retry from the budget; false when it is spent.
pub(crate) fn withdraw(_backend: &Backend, _now_ms: u64) -> bool {
    unimplemented!()
}

/// Retries that the budget still grants.
pub(crate) fn remaining(_backend: &Backend, _now_ms: u64) -> u32 {
    unimplemented!()
}

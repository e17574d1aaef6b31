//! Requests in flight per backend, and the queue before them.

use std::sync::Arc;

use tokio::time::Instant;

use crate::{discovery::Backend, outcome::Reason};

/// One request in flight; given to the next in the queue on drop. Rides the
/// response body.
#[derive(Debug)]
pub(crate) struct Slot(Arc<Backend>);

/// Takes a slot, waits for one in turn, or says why not: `TooManyRequests`
/// (the queue is full), `PendingTimeout`, or `RequestTimeout` at `deadline`.
pub(crate) async fn enter(
    _backend: &Arc<Backend>,
    _deadline: Option<Instant>,
) -> Result<Slot, Reason> {
    unimplemented!()
}

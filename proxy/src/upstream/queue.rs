//! Requests in flight per backend, and the queue before them.
//!
//! Called by `http::exchange` between plan and attempt. A request without a
//! limit, or below it, costs one atomic increment. One above it waits in
//! order of arrival, over all workers, bounded in number and time.
//!
//! The queue's lock is taken by those who wait and by whoever ends while
//! somebody waits, never across an await or a wake-up.

use std::sync::{Arc, atomic::Ordering};

use tokio::{
    sync::oneshot,
    time::{Instant, timeout_at},
};

use crate::{
    discovery::{Backend, BackendCells, Waiter},
    limit,
    outcome::Reason,
};

/// One request in flight; given to the next in the queue on drop. Rides the
/// response body.
#[derive(Debug)]
pub(crate) struct Slot(Arc<BackendCells>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::SeqCst);
        if self.0.pending.load(Ordering::SeqCst) > 0 {
            serve(&self.0);
        }
    }
}

/// Takes a slot, waits for one in turn, or says why not: `TooManyRequests`
/// (the queue is full), `PendingTimeout`, or `RequestTimeout` at `deadline`.
pub(crate) async fn enter(backend: &Backend, deadline: Option<Instant>) -> Result<Slot, Reason> {
    let (limits, cells) = (&backend.policy.limits, &backend.cells);
    let Some(limit) = limits.requests else {
        cells.in_flight.fetch_add(1, Ordering::SeqCst);
        return Ok(Slot(Arc::clone(cells)));
    };
    // Who comes while others wait queues behind them.
    if cells.pending.load(Ordering::SeqCst) == 0 && limit::take(&cells.in_flight, Some(limit)) {
        return Ok(Slot(Arc::clone(cells)));
    }
    if !limit::take(&cells.pending, limits.pending) {
        return Err(Reason::TooManyRequests);
    }
    let turn = Turn::join(cells, limit);
    let patience = Instant::now() + limits.pending_timeout;
    match deadline.filter(|deadline| *deadline < patience) {
        Some(deadline) => turn.until(deadline, Reason::RequestTimeout).await,
        None => turn.until(patience, Reason::PendingTimeout).await,
    }
}

/// Takes a slot that is free now: for what nobody waits for.
pub(crate) fn enter_now(backend: &Backend) -> Option<Slot> {
    let (limit, cells) = (backend.policy.limits.requests, &backend.cells);
    limit::take(&cells.in_flight, limit).then(|| Slot(Arc::clone(cells)))
}

/// A place in the queue; left on drop.
struct Turn<'a> {
    cells: &'a Arc<BackendCells>,
    granted: oneshot::Receiver<()>,
}

impl<'a> Turn<'a> {
    /// `pending` counts it already. A slot that came free before it was in the
    /// list was not offered to it, so it looks once itself.
    fn join(cells: &'a Arc<BackendCells>, limit: u32) -> Self {
        let (grant, granted) = oneshot::channel();
        let turn = Self { cells, granted };
        cells.with_waiters(|waiters| waiters.push_back(Waiter { limit, grant }));
        serve(cells);
        turn
    }

    async fn until(mut self, end: Instant, otherwise: Reason) -> Result<Slot, Reason> {
        match timeout_at(end, &mut self.granted).await {
            Ok(Ok(())) => Ok(Slot(Arc::clone(self.cells))),
            // The list drops a waiter only after its receiver.
            Ok(Err(_)) | Err(_) => Err(otherwise),
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.granted.close();
        // Granted in the moment of leaving: the slot goes on to the next.
        drop(
            self.granted
                .try_recv()
                .ok()
                .map(|()| Slot(Arc::clone(self.cells))),
        );
        self.cells.pending.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Gives free slots to those who wait, first come first served.
fn serve(cells: &BackendCells) {
    loop {
        let next = cells.with_waiters(|waiters| {
            while waiters
                .front()
                .is_some_and(|waiter| waiter.grant.is_closed())
            {
                waiters.pop_front();
            }
            let limit = waiters.front()?.limit;
            if limit::take(&cells.in_flight, Some(limit)) {
                waiters.pop_front()
            } else {
                None
            }
        });
        let Some(waiter) = next else { return };
        if waiter.grant.send(()).is_err() {
            // It left in between: the slot is free again.
            cells.in_flight.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

#[cfg(test)]
mod tests;

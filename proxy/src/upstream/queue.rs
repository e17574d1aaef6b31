//! Places of a backend, for requests in flight and for connections, and the
//! queue before them.
//!
//! Called by `http::exchange` between plan and attempt, and by whoever dials:
//! `pool`, and the story of opaque bytes. What nobody has asked for takes what
//! is free, and never waits: mirrors, and dials before anyone spoke. Without a limit, or below it, a place
//! costs one atomic increment. Whoever comes above it waits in order of
//! arrival, over all workers, bounded in number and time.
//!
//! The queue's lock is taken by those who wait and by whoever ends while
//! somebody waits, never across an await or a wake-up.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::{
    sync::oneshot,
    time::{Instant, timeout_at},
};

use crate::{
    discovery::{Backend, Places, Waiter},
    limit,
    outcome::Reason,
};

/// One place; given to the next in the queue on drop. A request's rides the
/// response body, a connection's lives as long as that.
#[derive(Debug)]
pub(crate) struct Place(Arc<Places>);

impl Place {
    /// What it is one of.
    pub(crate) fn places(&self) -> &Arc<Places> {
        &self.0
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::SeqCst);
        if is_wanted(&self.0) {
            serve(&self.0);
        }
    }
}

/// Takes a place for a request, waits for one in turn, or says why not:
/// `TooManyRequests` (the queue is full), `PendingTimeout`, or `RequestTimeout`
/// at `deadline`.
pub(crate) async fn enter(backend: &Backend, deadline: Option<Instant>) -> Result<Place, Reason> {
    let limits = &backend.policy.limits;
    let entrance = Entrance {
        places: Arc::clone(&backend.cells.requests),
        limit: limits.requests,
        pending: limits.pending,
        patience: limits.pending_timeout,
        full: Reason::TooManyRequests,
    };
    entrance.enter(deadline).await
}

/// Whether somebody waits for one of these places.
pub(crate) fn is_wanted(places: &Places) -> bool {
    places.waiting.load(Ordering::SeqCst) > 0
}

/// Where connections of a backend get their places; outlives its snapshot.
pub(crate) fn connections(backend: &Backend) -> Entrance {
    let limits = &backend.policy.limits;
    Entrance {
        places: Arc::clone(&backend.cells.connections),
        limit: limits.connections,
        pending: limits.pending,
        patience: limits.pending_timeout,
        full: Reason::TooManyConnections,
    }
}

/// Whether one more connection would have to wait now. Asked for each request
/// over HTTP/2: without a limit it costs nothing.
pub(crate) fn is_full(backend: &Backend) -> bool {
    let limit = backend.policy.limits.connections;
    limit.is_some_and(|limit| backend.cells.connections.taken.load(Ordering::SeqCst) >= limit)
}

/// A place for a connection that is free now, for who has not yet a reason to wait.
pub(crate) fn connection_now(backend: &Backend) -> Option<Place> {
    let limit = backend.policy.limits.connections;
    free(&backend.cells.connections, limit)
}

/// A place for a connection, for what must not be in anybody's way: never the
/// last one.
pub(crate) fn spare_connection(backend: &Backend) -> Option<Place> {
    spare(
        &backend.cells.connections,
        backend.policy.limits.connections,
    )
}

/// As `spare_connection`, for a request.
pub(crate) fn spare_request(backend: &Backend) -> Option<Place> {
    spare(&backend.cells.requests, backend.policy.limits.requests)
}

fn spare(places: &Arc<Places>, limit: Option<u32>) -> Option<Place> {
    free(places, limit.map(|limit| limit.saturating_sub(1)))
}

fn free(places: &Arc<Places>, limit: Option<u32>) -> Option<Place> {
    let is_taken = !is_wanted(places) && limit::take(&places.taken, limit);
    is_taken.then(|| Place(Arc::clone(places)))
}

/// Places, and the policy's limits on them.
#[derive(Debug)]
pub(crate) struct Entrance {
    places: Arc<Places>,
    limit: Option<u32>,
    pending: Option<u32>,
    patience: Duration,
    full: Reason,
}

impl Entrance {
    pub(crate) fn places(&self) -> &Arc<Places> {
        &self.places
    }

    /// Whether one would have to wait now.
    pub(crate) fn is_full(&self) -> bool {
        let taken = self.places.taken.load(Ordering::SeqCst);
        self.limit.is_some_and(|limit| taken >= limit)
    }

    /// As the function `enter`, with this entrance's own reason when the queue
    /// is full.
    pub(crate) async fn enter(self, deadline: Option<Instant>) -> Result<Place, Reason> {
        let places = self.places;
        let Some(limit) = self.limit else {
            places.taken.fetch_add(1, Ordering::SeqCst);
            return Ok(Place(places));
        };
        // Who comes while others wait queues behind them.
        if !is_wanted(&places) && limit::take(&places.taken, Some(limit)) {
            return Ok(Place(places));
        }
        if !limit::take(&places.waiting, self.pending) {
            return Err(self.full);
        }
        let turn = Turn::join(&places, limit);
        let patience = Instant::now() + self.patience;
        match deadline.filter(|deadline| *deadline < patience) {
            Some(deadline) => turn.until(deadline, Reason::RequestTimeout).await,
            None => turn.until(patience, Reason::PendingTimeout).await,
        }
    }
}

/// A turn in the queue; left on drop.
struct Turn<'a> {
    places: &'a Arc<Places>,
    granted: oneshot::Receiver<()>,
}

impl<'a> Turn<'a> {
    /// `waiting` counts it already. A place that came free before it was in the
    /// list was not offered to it, so it looks once itself.
    fn join(places: &'a Arc<Places>, limit: u32) -> Self {
        let (grant, granted) = oneshot::channel();
        let turn = Self { places, granted };
        places.with_waiters(|waiters| waiters.push_back(Waiter { limit, grant }));
        serve(places);
        turn
    }

    async fn until(mut self, end: Instant, otherwise: Reason) -> Result<Place, Reason> {
        match timeout_at(end, &mut self.granted).await {
            Ok(Ok(())) => Ok(Place(Arc::clone(self.places))),
            // The list drops a waiter only after its receiver.
            Ok(Err(_)) | Err(_) => Err(otherwise),
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.granted.close();
        // Granted in the moment of leaving: the place goes on to the next.
        drop(
            self.granted
                .try_recv()
                .ok()
                .map(|()| Place(Arc::clone(self.places))),
        );
        self.places.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Gives free places to those who wait, first come first served.
fn serve(places: &Places) {
    loop {
        let next = places.with_waiters(|waiters| {
            while waiters
                .front()
                .is_some_and(|waiter| waiter.grant.is_closed())
            {
                waiters.pop_front();
            }
            let limit = waiters.front()?.limit;
            if limit::take(&places.taken, Some(limit)) {
                waiters.pop_front()
            } else {
                None
            }
        });
        let Some(waiter) = next else { return };
        if waiter.grant.send(()).is_err() {
            // It left in between: the place is free again.
            places.taken.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

#[cfg(test)]
mod tests;

//! Who has to leave the pool: what was idle for too long, what nobody may choose
//! any more, and what holds a place that the limit on connections denies to
//! somebody who waits.
//!
//! Part of `pool`. An idle connection to one endpoint gives way to a needed one
//! to another: at once where both are this worker's, or where it becomes idle
//! while somebody waits; one that was idle already in another worker does at
//! that worker's next sweep. One that was just opened is not idle: whoever
//! asked for it comes next.

use std::sync::Arc;

use tokio::time::Instant;

use crate::{
    discovery::{Backend, EndpointKey, Places},
    outcome::Reason,
    upstream::queue::{self, Entrance, Place},
};

use super::{Idle, Multiplexed, Pool, Slot};

impl Pool {
    /// A place for one more connection, in turn.
    ///
    /// # Errors
    /// `TooManyConnections` when as many wait as may, `PendingTimeout`.
    pub(crate) async fn place(&self, backend: &Backend) -> Result<Place, Reason> {
        self.enter(queue::connections(backend)).await
    }

    pub(super) async fn enter(&self, entrance: Entrance) -> Result<Place, Reason> {
        if entrance.is_full() {
            let mut slots = self.slots.borrow_mut();
            if slots.values_mut().any(|slot| slot.evict(entrance.places())) {
                self.metrics.pool.closed.inc("limit");
            }
        }
        entrance.enter(None).await
    }

    /// Endpoints that left the snapshot: idle connections to them end.
    pub(crate) fn retain(&self, is_known: impl Fn(EndpointKey) -> bool) {
        self.slots.borrow_mut().retain(|key, _| {
            let is_known = is_known(*key);
            if !is_known {
                self.metrics.pool.closed.inc("removed");
            }
            is_known
        });
    }

    /// Ends what was idle for too long; called now and then by the worker.
    pub(crate) fn expire(&self, now: Instant) {
        self.slots.borrow_mut().retain(|_, slot| {
            slot.idle.retain(|idle| {
                let is_fresh = now.duration_since(idle.since) < self.config.idle_timeout;
                if !is_fresh {
                    self.metrics.pool.closed.inc("idle");
                }
                is_fresh
            });
            slot.connections
                .retain(|connection| connection.is_wanted(now, self.config.idle_timeout));
            if slot.gives_way() {
                self.metrics.pool.closed.inc("limit");
            }
            !slot.idle.is_empty() || !slot.connections.is_empty() || slot.dialling.is_some()
        });
    }
}

impl Slot {
    /// Whether somebody waits for the place that this one, or its connection, has.
    pub(super) fn is_wanted(&self, idle: &Idle) -> bool {
        let own = idle.socket.as_ref().map(|socket| socket.place.places());
        let stream = idle.stream.as_ref().map(|it| it.connection().number());
        let connection = self
            .connections
            .iter()
            .find(|connection| Some(connection.number()) == stream);
        own.or_else(|| connection.map(Multiplexed::places))
            .is_some_and(|places| queue::is_wanted(places))
    }

    /// Ends an idle connection whose place somebody waits for, if there is one.
    pub(super) fn gives_way(&mut self) -> bool {
        let sockets = self.idle.iter().filter_map(|idle| idle.socket.as_ref());
        let sockets = sockets.map(|socket| socket.place.places());
        let connections = self.connections.iter().map(Multiplexed::places);
        let wanted = sockets
            .chain(connections)
            .find(|places| queue::is_wanted(places))
            .map(Arc::clone);
        wanted.is_some_and(|places| self.evict(&places))
    }

    /// Ends an idle connection that has one of these places, if there is one.
    pub(super) fn evict(&mut self, places: &Arc<Places>) -> bool {
        let has_one = |of: &Arc<Places>| Arc::ptr_eq(of, places);
        let socket = self.idle.iter().position(|idle| {
            let socket = idle.socket.as_ref();
            socket.is_some_and(|socket| has_one(socket.place.places()))
        });
        if let Some(oldest) = socket {
            self.idle.remove(oldest);
            return true;
        }
        let mut all = self.connections.iter();
        let spare = all.find(|it| has_one(it.places()) && self.is_idle(it));
        let Some(number) = spare.map(Multiplexed::number) else {
            return false;
        };
        self.retire(number);
        true
    }

    /// Ends this connection if it is idle while somebody waits for its place.
    pub(super) fn gives_way_itself(&mut self, number: u64) -> bool {
        let mut all = self.connections.iter();
        let leaves = all.find(|it| it.number() == number).is_some_and(|it| {
            // Its place may have been another's in between.
            queue::is_wanted(it.places()) && self.is_idle(it)
        });
        if leaves {
            self.retire(number);
        }
        leaves
    }

    fn is_idle(&self, connection: &Multiplexed) -> bool {
        connection.streams() == self.lanes(connection) && !connection.is_fresh()
    }

    /// Streams of a connection that are idle lanes.
    pub(super) fn lanes(&self, of: &Multiplexed) -> u32 {
        let lanes = self.idle.iter().filter_map(|idle| idle.stream.as_ref());
        let count = lanes
            .filter(|lane| lane.connection().number() == of.number())
            .count();
        u32::try_from(count).unwrap_or(u32::MAX)
    }
}

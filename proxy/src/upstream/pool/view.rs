//! What the pool holds, for whoever looks at `/dump`.
//!
//! Part of `pool`. Made when it is asked for, on the worker's own thread;
//! nothing on the path keeps count for it.

use serde::Serialize;
use tokio::time::Instant;

use crate::discovery::EndpointKey;

use super::{Pool, Slot};

/// Of one endpoint.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct View {
    /// Connections with many streams.
    pub(crate) connections: Vec<Connection>,
    /// Another one is being opened.
    pub(crate) is_dialling: bool,
    /// HTTP/1 wires that serve nobody: sockets, and lanes in connections.
    pub(crate) idle_sockets: usize,
    pub(crate) idle_lanes: usize,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Connection {
    pub(crate) number: u64,
    pub(crate) is_open: bool,
    /// Requests and lanes, idle lanes among them.
    pub(crate) streams: u32,
    pub(crate) idle_lanes: u32,
    pub(crate) used_ago_ms: u64,
}

impl Pool {
    /// Each endpoint that the pool has something for.
    pub(crate) fn view(&self) -> Vec<(EndpointKey, View)> {
        let (slots, now) = (self.slots.borrow(), Instant::now());
        slots
            .iter()
            .map(|(key, slot)| (*key, slot.view(now)))
            .collect()
    }
}

impl Slot {
    fn view(&self, now: Instant) -> View {
        let connections = self.connections.iter().map(|it| Connection {
            number: it.number(),
            is_open: it.is_open(),
            streams: it.streams(),
            idle_lanes: self.lanes(it),
            used_ago_ms: u64::try_from(it.idle_for(now).as_millis()).unwrap_or(u64::MAX),
        });
        let idle_lanes = self
            .idle
            .iter()
            .filter(|idle| idle.stream.is_some())
            .count();
        View {
            connections: connections.collect(),
            is_dialling: self.dialling.is_some(),
            idle_sockets: self.idle.len() - idle_lanes,
            idle_lanes,
        }
    }
}

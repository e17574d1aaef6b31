//! Compares what the control plane has with what is held.
//!
//! Part of `client`. Finds what no stream tells: an update that was lost, a
//! resource that is gone.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use super::{Client, End, link::Link};
use crate::control::decode::{Heartbeat, Key, Request};

/// What heartbeats may ask for.
const INTERVALS: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(60));

impl Client {
    /// A difference that two heartbeats in a row name is one that no message
    /// under way explains.
    pub(super) fn compare(&mut self, heartbeat: Heartbeat, link: &mut Link) -> Result<(), End> {
        if let Some(interval) = heartbeat.interval {
            self.interval = interval.clamp(INTERVALS.0, INTERVALS.1);
        }
        let newest: HashMap<_, _> = heartbeat.newest.into_iter().collect();
        let held: HashMap<_, _> = self.store.held().into_iter().collect();
        let lacking = newest.iter().filter(|(key, version)| {
            held.get(*key) != Some(*version) && self.rejected_versions.get(*key) != Some(*version)
        });
        let extra = held.keys().filter(|key| !newest.contains_key(*key));
        let mut suspects = HashSet::new();
        let mut orphans = Vec::new();
        for key in lacking.map(|(key, _)| key).chain(extra) {
            if !self.suspects.contains(key) {
                suspects.insert(key.clone());
            } else if newest.contains_key(key) || self.is_wanted(key) {
                tracing::warn!(%key, "held version is not the newest: asked for whole");
                link.send(Request::subscribe(key, true))?;
            } else {
                orphans.push(key.clone());
            }
        }
        self.suspects = suspects;
        if !orphans.is_empty() {
            self.store.forget(&orphans);
        }
        Ok(())
    }

    fn is_wanted(&self, key: &Key) -> bool {
        match key {
            Key::Address(address) => self.subscriptions.contains(*address),
            Key::Mesh | Key::TrustBundle | Key::Workload(_) => true,
            Key::Service(_) | Key::Endpoints(_, _) => false,
        }
    }
}

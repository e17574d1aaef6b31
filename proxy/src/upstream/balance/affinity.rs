//! Whom callers of a destination stay with (`sessionAffinity: ClientIP`).
//!
//! Part of `balance`. All that comes through this proxy is one client, its pod,
//! so one word holds it: the endpoint, and the second of its last use. All
//! workers share the word and each change is one exchange, so that they agree
//! on one endpoint; it is written at most once a second while nobody moves.
//!
//! An endpoint that left, drains or is ejected is stayed with no longer. One
//! that merely failed a try is: the next request is its again.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use crate::discovery::{Backend, Endpoint, EndpointKey};

/// What the word said.
pub(super) struct Held<'a> {
    backend: &'a Backend,
    word: u64,
    now_ms: u64,
    /// Still among those that may get new requests, and in time.
    pub(super) endpoint: Option<&'a Arc<Endpoint>>,
}

impl<'a> Held<'a> {
    pub(super) fn read(backend: &'a Backend, timeout: Duration, now_ms: u64) -> Self {
        let word = backend.cells.affinity.load(Ordering::Acquire);
        let endpoint = unpack(word)
            // Of whole seconds: never less than what was asked for.
            .filter(|(_, used)| seconds(now_ms).saturating_sub(*used) <= timeout.as_secs())
            .and_then(|(key, _)| backend.find(key));
        Self {
            backend,
            word,
            now_ms,
            endpoint,
        }
    }

    /// Its endpoint is used again.
    pub(super) fn renew(&self) {
        if let Some(endpoint) = self.endpoint {
            // Should another worker have moved meanwhile, its choice holds.
            self.replace(endpoint);
        }
    }

    /// From now on this one. `false`: another worker has chosen meanwhile.
    pub(super) fn replace(&self, endpoint: &Endpoint) -> bool {
        let word = pack(endpoint.key, self.now_ms);
        let cell = &self.backend.cells.affinity;
        // Looked at first, so that the line stays shared between workers.
        word == self.word
            || cell
                .compare_exchange(self.word, word, Ordering::AcqRel, Ordering::Acquire)
                .is_ok()
    }
}

const fn seconds(now_ms: u64) -> u64 {
    now_ms / 1000
}

/// The key in the upper half (keys count from 1, and no proxy learns four
/// billion endpoints), and below it the second and 1: 0 is nobody.
fn pack(key: EndpointKey, now_ms: u64) -> u64 {
    let second = (seconds(now_ms) + 1).min(HALF);
    (key.0 & HALF) << 32 | second
}

const HALF: u64 = u32::MAX as u64;

fn unpack(word: u64) -> Option<(EndpointKey, u64)> {
    let used = (word & HALF).checked_sub(1)?;
    Some((EndpointKey(word >> 32), used))
}

#[cfg(test)]
mod tests;

//! How the proxy stands with the control plane, for those who only look.
//!
//! `control` writes it as things happen; `admin` answers readiness and `/dump`
//! from it, `record` turns it into gauges. Beside the path: a scrape takes its
//! lock, a request never does.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// The state of the discovery stream.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) enum Stream {
    /// There is no certificate to open it with, or no try has ended yet.
    #[default]
    Idle,
    Connecting,
    Open,
}

impl Stream {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Connecting => "connecting",
            Self::Open => "open",
        }
    }
}

/// A resource that could not be used; the last good one stays.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Rejected {
    pub(crate) name: String,
    pub(crate) version: u64,
    pub(crate) reason: String,
}

#[derive(Clone, Default, Debug)]
pub(crate) struct Status {
    pub(crate) stream: Stream,
    /// When the control plane last said anything, heartbeats included.
    pub(crate) heard: Option<Instant>,
    /// Streams that were opened.
    pub(crate) connections: u64,
    /// Why the last try to reach the control plane failed; none while it is open.
    pub(crate) stream_error: Option<String>,
    /// Name and version of what is held, sorted by name.
    pub(crate) held: Vec<(String, u64)>,
    /// Of what is rejected now.
    pub(crate) rejected: Vec<Rejected>,
    pub(crate) rejects_total: u64,
    /// Resources that came, whether they said anything new or not.
    pub(crate) received_total: u64,
    pub(crate) heartbeats_total: u64,
    /// Fields that were ignored because the control plane is newer.
    pub(crate) unknown_fields_total: u64,
    /// Roots of the trust bundle.
    pub(crate) roots: usize,
    /// The configuration is what an earlier life of this proxy wrote.
    pub(crate) is_restored: bool,
    pub(crate) has_bundle: bool,
    /// Mesh and workload are known.
    pub(crate) is_configured: bool,
    /// When our certificate ends, since the Unix epoch.
    pub(crate) certificate_ends: Option<Duration>,
    pub(crate) renewals_total: u64,
    pub(crate) renewal_failures_total: u64,
    /// Why the last renewal failed; none after one that did not.
    pub(crate) renewal_error: Option<String>,
}

/// Shared by `Arc`.
#[derive(Debug, Default)]
pub(crate) struct Health(Mutex<Status>);

impl Health {
    pub(crate) fn status(&self) -> Status {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(crate) fn update<T>(&self, change: impl FnOnce(&mut Status) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What readiness still waits for; empty when the proxy can serve. `now`
    /// is the date, since the Unix epoch.
    pub(crate) fn waiting_for(&self, now: Duration) -> Vec<&'static str> {
        self.update(|status| {
            let is_certified = status.certificate_ends.is_some_and(|ends| now < ends);
            [
                (status.has_bundle, "trust bundle"),
                (is_certified, "certificate"),
                (status.is_configured, "first configuration"),
            ]
            .into_iter()
            .filter_map(|(is_there, what)| (!is_there).then_some(what))
            .collect()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readiness_names_what_is_missing() {
        let health = Health::default();
        let now = Duration::from_secs(100);
        assert_eq!(
            health.waiting_for(now),
            ["trust bundle", "certificate", "first configuration"]
        );
        health.update(|status| {
            status.has_bundle = true;
            status.is_configured = true;
            status.certificate_ends = Some(now);
        });
        assert_eq!(health.waiting_for(now), ["certificate"]);
        assert!(health.waiting_for(Duration::from_secs(99)).is_empty());
    }
}

//! Who does what only one may do: the holder of a Lease.
//!
//! As client-go elects: 15 s, renewed every 2 s, given up by its holder after
//! 10 s without a renewal, so that two never act at once unless a clock runs
//! two thirds as fast as another. Expiry counts from when a record was first seen
//! here; nobody's date is believed. Released at the end, so that the next one
//! need not wait. The Lease also carries what must outlive the authority's
//! Secret: the fingerprint of its root.

use std::time::Duration;

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use kube::{
    Api,
    api::{ObjectMeta, Patch, PatchParams, PostParams},
};
use serde_json::json;
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout_at},
};

use crate::{
    clock::Wall,
    cluster::{Cluster, Failure, LEASE, call, metrics::Metrics},
};

/// The fingerprint of the authority's root.
pub(crate) const MARKER: &str = "weft.dev/authority-root";

const DURATION: Duration = Duration::from_secs(15);
const DEADLINE: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_secs(2);

pub(crate) struct Election {
    pub(crate) cluster: Cluster,
    pub(crate) clock: Wall,
    pub(crate) metrics: Metrics,
    /// Told who holds it, as last seen.
    pub(crate) holder: watch::Sender<Option<String>>,
}

/// A record of the Lease, and since when it has not changed.
struct Seen {
    spec: LeaseSpec,
    since: Instant,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    Create,
    Take,
    Renew,
    Wait,
}

fn decide(lease: Option<&Lease>, me: &str, since: Instant, now: Instant) -> Step {
    let Some(lease) = lease else {
        return Step::Create;
    };
    let spec = lease.spec.clone().unwrap_or_default();
    let seconds = spec.lease_duration_seconds.map(u64::try_from);
    let duration = match seconds {
        Some(Ok(seconds)) => Duration::from_secs(seconds),
        _ => DURATION,
    };
    match spec.holder_identity.as_deref() {
        None | Some("") => Step::Take,
        Some(holder) if holder == me => Step::Renew,
        Some(_) if now.saturating_duration_since(since) >= duration => Step::Take,
        Some(_) => Step::Wait,
    }
}

/// The record that makes `me` the holder for another term.
fn record(mut lease: Lease, me: &str, now: &MicroTime, step: Step) -> Lease {
    let spec = lease.spec.get_or_insert_default();
    if step != Step::Renew {
        spec.acquire_time = Some(now.clone());
        let before = spec.lease_transitions.unwrap_or(0);
        spec.lease_transitions = Some(before.saturating_add(1));
    }
    spec.holder_identity = Some(me.to_owned());
    spec.lease_duration_seconds = i32::try_from(DURATION.as_secs()).ok();
    spec.renew_time = Some(now.clone());
    lease
}

impl Election {
    /// Until `release` says so; `holds` tells whether we are the one.
    pub(crate) async fn run(self, holds: watch::Sender<bool>, mut release: watch::Receiver<bool>) {
        let mut seen = None;
        let mut renewed = None;
        loop {
            // A holder that hears nothing stops in time to be sure.
            let until = renewed.map_or_else(|| Instant::now() + DEADLINE, |at| at + DEADLINE);
            let begun = Instant::now();
            match timeout_at(until, self.attempt(&mut seen)).await {
                Ok(Ok(true)) => renewed = Some(begun),
                Ok(Ok(false)) => renewed = None,
                Ok(Err(error)) => tracing::warn!(%error, "the Lease could not be renewed"),
                Err(_) => tracing::warn!("the Lease could not be renewed in time"),
            }
            if renewed.is_some_and(|at| at + DEADLINE <= Instant::now()) {
                renewed = None;
            }
            self.tell(&holds, renewed.is_some());
            let pause = RETRY.mul_f64(1.0 + 0.2 * fastrand::f64());
            tokio::select! {
                () = sleep(pause) => {}
                _released_or_dropped = release.wait_for(|it| *it) => break,
            }
        }
        self.tell(&holds, false);
        if renewed.is_some()
            && let Err(error) = self.let_go().await
        {
            tracing::warn!(%error, "the Lease could not be released; the next holder waits for its end");
        }
    }

    fn tell(&self, holds: &watch::Sender<bool>, now: bool) {
        holds.send_if_modified(|before| {
            let changed = *before != now;
            if changed {
                tracing::info!(holds = now, "the Lease has another holder");
            }
            *before = now;
            changed
        });
        self.metrics.holder.set(i64::from(now));
    }

    fn see(&self, holder: Option<String>) {
        self.holder.send_if_modified(|before| {
            let changed = *before != holder;
            *before = holder;
            changed
        });
    }

    fn leases(&self) -> Api<Lease> {
        leases(&self.cluster)
    }

    fn now(&self) -> MicroTime {
        let micros = i64::try_from(self.clock.now().as_micros()).unwrap_or(i64::MAX);
        MicroTime(Timestamp::from_microsecond(micros).unwrap_or(Timestamp::MAX))
    }

    /// Whether we hold it now.
    async fn attempt(&self, seen: &mut Option<Seen>) -> Result<bool, Failure> {
        let lease = call(self.leases().get_opt(LEASE)).await?;
        let now = Instant::now();
        let spec = lease
            .as_ref()
            .and_then(|it| it.spec.clone())
            .unwrap_or_default();
        let since = match seen {
            Some(last) if last.spec == spec => last.since,
            _ => now,
        };
        *seen = Some(Seen { spec, since });
        self.see(spec_holder(lease.as_ref()));
        let me = self.cluster.replica.as_str();
        let step = decide(lease.as_ref(), me, since, now);
        let fresh = record(lease.unwrap_or_else(empty), me, &self.now(), step);
        let parameters = PostParams::default();
        let written = match step {
            Step::Wait => return Ok(false),
            Step::Create => call(self.leases().create(&parameters, &fresh)).await,
            // With the version that was read: of two who try, one succeeds.
            Step::Take | Step::Renew => {
                call(self.leases().replace(LEASE, &parameters, &fresh)).await
            }
        };
        match written {
            Ok(_) => {
                self.see(Some(me.to_owned()));
                Ok(true)
            }
            // Somebody else took it, or only wrote an annotation: look again.
            Err(error) if error.is_conflict() && step != Step::Renew => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn let_go(&self) -> Result<(), Failure> {
        let Some(mut lease) = call(self.leases().get_opt(LEASE)).await? else {
            return Ok(());
        };
        let spec = lease.spec.get_or_insert_default();
        if spec.holder_identity.as_deref() != Some(self.cluster.replica.as_str()) {
            return Ok(());
        }
        spec.holder_identity = None;
        spec.lease_duration_seconds = Some(1);
        spec.renew_time = Some(self.now());
        call(self.leases().replace(LEASE, &PostParams::default(), &lease)).await?;
        Ok(())
    }
}

fn spec_holder(lease: Option<&Lease>) -> Option<String> {
    let holder = lease?.spec.as_ref()?.holder_identity.clone();
    holder.filter(|it| !it.is_empty())
}

fn leases(cluster: &Cluster) -> Api<Lease> {
    Api::namespaced(cluster.client.clone(), &cluster.namespace)
}

fn empty() -> Lease {
    Lease {
        metadata: ObjectMeta {
            name: Some(LEASE.to_owned()),
            ..ObjectMeta::default()
        },
        spec: None,
    }
}

/// The fingerprint that some replica has left, if there was ever an authority.
pub(crate) async fn marker(cluster: &Cluster) -> Result<Option<String>, Failure> {
    let lease = call(leases(cluster).get_opt(LEASE)).await?;
    let annotations = lease.and_then(|it| it.metadata.annotations);
    Ok(annotations.and_then(|it| it.get(MARKER).cloned()))
}

/// Leaves the fingerprint, on a Lease that may not be there yet.
pub(crate) async fn mark(cluster: &Cluster, fingerprint: &str) -> Result<(), Failure> {
    let patch = json!({"metadata": {"annotations": {MARKER: fingerprint}}});
    let (leases, parameters) = (leases(cluster), PatchParams::default());
    let patch = Patch::Merge(&patch);
    let patch = || leases.patch(LEASE, &parameters, &patch);
    match call(patch()).await {
        Err(error) if error.is_not_found() => {}
        answer => return answer.map(drop),
    }
    let mut lease = empty();
    let annotation = [(MARKER.to_owned(), fingerprint.to_owned())];
    lease.metadata.annotations = Some(annotation.into());
    match call(leases.create(&PostParams::default(), &lease)).await {
        Err(error) if error.is_conflict() => call(patch()).await.map(drop),
        answer => answer.map(drop),
    }
}

#[cfg(test)]
mod tests;

//! Replicas of the control plane among themselves: who is there, and what each
//! of them tells the Lease's holder.
//!
//! The holder counts with those whose pods have not ended; the others look for
//! it by the Lease and tell it what `serve::hub` knows of their proxies, whole
//! when that has moved and by its version alone else. Who can't be told now is
//! looked for again.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use k8s_openapi::api::core::v1::Pod;
use kube::{Api, ResourceExt, api::ListParams};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use crate::{
    clock::Wall,
    cluster::{Cluster, Failure, REPLICAS, call, metrics::Metrics},
    serve::{
        hub::{Hub, Stopping, Summary},
        replicas::caller::{Caller, Untold},
        tls::Tls,
    },
};

/// How often the holder looks who is there.
const LOOK: Duration = Duration::from_secs(5);
/// Between two reports; large ones come less often.
const REPORT: Duration = Duration::from_secs(1);
const MOST_SELDOM: Duration = Duration::from_secs(5);
/// A report of so many pods takes another second's rest.
const LARGE: usize = 1000;
/// Until the holder is looked for again.
const AGAIN: Duration = Duration::from_secs(2);

/// Whose pod has not ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Replica {
    pub(crate) name: String,
    pub(crate) address: Option<IpAddr>,
}

/// Those beside this one that may have proxies. One that has yet to start has
/// none, and will read what holds then.
pub(crate) async fn others(cluster: &Cluster) -> Result<Vec<Replica>, Failure> {
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    let found = call(pods.list(&ListParams::default().labels(REPLICAS))).await?;
    let runs = |pod: &&Pod| {
        let phase = pod.status.as_ref().and_then(|it| it.phase.as_deref());
        !matches!(phase, Some("Pending" | "Succeeded" | "Failed"))
    };
    let replicas = found.items.iter().filter(runs).map(|pod| Replica {
        name: pod.name_any(),
        address: pod
            .status
            .as_ref()
            .and_then(|it| it.pod_ip.as_deref()?.parse().ok()),
    });
    Ok(replicas.filter(|it| it.name != cluster.replica).collect())
}

pub(crate) struct Replicas {
    pub(crate) cluster: Cluster,
    pub(crate) hub: Hub,
    pub(crate) clock: Wall,
    /// Whether this replica holds the Lease, and else who does.
    pub(crate) holds: watch::Receiver<bool>,
    pub(crate) holder: watch::Receiver<Option<String>>,
    pub(crate) tls: watch::Receiver<Arc<Tls>>,
    /// On which each of us listens.
    pub(crate) port: u16,
    pub(crate) metrics: Metrics,
}

/// What was told last.
struct Last {
    /// As the hub counts; 0: nothing.
    seen: u64,
    version: u64,
    summary: Arc<Summary>,
}

impl Replicas {
    /// Until the process ends.
    pub(crate) async fn run(mut self) {
        loop {
            let holds = *self.holds.borrow_and_update();
            let done = match holds {
                true => self.while_holding().await,
                false => self.while_another_holds().await,
            };
            if done.is_err() {
                return;
            }
        }
    }

    async fn while_holding(&mut self) -> Result<(), Stopping> {
        loop {
            match others(&self.cluster).await {
                Ok(others) => {
                    let names: Vec<_> = others.into_iter().map(|it| it.name).collect();
                    self.expect(names).await?;
                }
                Err(error) => tracing::warn!(%error, "the replicas can't be listed now"),
            }
            let lost = timeout(LOOK, self.holds.wait_for(|it| !*it)).await;
            match lost.map(|it| it.is_ok()) {
                Err(_) => {}
                Ok(true) => return self.expect(Vec::new()).await,
                Ok(false) => return Err(Stopping),
            }
        }
    }

    async fn expect(&self, names: Vec<String>) -> Result<(), Stopping> {
        let asked = self.hub.ask(move |state| state.expect_replicas(&names));
        let silent = asked.await?;
        self.metrics
            .silent_replicas
            .set(i64::try_from(silent).unwrap_or(i64::MAX));
        Ok(())
    }

    async fn while_another_holds(&mut self) -> Result<(), Stopping> {
        let told = async {
            // Random, so that a process that has taken this one's place is another.
            let mut last = Last {
                seen: 0,
                version: fastrand::u64(..),
                summary: Arc::default(),
            };
            let (mut said, mut holds) = (None, self.holds.clone());
            while !*holds.borrow_and_update() {
                let why = match self.tell(&mut last).await {
                    Ok(stopping) => return stopping,
                    Err(why) => Some(why),
                };
                if why != said
                    && let Some(why) = &why
                {
                    tracing::info!(why, "the Lease's holder can't be told of our proxies now");
                }
                said = why;
                sleep(AGAIN).await;
            }
            Ok(())
        };
        let mut holds = self.holds.clone();
        tokio::select! {
            told = told => told,
            held = holds.wait_for(|it| *it) => held.map(drop).map_err(|_| Stopping),
        }
    }

    /// Until it can't be told, which is the error.
    async fn tell(&self, last: &mut Last) -> Result<Result<(), Stopping>, String> {
        let holder = self.holder.borrow().clone();
        let Some(holder) = holder.filter(|it| *it != self.cluster.replica) else {
            return Err("nobody holds it".to_owned());
        };
        let all = others(&self.cluster).await;
        let all = all.map_err(|error| error.to_string())?;
        let address = all.iter().find(|it| it.name == holder);
        let Some(address) = address.and_then(|it| it.address) else {
            return Err(format!("its pod {holder} has no address"));
        };
        let to = SocketAddr::new(address, self.port);
        let mut tls = self.tls.clone();
        let now = tls.borrow_and_update().clone();
        let untold = |error: Untold| format!("{holder} at {to}: {error}");
        let mut caller = Caller::dial(to, &now).await.map_err(untold)?;
        let mut is_whole = true;
        // Another certificate or other roots: another connection.
        while !tls.has_changed().unwrap_or(true) && *self.holder.borrow() == Some(holder.clone()) {
            let (seen, seconds) = (last.seen, self.clock.seconds());
            let asked = self
                .hub
                .ask(move |state| state.summary_since(seen, seconds));
            match asked.await {
                Ok(Some((seen, summary))) => {
                    is_whole = true;
                    *last = Last {
                        seen,
                        version: last.version.wrapping_add(1),
                        summary: Arc::new(summary),
                    };
                }
                // Not read yet: nothing to tell, and whoever waits for us is right to.
                Ok(None) if last.seen == 0 => {
                    sleep(REPORT).await;
                    continue;
                }
                Ok(None) => {}
                Err(stopping) => return Ok(Err(stopping)),
            }
            let summary = is_whole.then_some(&last.summary);
            let reported = caller.report(&self.cluster.replica, last.version, summary);
            is_whole = !reported.await.map_err(untold)?;
            if !is_whole {
                sleep(pause(last.summary.pods.len())).await;
            }
        }
        Err("its connection is made anew".to_owned())
    }
}

fn pause(pods: usize) -> Duration {
    let large = u32::try_from(pods / LARGE).unwrap_or(u32::MAX);
    REPORT
        .saturating_mul(large.saturating_add(1))
        .min(MOST_SELDOM)
}

#[cfg(test)]
mod tests;

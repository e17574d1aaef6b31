//! What runs beside the mesh in a cluster: the client, the Lease, and what only
//! its holder does.
//!
//! `app` starts it where the authority is the cluster's, and releases the Lease
//! at the end, so that another replica need not wait for its expiry.

use std::time::Duration;

use anyhow::Context;
use kube::Client;
use tokio::{sync::watch, time::timeout};

use crate::{
    clock::Wall,
    cluster::{
        AUTHORITY, Cluster, authority::Keeper, lease::Election, metrics::Metrics, status::Writer,
    },
    config::Config,
    runtime::{self, Task},
    serve::hub::Hub,
};

/// Longer than a call takes; the kubelet's grace is longer.
const RELEASE: Duration = Duration::from_secs(6);

/// Dropping it gives up what it holds, without saying so.
#[derive(Debug)]
pub(super) struct Elected {
    /// Whether this replica is the one.
    pub(super) holds: watch::Receiver<bool>,
    release: watch::Sender<bool>,
    _task: Task,
}

/// # Errors
/// When there is no cluster to be found: neither the pod's own nor KUBECONFIG.
pub(super) async fn connect(config: &Config) -> anyhow::Result<Cluster> {
    let client = Client::try_default()
        .await
        .context("finding the cluster (the pod's service account, or KUBECONFIG)")?;
    let replica = config.replica.clone().map_or_else(
        || {
            let name = nix::unistd::gethostname().context("this machine's name (--replica)")?;
            Ok::<_, anyhow::Error>(name.to_string_lossy().into_owned())
        },
        Ok,
    );
    Ok(Cluster {
        client,
        namespace: config.namespace.clone(),
        replica: replica?,
    })
}

pub(super) fn keeper(config: &Config, cluster: &Cluster, clock: Wall) -> Keeper {
    Keeper {
        cluster: cluster.clone(),
        secret: config
            .authority_secret
            .clone()
            .unwrap_or_else(|| AUTHORITY.to_owned()),
        is_given: config.authority_secret.is_some(),
        trust_domain: config.trust_domain.clone(),
        clock,
    }
}

pub(super) fn elect(cluster: &Cluster, clock: Wall, metrics: &Metrics) -> Elected {
    let election = Election {
        cluster: cluster.clone(),
        clock,
        metrics: metrics.clone(),
    };
    let (holds_in, holds) = watch::channel(false);
    let (release, released) = watch::channel(false);
    Elected {
        holds,
        release,
        _task: runtime::spawn(election.run(holds_in, released)),
    }
}

impl Elected {
    /// Into the objects' status, while this replica is the one.
    pub(super) fn answer(&self, cluster: Cluster, hub: &Hub, clock: Wall) -> Task {
        let writer = Writer {
            cluster,
            clock,
            hub: hub.clone(),
            holds: self.holds.clone(),
        };
        runtime::spawn(writer.run())
    }

    /// Lets the next holder begin at once.
    pub(super) async fn release(mut self) {
        self.release.send_replace(true);
        let ended = async { while self.holds.changed().await.is_ok() {} };
        let _late_is_expiry = timeout(RELEASE, ended).await;
    }
}

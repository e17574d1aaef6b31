//! What runs beside the mesh in a cluster: the client, the Lease, and what only
//! its holder does.
//!
//! `app` starts it where the authority is the cluster's, and releases the Lease
//! at the end, so that another replica need not wait for its expiry.

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use kube::Client;
use tokio::{sync::watch, time::timeout};

use crate::{
    admission,
    clock::Wall,
    cluster::{
        AUTHORITY, Cluster,
        authority::{Content, Keeper},
        lease::Election,
        metrics::Metrics,
        replicas::Replicas,
        rotation::Rotation,
        status::Writer,
        unmeshed::Finder,
        webhook,
    },
    config::Config,
    runtime::{self, Task},
    serve::{self, accept::Address, hub::Hub},
};

use super::{admission as app_admission, trust::Trust};

/// Longer than a call takes; the kubelet's grace is longer.
const RELEASE: Duration = Duration::from_secs(6);

/// Dropping it gives up what it holds, without saying so.
#[derive(Debug)]
pub(super) struct Elected {
    /// Whether this replica is the one.
    holds: watch::Receiver<bool>,
    release: watch::Sender<bool>,
    /// Whether the API server trusts the webhook.
    pub(super) is_known: watch::Receiver<bool>,
    _task: Task,
}

/// A replica in its cluster, before it does anything there.
pub(super) struct Member {
    cluster: Cluster,
    clock: Wall,
    keeper: Keeper,
    content: watch::Receiver<Option<Arc<Content>>>,
    /// Whether this replica is the one.
    holds: watch::Sender<bool>,
    metrics: Metrics,
}

impl Member {
    /// # Errors
    /// When there is no cluster to be found, or no authority in it.
    pub(super) async fn join(
        config: &Config,
        clock: Wall,
        metrics: &Metrics,
    ) -> anyhow::Result<(Trust, Self)> {
        let cluster = connect(config).await?;
        let keeper = keeper(config, &cluster, clock);
        let opening = Trust::open_cluster(config, clock, keeper.clone(), metrics);
        let (trust, content) = Box::pin(opening).await?;
        let member = Self {
            cluster,
            clock,
            keeper,
            content,
            holds: watch::Sender::new(false),
            metrics: metrics.clone(),
        };
        Ok((trust, member))
    }

    /// What others tell us while we hold the Lease.
    pub(super) fn replicas(
        &self,
        config: &Config,
        trust: &Trust,
        hub: &Hub,
    ) -> serve::replicas::Replicas {
        serve::replicas::Replicas {
            hub: hub.clone(),
            holds: self.holds.subscribe(),
            tls: trust.tls.clone(),
            clock: self.clock,
            trust_domain: config.trust_domain.clone(),
        }
    }

    /// Stands for the Lease, shows the webhook, and does what the holder does.
    ///
    /// # Errors
    /// When the webhook can't have its key or its address.
    pub(super) async fn begin(
        self,
        config: &Config,
        hub: &Hub,
        trust: &Trust,
        reviews: (admission::metrics::Metrics, watch::Receiver<bool>),
    ) -> anyhow::Result<(Elected, Vec<Task>)> {
        let opening = webhook::Keeper::open(self.cluster.clone(), self.clock);
        let (keys, shown) = Box::pin(opening).await.context("the webhook's key")?;
        let roots = trust.roots.clone();
        let serving = app_admission::start(config, &self.cluster, Arc::new(shown), roots, reviews);
        let serving = serving.await?;
        let (holder_in, holder) = watch::channel(None);
        let election = Election {
            cluster: self.cluster.clone(),
            clock: self.clock,
            metrics: self.metrics.clone(),
            holder: holder_in,
        };
        let elected = elect(election, self.holds, keys.is_known());
        let rotation = Rotation {
            keeper: self.keeper,
            hub: hub.clone(),
            content: self.content,
            holds: elected.holds.clone(),
            lifetime: config.certificate_lifetime,
        };
        // Who listens on a socket is alone on its machine.
        let replicas = match &config.listen {
            Address::Unix(_) => None,
            Address::Tcp(listen) => Some(Replicas {
                cluster: self.cluster.clone(),
                hub: hub.clone(),
                clock: self.clock,
                holds: elected.holds.clone(),
                holder,
                tls: trust.tls.clone(),
                port: listen.port(),
                metrics: self.metrics.clone(),
            }),
        };
        let finder = Finder {
            cluster: self.cluster.clone(),
            clock: self.clock,
            hub: hub.clone(),
            holds: elected.holds.clone(),
            metrics: self.metrics,
        };
        let answers = Writer {
            cluster: self.cluster,
            clock: self.clock,
            hub: hub.clone(),
            holds: elected.holds.clone(),
        };
        let mut duties = vec![
            runtime::spawn(keys.keep(elected.holds.clone())),
            runtime::spawn(rotation.run()),
            runtime::spawn(answers.run()),
            runtime::spawn(finder.run()),
        ];
        duties.extend(replicas.map(|it| runtime::spawn(it.run())));
        duties.extend(serving);
        Ok((elected, duties))
    }
}

/// # Errors
/// When there is no cluster to be found: neither the pod's own nor KUBECONFIG.
async fn connect(config: &Config) -> anyhow::Result<Cluster> {
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

fn keeper(config: &Config, cluster: &Cluster, clock: Wall) -> Keeper {
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

fn elect(
    election: Election,
    holds_in: watch::Sender<bool>,
    is_known: watch::Receiver<bool>,
) -> Elected {
    let holds = holds_in.subscribe();
    let (release, released) = watch::channel(false);
    Elected {
        holds,
        release,
        is_known,
        _task: runtime::spawn(election.run(holds_in, released)),
    }
}

impl Elected {
    /// Without a cluster, so that there is nothing to release.
    #[cfg(test)]
    pub(super) fn nowhere() -> Self {
        Self {
            holds: watch::channel(false).1,
            release: watch::Sender::new(false),
            is_known: watch::channel(true).1,
            _task: runtime::spawn(async {}),
        }
    }

    /// Lets the next holder begin at once.
    pub(super) async fn release(mut self) {
        self.release.send_replace(true);
        let ended = async { while self.holds.changed().await.is_ok() {} };
        let _late_is_expiry = timeout(RELEASE, ended).await;
    }
}

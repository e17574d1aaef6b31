//! The only place where everything meets: source → index → serve, with the
//! authority behind the traits that `serve` asks for.
//!
//! Called by `main` with the knobs; decides nothing itself.

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
    time::sleep,
};

use crate::{
    admission::metrics as admission_metrics,
    clock::Wall,
    cluster::metrics as cluster_metrics,
    config::{AuthorityFrom, Config},
    index::Index,
    runtime::{self, Task},
    serve::{
        self,
        accept::{self, Acceptor},
        discovery::Discovery,
        hub::{Hub, State},
        identity::Identity,
        metrics::Metrics,
        session::Context as SessionContext,
    },
    sources::kubernetes,
};

mod admission;
pub(crate) mod authority;
mod certificate;
mod cluster;
mod looking;
mod source;
mod trust;

use cluster::Member;
use trust::Trust;

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// When it can't start, or a part that it can't do without has ended.
pub async fn run(config: Config) -> anyhow::Result<()> {
    let (mut terminate, mut interrupt) = (
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    );
    let mut running = Box::pin(start(config)).await?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        why = running.ended() => {
            running.release().await;
            return Err(why);
        }
    }
    let again = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    tokio::select! {
        () = running.leave() => {}
        () = again => {}
    }
    tracing::info!("the control plane ends");
    Ok(())
}

/// Those who were led here by a Service find another replica meanwhile: nodes
/// need seconds to hear that this one ends. The chart's grace is longer.
const LEAVE: Duration = Duration::from_secs(8);
/// For streams to be told.
const FAREWELL: Duration = Duration::from_secs(1);

/// A control plane; dropping it ends it.
#[derive(Debug)]
pub(crate) struct Running {
    ended: watch::Receiver<Option<String>>,
    elected: Option<cluster::Elected>,
    leaving: watch::Sender<bool>,
    going: watch::Sender<bool>,
    _tasks: Vec<Task>,
}

impl Running {
    /// Resolves only when a part has ended that must not.
    async fn ended(&mut self) -> anyhow::Error {
        match self.ended.wait_for(Option::is_some).await {
            Ok(why) => anyhow::anyhow!(why.clone().unwrap_or_default()),
            Err(_) => anyhow::anyhow!("the server has ended"),
        }
    }

    /// In order: not ready any more, served all the same until nobody comes, and
    /// then streams are told. Without a cluster nobody is led here.
    async fn leave(self) {
        let Some(elected) = self.elected else { return };
        tracing::info!(seconds = LEAVE.as_secs(), "this replica leaves");
        self.leaving.send_replace(true);
        tokio::join!(elected.release(), sleep(LEAVE));
        self.going.send_replace(true);
        sleep(FAREWELL).await;
    }

    /// Of what other replicas wait for.
    async fn release(self) {
        if let Some(elected) = self.elected {
            elected.release().await;
        }
    }
}

/// # Errors
/// What is wrong with the state directory, the bundle or an address.
pub(crate) async fn start(config: Config) -> anyhow::Result<Running> {
    let (clock, metrics) = (Wall::System, Metrics::new());
    let source_metrics = kubernetes::metrics::Metrics::new();
    let in_cluster = cluster_metrics::Metrics::default();
    let reviews = admission_metrics::Metrics::new();
    let (trust, member) = match config.authority() {
        AuthorityFrom::StateDir => {
            if config.webhook_listen.is_some() {
                anyhow::bail!(
                    "the webhook needs the cluster's authority (--webhook-listen, --authority kubernetes)"
                );
            }
            (Trust::open(&config, clock, &in_cluster)?, None)
        }
        AuthorityFrom::Kubernetes => {
            let joining = Member::join(&config, clock, &in_cluster);
            let (trust, member) = Box::pin(joining).await?;
            (trust, Some(member))
        }
    };
    let first = trust.roots.borrow().clone();
    let state = State::new(
        Index::new(&config.ranges),
        &config.trust_domain,
        first,
        metrics.clone(),
    );
    let (hub, run_hub) = Hub::new(state);
    let (end, ended) = watch::channel(None);
    let (leaving, leaves) = watch::channel(false);
    let (going, goes) = watch::channel(false);
    let mut tasks = vec![runtime::spawn(run_hub)];
    tasks.extend(source::start(
        &config.sources,
        config.state_dir.as_deref(),
        &hub,
        &end,
        &source_metrics,
    ));
    let services = Services {
        hub: hub.clone(),
        replicas: member.as_ref().map(|it| it.replicas(&config, &trust, &hub)),
        metrics: metrics.clone(),
        clock,
        going: goes,
    };
    tasks.push(services.serve(&config, &trust, end).await?);
    let mut elected = None;
    if let Some(member) = member {
        let reviewing = (reviews.clone(), leaves.clone());
        let beginning = Box::pin(member.begin(&config, &hub, &trust, reviewing));
        let (holding, duties) = beginning.await?;
        tasks.extend(duties);
        elected = Some(holding);
    }
    tasks.extend(trust.keep(&hub));
    let all_metrics = (&metrics, &in_cluster, &reviews, &source_metrics);
    let waits = Arc::new(looking::Waits {
        leaves,
        is_known: elected.as_ref().map(|it| it.is_known.clone()),
    });
    let looking = looking::start(&config, &hub, all_metrics, clock, &waits);
    tasks.extend(looking.await?);
    Ok(Running {
        ended,
        elected,
        leaving,
        going,
        _tasks: tasks,
    })
}

/// What is served on the proxies' port, and by whom.
struct Services {
    hub: Hub,
    /// `None`: there are no others.
    replicas: Option<serve::replicas::Replicas>,
    metrics: Metrics,
    clock: Wall,
    going: watch::Receiver<bool>,
}

impl Services {
    /// Discovery and certificates, for proxies; reports, for replicas.
    async fn serve(
        self,
        config: &Config,
        trust: &Trust,
        end: watch::Sender<Option<String>>,
    ) -> anyhow::Result<Task> {
        let Self {
            hub,
            replicas,
            metrics,
            clock,
            going,
        } = self;
        let listener = accept::Listener::bind(&config.listen)
            .await
            .with_context(|| format!("listening on {} (--listen)", config.listen))?;
        let listen = listener.address()?;
        let acceptor = Acceptor {
            listener,
            tls: trust.tls.clone(),
            most_connections: config.max_connections,
            clock,
            metrics: metrics.clone(),
        };
        let identity = Identity {
            hub: hub.clone(),
            tokens: trust.tokens.clone(),
            signer: authority::signer(trust.authority.clone()),
            roots: trust.roots.clone(),
            metrics: metrics.clone(),
        };
        let discovery = Discovery(SessionContext {
            hub,
            heartbeat: config.heartbeat,
            clock,
            tls: trust.tls.clone(),
            going: going.clone(),
            metrics,
        });
        let served = runtime::spawn(async move {
            let answer = serve::run(acceptor, identity, discovery, (replicas, going)).await;
            let why = answer.err().map_or_else(
                || "the server has ended".to_owned(),
                |error| error.to_string(),
            );
            end.send_replace(Some(why));
        });
        tracing::info!(%listen, trust_domain = config.trust_domain, "the control plane serves");
        Ok(served)
    }
}

#[cfg(test)]
mod tests;

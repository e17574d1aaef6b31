//! Builds everything and runs it; the only file where all modules meet.
//!
//! The main thread is the side runtime: control client, admin, signals. Each
//! worker (`worker`) is a thread of its own that carries traffic; workers share
//! atomics alone.

mod worker;

use std::{io, path::PathBuf, sync::Arc, thread, time::Duration};

use anyhow::{Context as _, anyhow};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{mpsc, oneshot, watch},
    time::timeout,
};
use tracing::info;

use crate::{
    admin,
    clock::{Epoch, Wall},
    config::Config,
    control,
    discovery::Snapshot,
    drain::{self, Phase},
    record::{self, AccessLog, Shared},
    runtime::{self, Tasks},
    telemetry::{self, Registry},
};

use worker::{Look, Settings, Shares};

/// Runs the sidecar until the application has ended (SIGTERM).
///
/// # Errors
/// When it can't begin: a port is taken, the trust bundle is missing, the
/// configuration can't be right.
pub fn run(config: Config) -> anyhow::Result<()> {
    telemetry::install(&config.telemetry.filter, config.telemetry.format)?;
    runtime::main(serve(config))?
}

async fn serve(config: Config) -> anyhow::Result<()> {
    let wall = Wall::default();
    let epoch = Epoch::start();
    let mut tasks = Tasks::new();
    let control = control::start(control_config(&config), wall, &mut tasks)?;
    let mut registry = Registry::new();
    let (phases, phase) = drain::channel();
    let shared = recording(&mut registry, &config, wall, phase.clone())?;
    record::observe(
        &mut registry,
        Box::new(latest(&control.snapshots)),
        Arc::clone(&control.health),
        epoch,
    );
    let phases = Arc::new(phases);
    let admin = admin::bind(&config.admin).await?;
    let shares = Shares {
        asker: control.asker,
        snapshots: control.snapshots.clone(),
        certificates: control.certificates,
        shared,
        epoch,
        phase: phase.clone(),
    };
    let workers = Workers::start(&Settings::new(&config), &shares, config.workers).await?;
    tasks.spawn(admin.serve(admin::Sources {
        registry,
        snapshot: Box::new(latest(&control.snapshots)),
        epoch,
        health: control.health,
        wall,
        sections: vec![("pools", workers.pools())],
        control: Arc::clone(&phases),
        phase,
    }));
    info!(workers = config.workers, "serving");
    stop_signal().await?;
    info!("the application has ended: finishing what is in flight");
    phases.advance(Phase::Stopping);
    workers.ended().await;
    info!("stopped");
    Ok(())
}

fn control_config(config: &Config) -> control::Config {
    control::Config {
        address: config.control.address.clone(),
        mark: config.sockets.mark,
        liveness: worker::liveness(config),
        trust_domain: config.pod.trust_domain.as_str().into(),
        namespace: config.pod.namespace.as_str().into(),
        service_account: config.pod.service_account.as_str().into(),
        pod: config.pod.name.as_str().into(),
        pod_uid: config.pod.uid.as_str().into(),
        token_file: config.control.token_file.clone(),
        bundle_file: config.control.trust_bundle_file.clone(),
        state_directory: Some(config.control.state_dir.clone()),
        max_subscriptions: config.control.max_subscriptions,
        idle_subscription: config.control.subscription_idle,
    }
}

fn recording(
    registry: &mut Registry,
    config: &Config,
    wall: Wall,
    phase: drain::Watch,
) -> io::Result<Shared> {
    let told = &config.telemetry;
    let log = AccessLog::start(registry, told.access, told.access_per_second, io::stderr())?;
    let recording = record::Config {
        series: told.series,
        series_idle: told.series_idle,
    };
    Ok(Shared::new(registry, &recording, log, wall, phase))
}

/// The snapshot of the moment, for pages and gauges.
fn latest(
    snapshots: &watch::Receiver<Arc<Snapshot>>,
) -> impl Fn() -> Arc<Snapshot> + Send + Sync + use<> {
    let snapshots = snapshots.clone();
    move || Arc::clone(&snapshots.borrow())
}

/// SIGTERM, or SIGINT where a person runs it.
async fn stop_signal() -> io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

/// The threads that carry traffic.
struct Workers(Vec<Running>);

struct Running {
    thread: thread::JoinHandle<()>,
    ended: oneshot::Receiver<()>,
    looks: mpsc::Sender<Look>,
}

/// A worker that doesn't show its pools in this time is busier than it should be.
const LOOK: Duration = Duration::from_secs(1);

impl Workers {
    /// Starts them and waits until each listens.
    async fn start(settings: &Settings, shares: &Shares, count: usize) -> anyhow::Result<Self> {
        let mut started = Vec::with_capacity(count);
        for number in 0..count {
            let (bound, listening) = oneshot::channel();
            let (end, ended) = oneshot::channel();
            let (looks, looked) = mpsc::channel(1);
            let (settings, shares) = (settings.clone(), shares.clone());
            let thread = runtime::worker(&format!("worker-{number}"), move || async move {
                worker::run(settings, shares, bound, looked).await;
                // Nobody listens only where the start failed.
                let _ = end.send(());
            })?;
            listening
                .await
                .map_err(|_| anyhow!("a worker ended at once"))?
                .context("listening")?;
            started.push(Running {
                thread,
                ended,
                looks,
            });
        }
        Ok(Self(started))
    }

    /// Asks each worker for its pools, which live on its thread alone.
    fn pools(&self) -> Box<dyn Fn() -> admin::Rendering + Send> {
        let all: Vec<_> = self.0.iter().map(|it| it.looks.clone()).collect();
        Box::new(move || {
            let all = all.clone();
            Box::pin(async move {
                let mut pools = Vec::with_capacity(all.len());
                for looks in all {
                    let (reply, answer) = oneshot::channel();
                    let look = async {
                        looks.send(reply).await.ok()?;
                        answer.await.ok()
                    };
                    // `null` where it doesn't answer: a finding too.
                    pools.push(timeout(LOOK, look).await.ok().flatten());
                }
                pools.into()
            })
        })
    }

    async fn ended(self) {
        for Running { thread, ended, .. } in self.0 {
            // An error means that it ended without a word.
            let _ = ended.await;
            let _ = thread.join();
        }
    }
}

/// Talks to the running proxy over its unix socket.
#[derive(Debug, clap::Args)]
pub struct Drain {
    /// The proxy's admin socket; WEFT_ADMIN_SOCKET where it isn't given.
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
}

impl Drain {
    /// # Errors
    /// When no proxy answers there.
    pub fn run(self) -> anyhow::Result<()> {
        let socket = match self.socket {
            Some(socket) => socket,
            None => Config::admin_socket_from_environment()?,
        };
        admin::drain(&socket).with_context(|| socket.display().to_string())?;
        Ok(())
    }
}

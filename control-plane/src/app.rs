//! The only place where everything meets: source → index → serve, with the
//! authority behind the traits that `serve` asks for.
//!
//! Called by `main` with the knobs; decides nothing itself.

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context;
use http::StatusCode;
use prometheus_client::registry::Registry;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::watch,
};

use crate::{
    ca::{Authority, bundle},
    clock::Wall,
    config::Config,
    index::Index,
    report,
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
    status::{self, Answer, Answering},
};

pub(crate) mod authority;
mod certificate;
mod source;

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// When it can't start, or a part that it can't do without has ended.
pub async fn run(config: Config) -> anyhow::Result<()> {
    let (mut terminate, mut interrupt) = (
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    );
    let running = start(config).await?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        why = running.ended() => return Err(why),
    }
    tracing::info!("the control plane ends");
    Ok(())
}

/// A control plane; dropping it ends it.
#[derive(Debug)]
pub(crate) struct Running {
    ended: watch::Receiver<Option<String>>,
    _tasks: Vec<Task>,
}

impl Running {
    /// Resolves only when a part has ended that must not.
    async fn ended(mut self) -> anyhow::Error {
        match self.ended.wait_for(Option::is_some).await {
            Ok(why) => anyhow::anyhow!(why.clone().unwrap_or_default()),
            Err(_) => anyhow::anyhow!("the server has ended"),
        }
    }
}

/// # Errors
/// What is wrong with the state directory, the bundle or an address.
pub(crate) async fn start(config: Config) -> anyhow::Result<Running> {
    let (clock, metrics) = (Wall::System, Metrics::new());
    let authority = Authority::open(
        &config.state_dir,
        &config.trust_domain,
        config.certificate_lifetime,
        clock,
    )?;
    let authority = Arc::new(authority);
    let extra = config
        .extra_roots
        .clone()
        .unwrap_or_else(|| config.state_dir.join("roots"));
    let (roots_in, roots) = watch::channel(bundle::read(authority.root(), &extra)?);
    let (tls_in, tls) = watch::channel(Arc::new(certificate::fresh(
        &authority,
        &roots.borrow(),
        &config.trust_domain,
    )?));

    let first = roots.borrow().clone();
    let state = State::new(
        Index::new(&config.ranges),
        &config.trust_domain,
        first,
        metrics.clone(),
    );
    let (hub, run_hub) = Hub::new(state);
    let mut tasks = vec![runtime::spawn(run_hub)];
    tasks.push(runtime::spawn(follow_roots(
        authority.clone(),
        extra,
        roots_in,
        hub.clone(),
    )));
    let renewal = certificate::Renewal {
        authority: authority.clone(),
        trust_domain: config.trust_domain.clone(),
        lifetime: config.certificate_lifetime,
    };
    tasks.push(runtime::spawn(renewal.keep(
        roots.clone(),
        tls_in,
        hub.clone(),
    )));
    let (end, ended) = watch::channel(None);
    tasks.extend(source::start(
        &config.sources,
        &config.state_dir.join("last-good"),
        &hub,
        &end,
    ));

    let listener = accept::Listener::bind(&config.listen)
        .await
        .with_context(|| format!("listening on {} (--listen)", config.listen))?;
    let listen = listener.address()?;
    let acceptor = Acceptor {
        listener,
        tls: tls.clone(),
        most_connections: config.max_connections,
        clock,
        metrics: metrics.clone(),
    };
    let identity = Identity {
        hub: hub.clone(),
        tokens: authority::tokens(authority.clone(), clock),
        signer: authority::signer(authority),
        roots,
        metrics: metrics.clone(),
    };
    let context = SessionContext {
        hub: hub.clone(),
        heartbeat: config.heartbeat,
        clock,
        tls,
        metrics: metrics.clone(),
    };
    tasks.push(runtime::spawn(async move {
        let answer = serve::run(acceptor, identity, Discovery(context)).await;
        let why = answer.err().map_or_else(
            || "the server has ended".to_owned(),
            |error| error.to_string(),
        );
        end.send_replace(Some(why));
    }));
    tasks.extend(lookers(&config, &hub, &metrics, clock).await?);
    tracing::info!(%listen, trust_domain = config.trust_domain, "the control plane serves");
    Ok(Running {
        ended,
        _tasks: tasks,
    })
}

/// Hands new roots to the proxies; our own certificate follows by `roots` too.
async fn follow_roots(
    authority: Arc<Authority>,
    extra: PathBuf,
    roots: watch::Sender<bundle::Roots>,
    hub: Hub,
) {
    let mut changed = roots.subscribe();
    let from = extra.display().to_string();
    let told = hub.clone();
    let report = move |error: Option<String>| {
        if let Some(error) = &error {
            tracing::warn!(
                error,
                "the trust bundle can't be read; the last good one stays in force"
            );
        }
        let problem = error.map(|message| report::Problem {
            file: from.clone(),
            message,
            remedy: "give one or more CA certificates in PEM".to_owned(),
            ..report::Problem::default()
        });
        told.tell(move |state| state.set_problem("trust bundle", problem));
    };
    let follow = bundle::follow(authority.root().clone(), extra, roots, report);
    let hand_on = async {
        while changed.changed().await.is_ok() {
            let fresh = changed.borrow_and_update().clone();
            tracing::info!(roots = fresh.len(), "the trust bundle has changed");
            if hub.ask(move |state| state.set_roots(fresh)).await.is_err() {
                return;
            }
        }
    };
    tokio::join!(follow, hand_on);
}

/// Health and metrics, and the report for people.
async fn lookers(
    config: &Config,
    hub: &Hub,
    metrics: &Metrics,
    clock: Wall,
) -> anyhow::Result<Vec<Task>> {
    let mut tasks = Vec::new();
    if let Some(address) = config.health_listen {
        let listener = TcpListener::bind(address)
            .await
            .with_context(|| format!("listening on {address} (--health-listen)"))?;
        let mut registry = Registry::default();
        metrics.register(&mut registry);
        let (hub, registry) = (hub.clone(), Arc::new(registry));
        let answers = Arc::new(move |path: &str| health(path, hub.clone(), registry.clone()));
        tasks.push(runtime::spawn(status::serve(
            status::Listener::Tcp(listener),
            answers,
        )));
    }
    if let Some(path) = &config.status_socket {
        let listener = accept::bind_unix(path, 0o600)
            .with_context(|| format!("listening on {} (--status-socket)", path.display()))?;
        let hub = hub.clone();
        let answers = Arc::new(move |path: &str| status_of(path, hub.clone(), clock));
        tasks.push(runtime::spawn(status::serve(
            status::Listener::Unix(listener),
            answers,
        )));
    }
    Ok(tasks)
}

fn health(path: &str, hub: Hub, registry: Arc<Registry>) -> Answering {
    let path = path.to_owned();
    Box::pin(async move {
        match path.as_str() {
            "/live" => Answer::text(StatusCode::OK, "live\n".to_owned()),
            "/ready" => match hub.ask(|state| state.is_synced()).await {
                Ok(true) => Answer::text(StatusCode::OK, "ready\n".to_owned()),
                Ok(false) => Answer::text(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "waits for the source to be read once\n".to_owned(),
                ),
                Err(stopping) => {
                    Answer::text(StatusCode::SERVICE_UNAVAILABLE, format!("{stopping}\n"))
                }
            },
            "/metrics" => {
                let mut body = String::new();
                match prometheus_client::encoding::text::encode(&mut body, &registry) {
                    Ok(()) => Answer {
                        status: StatusCode::OK,
                        content_type: "application/openmetrics-text; version=1.0.0; charset=utf-8",
                        body,
                    },
                    Err(error) => {
                        Answer::text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
                    }
                }
            }
            _ => Answer::not_found(),
        }
    })
}

fn status_of(path: &str, hub: Hub, clock: Wall) -> Answering {
    let is_status = path == "/status";
    Box::pin(async move {
        if !is_status {
            return Answer::not_found();
        }
        let seconds = clock.seconds();
        let report = hub.ask(move |state| state.report(seconds)).await;
        let body = report
            .map_err(io::Error::other)
            .and_then(|it| serde_json::to_string(&it).map_err(io::Error::other));
        match body {
            Ok(body) => Answer {
                status: StatusCode::OK,
                content_type: "application/json",
                body,
            },
            Err(error) => Answer::text(StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")),
        }
    })
}

/// Retried in this time when signing our own certificate did not work.
const RETRY: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;

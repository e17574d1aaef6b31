//! What people and scrapers see: health, metrics, and the report behind
//! `weft status`.
//!
//! `app` starts it; `status` carries it. Looks and changes nothing.

use std::{future::ready, io, sync::Arc};

use anyhow::Context;
use http::StatusCode;
use prometheus_client::registry::Registry;
use serde::Serialize;
use tokio::{net::TcpListener, sync::watch};

use crate::{
    admission,
    clock::Wall,
    cluster,
    config::{Config, Source},
    model::Name,
    report::{Replica, Report},
    runtime::{self, Task},
    serve::{
        accept,
        hub::{Hub, Stopping},
        metrics::Metrics,
    },
    sources::kubernetes,
    status::{self, Answer, Answering},
};

/// Why this replica may not be ready although its source has been read.
pub(super) struct Waits {
    /// It ends: others serve.
    pub(super) leaves: watch::Receiver<bool>,
    /// Whether the API server trusts the webhook; `None` where there is none.
    pub(super) is_known: Option<watch::Receiver<bool>>,
}

impl Waits {
    fn reason(&self) -> Option<&'static str> {
        let is_unknown = self.is_known.as_ref().is_some_and(|it| !*it.borrow());
        match (*self.leaves.borrow(), is_unknown) {
            (true, _) => Some("leaves: others serve\n"),
            (false, true) => Some("waits for the API server to know the webhook\n"),
            (false, false) => None,
        }
    }
}

/// Health and metrics, and the report for people.
pub(super) async fn start(
    config: &Config,
    hub: &Hub,
    (metrics, in_cluster, reviews, source): (
        &Metrics,
        &cluster::metrics::Metrics,
        &admission::metrics::Metrics,
        &kubernetes::metrics::Metrics,
    ),
    clock: Wall,
    waits: &Arc<Waits>,
) -> anyhow::Result<Vec<Task>> {
    let mut tasks = Vec::new();
    if let Some(address) = config.health_listen {
        let listener = TcpListener::bind(address)
            .await
            .with_context(|| format!("listening on {address} (--health-listen)"))?;
        let mut registry = Registry::default();
        metrics.register(&mut registry);
        in_cluster.register(&mut registry);
        reviews.register(&mut registry);
        let reads_a_cluster = config.sources.contains(&Source::Kubernetes);
        let source = reads_a_cluster.then(|| source.clone());
        if let Some(source) = &source {
            source.register(&mut registry);
        }
        let (hub, registry) = (hub.clone(), Arc::new(registry));
        let reasons = waits.clone();
        let answers = Arc::new(move |path: &str, _: &str| {
            if path == "/ready"
                && let Some(reason) = reasons.reason()
            {
                let answer = Answer::text(StatusCode::SERVICE_UNAVAILABLE, reason.to_owned());
                return Box::pin(ready(answer)) as _;
            }
            health(path, hub.clone(), registry.clone(), source.clone())
        });
        tasks.push(runtime::spawn(status::serve(
            status::Listener::Tcp(listener),
            answers,
            waits.leaves.clone(),
        )));
    }
    let me = Me {
        name: config.replica.clone().unwrap_or_default(),
        clock,
        in_cluster: in_cluster.clone(),
    };
    for listener in for_people(config).await? {
        let (hub, me) = (hub.clone(), me.clone());
        let answers = Arc::new(move |path: &str, query: &str| look(path, query, hub.clone(), &me));
        let serving = status::serve(listener, answers, waits.leaves.clone());
        tasks.push(runtime::spawn(serving));
    }
    Ok(tasks)
}

/// Where the report is served: none of them changes anything.
async fn for_people(config: &Config) -> anyhow::Result<Vec<status::Listener>> {
    let mut listeners = Vec::new();
    if let Some(path) = &config.status_socket {
        let listener = accept::bind_unix(path, 0o600)
            .with_context(|| format!("listening on {} (--status-socket)", path.display()))?;
        listeners.push(status::Listener::Unix(listener));
    }
    if let Some(address) = config.status_listen {
        let listener = TcpListener::bind(address)
            .await
            .with_context(|| format!("listening on {address} (--status-listen)"))?;
        listeners.push(status::Listener::Tcp(listener));
    }
    Ok(listeners)
}

/// What a report says of who makes it.
#[derive(Clone)]
struct Me {
    name: String,
    clock: Wall,
    in_cluster: cluster::metrics::Metrics,
}

impl Me {
    fn sign(&self, report: &mut Report) {
        report.replicas = vec![Replica {
            name: self.name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            error: String::new(),
        }];
        let now = i64::try_from(self.clock.seconds()).unwrap_or(i64::MAX);
        let ends = self.in_cluster.signer_ends.get();
        report.authority.ends_seconds = (ends > 0).then(|| ends.saturating_sub(now));
    }
}

fn health(
    path: &str,
    hub: Hub,
    registry: Arc<Registry>,
    source: Option<kubernetes::metrics::Metrics>,
) -> Answering {
    let path = path.to_owned();
    Box::pin(async move {
        match path.as_str() {
            "/live" => Answer::text(StatusCode::OK, "live\n".to_owned()),
            "/ready" => match hub.ask(|state| state.is_synced()).await {
                Ok(true) => Answer::text(StatusCode::OK, "ready\n".to_owned()),
                Ok(false) => Answer::text(
                    StatusCode::SERVICE_UNAVAILABLE,
                    match source.map(|it| it.waiting()) {
                        Some(kinds) if !kinds.is_empty() => {
                            format!("waits for {} of the cluster\n", kinds.join(", "))
                        }
                        _ => "waits for the source to be read once\n".to_owned(),
                    },
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

fn look(path: &str, query: &str, hub: Hub, me: &Me) -> Answering {
    match path {
        "/status" => {
            let me = me.clone();
            Box::pin(async move {
                let seconds = me.clock.seconds();
                let mut report = hub.ask(move |state| state.report(seconds)).await;
                if let Ok(report) = &mut report {
                    me.sign(report);
                }
                json(report)
            })
        }
        "/explain" => {
            let question = question(query);
            Box::pin(async move {
                let Some((from, host, port)) = question else {
                    let usage = "/explain?from=NAMESPACE/POD&host=NAME&port=NUMBER\n".to_owned();
                    return Answer::text(StatusCode::BAD_REQUEST, usage);
                };
                match hub
                    .ask(move |state| state.explain(&from, &host, port))
                    .await
                {
                    Ok(Err(unknown)) => Answer::text(StatusCode::NOT_FOUND, unknown.to_string()),
                    Ok(Ok(explained)) => json(Ok(explained)),
                    Err(stopping) => json::<()>(Err(stopping)),
                }
            })
        }
        _ => Box::pin(async { Answer::not_found() }),
    }
}

/// Names have no character that a query would have to escape.
fn question(query: &str) -> Option<(Name, String, u16)> {
    let of = |wanted: &str| {
        let pairs = query.split('&').filter_map(|it| it.split_once('='));
        pairs
            .filter(|(name, _)| *name == wanted)
            .map(|it| it.1)
            .next()
    };
    let (namespace, pod) = of("from")?.split_once('/')?;
    let port = of("port")?.parse().ok()?;
    Some((Name::new(namespace, pod), of("host")?.to_owned(), port))
}

fn json<T: Serialize>(value: Result<T, Stopping>) -> Answer {
    let body = value
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
}

//! What people and scrapers see: health, metrics, and the report behind
//! `weft status`.
//!
//! `app` starts it; `status` carries it. Looks and changes nothing.

use std::{io, sync::Arc};

use anyhow::Context;
use http::StatusCode;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;

use crate::{
    clock::Wall,
    config::Config,
    runtime::{self, Task},
    serve::{accept, hub::Hub, metrics::Metrics},
    status::{self, Answer, Answering},
};

/// Health and metrics, and the report for people.
pub(super) async fn start(
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

//! The HTTPS server that the API server asks: `/inject` and `/validate`.
//!
//! `app` hands it a listener and keys; `review` makes the answers. Everything
//! is bounded: connections, handshakes, bodies, time. It believes whoever
//! asks, since an answer changes nothing here and tells nothing secret but
//! what a pod's own specification holds.

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{Instant, sleep, timeout},
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{self, ServerConfig, crypto::aws_lc_rs, server::ResolvesServerCert},
};

use super::{
    metrics::{Metrics, Verdict},
    review::{self, Path},
};
use crate::runtime::Tasks;

pub(crate) use review::Webhook;

/// Of all API servers together.
const CONNECTIONS: usize = 128;
const HANDSHAKE: Duration = Duration::from_secs(5);
const HEADERS: Duration = Duration::from_secs(30);
const ANSWER: Duration = Duration::from_secs(10);

/// What an API server takes of one object is 3 MiB; pods are reviewed when they
/// are made, with one object.
const LARGEST_REVIEW: usize = 4 << 20;

/// Reviews that are read at a time: a hostile one takes thirty times its size.
const READ_AT_ONCE: usize = 2;

/// TLS of the webhook. `keys` is asked at each handshake, so that a renewed
/// certificate needs no restart.
///
/// # Errors
/// When the cryptography at hand can't speak TLS 1.2 and 1.3.
pub(crate) fn tls(keys: Arc<dyn ResolvesServerCert>) -> Result<Arc<ServerConfig>, rustls::Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
        .with_no_client_auth()
        .with_cert_resolver(keys);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Never ends by itself.
pub(crate) async fn serve(
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    webhook: Webhook,
    metrics: Metrics,
) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    let reading = Arc::new(Semaphore::new(READ_AT_ONCE));
    let acceptor = TlsAcceptor::from(tls);
    let mut tasks = Tasks::new();
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else {
            return;
        };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                // Out of descriptors: the next try would spin.
                sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let (acceptor, webhook, metrics) = (acceptor.clone(), webhook.clone(), metrics.clone());
        let reading = reading.clone();
        tasks.spawn(async move {
            connection(stream, &acceptor, webhook, metrics, reading).await;
            drop(slot);
        });
    }
}

async fn connection(
    stream: TcpStream,
    acceptor: &TlsAcceptor,
    webhook: Webhook,
    metrics: Metrics,
    reading: Arc<Semaphore>,
) {
    let stream = match timeout(HANDSHAKE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::debug!(%error, "no handshake with the webhook");
            return;
        }
        Err(_) => return,
    };
    let service = service_fn(move |request| {
        let (webhook, metrics, reading) = (webhook.clone(), metrics.clone(), reading.clone());
        async move { Ok::<_, Infallible>(answer(&webhook, &metrics, &reading, request).await) }
    });
    // An API server keeps its connections; one that says nothing is closed.
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS)
        .max_buf_size(64 * 1024)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = serving.await {
        tracing::debug!(%error, "a connection to the webhook broke");
    }
}

async fn answer(
    webhook: &Webhook,
    metrics: &Metrics,
    reading: &Semaphore,
    request: Request<Incoming>,
) -> Response<Full<Bytes>> {
    let path = match (request.method(), request.uri().path()) {
        (&Method::POST, "/inject") => Path::Inject,
        (&Method::POST, "/validate") => Path::Validate,
        (_, "/inject" | "/validate") => return text(StatusCode::METHOD_NOT_ALLOWED, "POST alone"),
        _ => return text(StatusCode::NOT_FOUND, "/inject and /validate are here"),
    };
    let answered = timeout(ANSWER, async {
        let body = Limited::new(request.into_body(), LARGEST_REVIEW);
        let body = body.collect().await.map_err(|error| error.to_string())?;
        let asked = Instant::now();
        let _turn = reading.acquire().await.map_err(|error| error.to_string())?;
        let answer = review::answer(webhook, path, &body.to_bytes()).await;
        Ok((asked.elapsed(), answer?))
    });
    match answered.await {
        Ok(Ok((took, (verdict, review)))) => {
            metrics.count(verdict, took.as_secs_f64());
            json(&review)
        }
        Ok(Err(why)) => {
            let why: String = why;
            metrics.count(Verdict::Failed, 0.0);
            tracing::warn!(why, "a question that is no review");
            text(StatusCode::BAD_REQUEST, &why)
        }
        Err(_) => {
            metrics.count(Verdict::Failed, ANSWER.as_secs_f64());
            text(StatusCode::GATEWAY_TIMEOUT, "it took too long")
        }
    }
}

fn json(review: &serde_json::Value) -> Response<Full<Bytes>> {
    let kind = header::HeaderValue::from_static("application/json");
    let mut response = Response::new(Full::new(Bytes::from(review.to_string())));
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

fn text(status: StatusCode, text: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(format!("{text}\n"))));
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests;

//! The HTTPS server that the API server asks: `/inject` and `/validate`.
//!
//! `app` hands it a listener and keys; `review` makes the answers. Everything
//! is bounded: connections, handshakes, bodies, time. It believes whoever
//! asks, since an answer changes nothing here and tells nothing secret but
//! what a pod's own specification holds.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Body, Incoming};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, watch},
    time::{Instant, timeout},
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{self, ServerConfig, crypto::aws_lc_rs, server::ResolvesServerCert},
};

use super::{
    metrics::{Metrics, Verdict},
    review::{self, Path},
};
use crate::{
    gate::{self, Pass},
    web::{Limits, Listener, Server},
};

pub(crate) use review::Webhook;

/// Of all API servers together; most clusters' reviews come from one address.
/// An API server keeps its connections; one that says nothing is closed.
const LIMITS: Limits = Limits {
    places: gate::Limits {
        most: 128,
        most_of_one: 96,
        most_waiting: 128,
    },
    idle: Duration::from_secs(30),
    life: Duration::from_secs(3600),
    head: 64 * 1024,
};
const ANSWER: Duration = Duration::from_secs(10);

/// What an API server takes of one object is 3 MiB; pods are reviewed when they
/// are made, with one object.
const LARGEST_REVIEW: u64 = 4 << 20;

/// Nearly all are far below. What is larger waits for its turn to be sent, so
/// that a hundred at once cost the replica no memory that it hasn't.
const LARGE_REVIEW: u64 = 128 << 10;
const LARGE_AT_ONCE: usize = 8;

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

/// What all connections share.
#[derive(Clone, Debug)]
struct Desk {
    webhook: Webhook,
    metrics: Metrics,
    large: Arc<Semaphore>,
    reading: Arc<Semaphore>,
}

/// Never ends by itself.
pub(crate) async fn serve(
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    webhook: Webhook,
    metrics: Metrics,
    leaving: watch::Receiver<bool>,
) {
    let desk = Desk {
        webhook,
        metrics,
        large: Arc::new(Semaphore::new(LARGE_AT_ONCE)),
        reading: Arc::new(Semaphore::new(READ_AT_ONCE)),
    };
    let server = Server {
        listener: Listener::Tcp(listener),
        tls: Some(TlsAcceptor::from(tls)),
        limits: LIMITS,
        answers: Arc::new(move |request, pass| {
            let desk = desk.clone();
            Box::pin(async move { desk.answer(request, &pass).await })
        }),
        leaving,
    };
    server.run().await;
}

impl Desk {
    async fn answer(&self, request: Request<Incoming>, pass: &Arc<Pass>) -> Response<Full<Bytes>> {
        let path = match (request.method(), request.uri().path()) {
            (&Method::POST, "/inject") => Path::Inject,
            (&Method::POST, "/validate") => Path::Validate,
            (_, "/inject" | "/validate") => {
                return text(StatusCode::METHOD_NOT_ALLOWED, "POST alone");
            }
            _ => return text(StatusCode::NOT_FOUND, "/inject and /validate are here"),
        };
        match timeout(ANSWER, self.review(path, request.into_body(), pass)).await {
            Ok(Ok((took, (verdict, review)))) => {
                self.metrics.count(verdict, took.as_secs_f64());
                json(&review)
            }
            Ok(Err(why)) => {
                self.metrics.count(Verdict::Failed, 0.0);
                tracing::warn!(why, "a question that is no review");
                text(StatusCode::BAD_REQUEST, &why)
            }
            Err(_) => {
                self.metrics.count(Verdict::Failed, ANSWER.as_secs_f64());
                text(StatusCode::GATEWAY_TIMEOUT, "it took too long")
            }
        }
    }

    /// Gives way to others until the question is there.
    async fn review(
        &self,
        path: Path,
        body: Incoming,
        pass: &Arc<Pass>,
    ) -> Result<(Duration, (Verdict, serde_json::Value)), String> {
        let length = body.size_hint().upper().unwrap_or(LARGEST_REVIEW);
        let stopping = |error: tokio::sync::AcquireError| error.to_string();
        let _large = match length > LARGE_REVIEW {
            true => Some(self.large.acquire().await.map_err(stopping)?),
            false => None,
        };
        let most = usize::try_from(LARGEST_REVIEW).unwrap_or(usize::MAX);
        let body = Limited::new(body, most).collect().await;
        let body = body.map_err(|error| error.to_string())?.to_bytes();
        let _turn = pass.begin();
        let asked = Instant::now();
        let _reading = self.reading.acquire().await.map_err(stopping)?;
        let answer = review::answer(&self.webhook, path, &body).await;
        Ok((asked.elapsed(), answer?))
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

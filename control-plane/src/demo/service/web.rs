//! An HTTP service that says the same to everybody.
//!
//! Its one trick: it answers 503 for as long as a file exists, so that anybody
//! can make it fail from another shell.

use std::{convert::Infallible, path::PathBuf, sync::Arc};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;

use super::serve;

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Web {
    /// Who answers
    #[arg(long)]
    name: String,
    #[arg(long, default_value_t = 80)]
    port: u16,
    /// The answer
    #[arg(long)]
    says: String,
    /// Answers 503 while this file exists
    #[arg(long)]
    fails_while: Option<PathBuf>,
}

pub(crate) async fn run(web: &Web) -> anyhow::Result<()> {
    let web = Arc::new(web.clone());
    serve(web.port, |stream| {
        let web = Arc::clone(&web);
        async move {
            let answer = service_fn(move |_: Request<Incoming>| {
                let answered = answer(&web);
                async { Ok::<_, Infallible>(answered) }
            });
            // A caller that goes away is none of our concern.
            let _ = http1::Builder::new()
                .serve_connection(TokioIo::new(stream), answer)
                .await;
        }
    })
    .await
}

fn answer(web: &Web) -> Response<Full<Bytes>> {
    let fails = web.fails_while.as_ref().is_some_and(|file| file.exists());
    let (status, body) = match fails {
        true => (StatusCode::SERVICE_UNAVAILABLE, "out of order"),
        false => (StatusCode::OK, web.says.as_str()),
    };
    respond(&web.name, status, format!("{body}\n"))
}

/// An answer that tells who gave it.
pub(crate) fn respond(
    name: &str,
    status: StatusCode,
    body: impl Into<Bytes>,
) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    if let Ok(name) = HeaderValue::from_str(name) {
        response
            .headers_mut()
            .insert(super::client::SERVED_BY, name);
    }
    response
}

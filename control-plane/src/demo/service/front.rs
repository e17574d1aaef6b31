//! Stands in for nginx where there is none: passes requests on by their path's
//! first segment.

use std::convert::Infallible;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;

use super::{client::Client, serve, web::respond};

const LARGEST: usize = 64 * 1024;

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Front {
    /// Who answers
    #[arg(long)]
    name: String,
    #[arg(long, default_value_t = 80)]
    port: u16,
}

pub(crate) async fn run(front: &Front) -> anyhow::Result<()> {
    serve(front.port, |stream| {
        let name = front.name.clone();
        async move {
            let handle = service_fn(move |request| {
                let name = name.clone();
                async move { Ok::<_, Infallible>(pass_on(&name, request).await) }
            });
            // A caller that goes away is none of our concern.
            let _ = http1::Builder::new()
                .serve_connection(TokioIo::new(stream), handle)
                .await;
        }
    })
    .await
}

async fn pass_on(name: &str, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let url = match request.uri().path().split('/').nth(1) {
        Some("catalog") => "http://catalog.shop/",
        Some("cart") => "http://cart.shop/",
        _ => return respond(name, StatusCode::OK, "welcome to the shop\n"),
    };
    let method = request.method().clone();
    let Ok(body) = Limited::new(request.into_body(), LARGEST).collect().await else {
        return respond(name, StatusCode::BAD_REQUEST, "no body\n");
    };
    match Client::default().send(method, url, body.to_bytes()).await {
        Ok(answer) => respond(name, answer.status(), answer.into_body()),
        Err(what) => respond(name, StatusCode::BAD_GATEWAY, format!("{url}: {what}\n")),
    }
}

//! Plain HTTP/1 for those who look and change nothing: health, metrics, and the
//! report that `weft status` prints.
//!
//! `app` says what each path answers; `web` carries it. GET alone, small limits,
//! no keep-alive beyond an idle moment: nothing here is on anyone's path.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use tokio::sync::watch;

use crate::{
    gate,
    web::{Limits, Server},
};

pub(crate) use crate::web::Listener;

/// A scraper, a kubelet, some people; half of it for whoever is behind one
/// address.
const LIMITS: Limits = Limits {
    places: gate::Limits {
        most: 32,
        most_of_one: 16,
        most_waiting: 32,
    },
    idle: Duration::from_secs(5),
    life: Duration::from_secs(60),
    head: 16 * 1024,
};

/// Of the pod's loopback, where the report is answered to who forwards a port;
/// a proxy's page for people has the same (docs/ports.md).
pub(crate) const PORT: u16 = 15022;

/// What a path says.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) content_type: &'static str,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) const fn text(status: StatusCode, body: String) -> Self {
        Self {
            status,
            content_type: "text/plain; charset=utf-8",
            body,
        }
    }

    pub(crate) fn not_found() -> Self {
        Self::text(StatusCode::NOT_FOUND, "no such path\n".to_owned())
    }
}

pub(crate) type Answering = Pin<Box<dyn Future<Output = Answer> + Send>>;

/// From a path and its query, as they came, to the answer.
pub(crate) type Answers = Arc<dyn Fn(&str, &str) -> Answering + Send + Sync>;

/// Never ends by itself.
pub(crate) async fn serve(listener: Listener, answers: Answers, leaving: watch::Receiver<bool>) {
    let server = Server {
        listener,
        tls: None,
        limits: LIMITS,
        answers: Arc::new(move |request, pass| {
            let answers = answers.clone();
            Box::pin(async move {
                let _turn = pass.begin();
                answer(&answers, request).await
            })
        }),
        leaving,
    };
    server.run().await;
}

async fn answer(answers: &Answers, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let answer = match request.method() {
        &Method::GET => {
            let target = request.uri();
            answers(target.path(), target.query().unwrap_or_default()).await
        }
        _ => Answer::text(StatusCode::METHOD_NOT_ALLOWED, "GET alone\n".to_owned()),
    };
    let mut response = Response::new(Full::new(Bytes::from(answer.body)));
    *response.status_mut() = answer.status;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static(answer.content_type),
    );
    response
}

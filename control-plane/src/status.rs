//! Plain HTTP/1 for those who look and change nothing: health, metrics, and the
//! report that `weft status` prints.
//!
//! `app` says what each path answers. GET alone, small limits, no keep-alive
//! beyond an idle moment: nothing here is on anyone's path.

use std::{convert::Infallible, future::Future, io, pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    sync::Semaphore,
    time::{sleep, timeout},
};

use crate::runtime::Tasks;

/// A scraper, a kubelet, some people.
const CONNECTIONS: usize = 32;
const HEADERS: Duration = Duration::from_secs(5);
const CONNECTION: Duration = Duration::from_secs(60);

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

/// Where it listens.
#[derive(Debug)]
pub(crate) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// Never ends by itself.
pub(crate) async fn serve(listener: Listener, answers: Answers) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    let mut tasks = Tasks::new();
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else {
            return;
        };
        let socket: io::Result<Pin<Box<dyn Socket>>> = match &listener {
            Listener::Tcp(listener) => listener
                .accept()
                .await
                .map(|(socket, _)| Box::pin(socket) as _),
            Listener::Unix(listener) => listener
                .accept()
                .await
                .map(|(socket, _)| Box::pin(socket) as _),
        };
        let socket = match socket {
            Ok(socket) => socket,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let answers = answers.clone();
        tasks.spawn(async move {
            let service = service_fn(move |request| answer(answers.clone(), request));
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADERS)
                .max_buf_size(16 * 1024)
                .serve_connection(TokioIo::new(socket), service);
            let _whatever_the_reader_did = timeout(CONNECTION, connection).await;
            drop(slot);
        });
    }
}

async fn answer(
    answers: Answers,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
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
    Ok(response)
}

trait Socket: AsyncRead + AsyncWrite + Send {}

impl<T: AsyncRead + AsyncWrite + Send> Socket for T {}

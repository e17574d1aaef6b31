//! HTTP/1 for those who ask one thing at a time: health, metrics, reports, and
//! the API server's reviews.
//!
//! `status` and `admission::server` answer; here is what both must not forget.
//! Accepting never stops (`gate`): the first head must be whole within moments,
//! whoever says nothing gives way to others, and whoever is being answered is
//! not disturbed. A process that leaves closes each connection after its answer,
//! so that callers find another one.

use std::{
    convert::Infallible,
    future::{Future, pending},
    io,
    net::IpAddr,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    sync::watch,
    time::{Instant, sleep, sleep_until, timeout_at},
};
use tokio_rustls::TlsAcceptor;

use crate::{
    gate::{self, Gate, Pass},
    runtime::Tasks,
};

/// From the connection to the end of the first head, a handshake included.
const FIRST_HEAD: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) places: gate::Limits,
    /// Between two requests, and within the head of one.
    pub(crate) idle: Duration,
    /// Of a connection.
    pub(crate) life: Duration,
    /// Bytes of a head.
    pub(crate) head: usize,
}

pub(crate) type Answering = Pin<Box<dyn Future<Output = Response<Full<Bytes>>> + Send>>;

/// Whoever needs the body reads it first, and then begins its turn.
pub(crate) type Answers = Arc<dyn Fn(Request<Incoming>, Arc<Pass>) -> Answering + Send + Sync>;

/// Where it listens.
#[derive(Debug)]
pub(crate) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

trait Socket: AsyncRead + AsyncWrite + Send {}

impl<T: AsyncRead + AsyncWrite + Send> Socket for T {}

type Stream = Pin<Box<dyn Socket>>;

impl Listener {
    async fn accept(&self) -> io::Result<(Stream, Option<IpAddr>)> {
        Ok(match self {
            Self::Tcp(listener) => {
                let (socket, from) = listener.accept().await?;
                (Box::pin(socket), Some(from.ip()))
            }
            Self::Unix(listener) => (Box::pin(listener.accept().await?.0), None),
        })
    }
}

pub(crate) struct Server {
    pub(crate) listener: Listener,
    /// `None`: plaintext.
    pub(crate) tls: Option<TlsAcceptor>,
    pub(crate) limits: Limits,
    pub(crate) answers: Answers,
    /// Whether callers had better go elsewhere.
    pub(crate) leaving: watch::Receiver<bool>,
}

impl Server {
    /// Never ends by itself.
    pub(crate) async fn run(self) {
        let Self {
            listener,
            tls,
            limits,
            answers,
            leaving,
        } = self;
        let gate = Gate::new(limits.places);
        let mut tasks = Tasks::new();
        loop {
            let (stream, from) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    // Out of descriptors: the next try would spin.
                    sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let Some(pass) = gate.enter(from) else {
                tracing::debug!(?from, "everybody is busy: a connection is closed");
                continue;
            };
            let connection = Connection {
                pass: Arc::new(pass),
                limits,
                answers: answers.clone(),
                leaving: leaving.clone(),
                until: Instant::now() + FIRST_HEAD,
            };
            tasks.spawn(connection.run(stream, tls.clone()));
        }
    }
}

struct Connection {
    pass: Arc<Pass>,
    limits: Limits,
    answers: Answers,
    leaving: watch::Receiver<bool>,
    /// When the first head must be there.
    until: Instant,
}

impl Connection {
    async fn run(self, stream: Stream, tls: Option<TlsAcceptor>) {
        let ended = self.pass.ended();
        let life = self.limits.life;
        tokio::select! {
            () = self.carry(stream, tls) => {}
            () = ended => tracing::debug!("a connection that asked nothing gave way to another"),
            () = sleep(life) => {}
        }
    }

    async fn carry(self, stream: Stream, tls: Option<TlsAcceptor>) {
        let stream: Stream = match tls {
            None => stream,
            Some(tls) => match timeout_at(self.until, tls.accept(stream)).await {
                Ok(Ok(stream)) => Box::pin(stream),
                Ok(Err(error)) => {
                    tracing::debug!(%error, "a handshake failed");
                    return;
                }
                Err(_) => return,
            },
        };
        let has_asked = AtomicBool::new(false);
        let service = service_fn(|request| {
            has_asked.store(true, Ordering::Relaxed);
            let answering = (self.answers)(request, self.pass.clone());
            let leaving = self.leaving.clone();
            async move {
                let mut answer = answering.await;
                if *leaving.borrow() {
                    let close = HeaderValue::from_static("close");
                    answer.headers_mut().insert(header::CONNECTION, close);
                }
                Ok::<_, Infallible>(answer)
            }
        });
        let serving = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.limits.idle)
            .max_buf_size(self.limits.head)
            .serve_connection(TokioIo::new(stream), service);
        let serving = pin!(serving);
        let silent = async {
            sleep_until(self.until).await;
            if has_asked.load(Ordering::Relaxed) {
                pending::<()>().await;
            }
        };
        tokio::select! {
            served = serving => if let Err(error) = served {
                tracing::debug!(%error, "a connection broke");
            },
            () = silent => tracing::debug!("a connection asked nothing in time"),
        }
    }
}

#[cfg(test)]
mod tests;

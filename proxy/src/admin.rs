//! What the proxy tells about itself: metrics, health, dump; the application's
//! probes and metrics (`admin/asking.rs`); and the drain command.
//!
//! Runs on the side runtime, so that a scrape cannot hurt the path's tail.
//! Three TCP ports answer GET and HEAD alone and change nothing; what changes
//! state is a unix socket (`admin/socket.rs`), which a request that an
//! application was tricked into making can't reach. Never shows a key.

mod application;
mod asking;
mod dump;
mod probe;
mod room;
mod socket;

use std::{
    fmt,
    future::Future,
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{Either, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use tokio::{
    net::{TcpListener, TcpStream},
    time,
};

use crate::{
    addr::canonical,
    clock::{Epoch, Wall},
    discovery::{Health, Snapshot},
    drain::{self, Phase},
    runtime::Tasks,
    telemetry::Registry,
};

use asking::{Asking, What};
use room::{Place, Room};

pub(crate) use application::ApplicationMetrics;
pub(crate) use probe::Probes;
pub(crate) use socket::drain;

#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) metrics: SocketAddr,
    pub(crate) health: SocketAddr,
    pub(crate) debug: SocketAddr,
    pub(crate) socket: PathBuf,
    /// What the application is asked for the kubelet.
    pub(crate) probes: Probes,
    /// And for a scraper.
    pub(crate) application: ApplicationMetrics,
    /// As on every connection to the application.
    pub(crate) mark: Option<u32>,
}

/// A part of the dump that whoever knows it renders, perhaps on another thread.
pub(crate) type Section = (&'static str, Box<dyn Fn() -> Rendering + Send>);
pub(crate) type Rendering = Pin<Box<dyn Future<Output = serde_json::Value>>>;

/// What the answers are made of. `app` fills it.
pub(crate) struct Sources {
    pub(crate) registry: Registry,
    pub(crate) snapshot: Box<dyn Fn() -> Arc<Snapshot> + Send>,
    pub(crate) epoch: Epoch,
    /// What readiness waits for.
    pub(crate) health: Arc<Health>,
    pub(crate) wall: Wall,
    /// Pools, certificates.
    pub(crate) sections: Vec<Section>,
    pub(crate) control: Arc<drain::Control>,
    pub(crate) phase: drain::Watch,
}

impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sources")
            .field("phase", &self.phase)
            .finish_non_exhaustive()
    }
}

/// The listeners, before anything is served.
#[derive(Debug)]
pub(crate) struct Bound {
    metrics: TcpListener,
    health: TcpListener,
    debug: TcpListener,
    socket: socket::Listener,
    probes: Asking,
    application: Asking,
}

/// Takes the ports and the socket. Needs a tokio runtime.
///
/// # Errors
/// When one of them can't be taken; the message names it.
pub(crate) async fn bind(config: &Config) -> io::Result<Bound> {
    let listen = async |what: &str, address: SocketAddr| {
        let bound = match TcpListener::bind(address).await {
            // A kernel without IPv6: `[::]` means every address that there is.
            Err(error)
                if address.ip() == Ipv6Addr::UNSPECIFIED
                    && error.raw_os_error() == Some(nix::errno::Errno::EAFNOSUPPORT as i32) =>
            {
                TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await
            }
            bound => bound,
        };
        bound.map_err(|error| {
            io::Error::new(error.kind(), format!("{what} port {address}: {error}"))
        })
    };
    let asking = |what| Asking {
        what,
        mark: config.mark,
    };
    Ok(Bound {
        metrics: listen("metrics", config.metrics).await?,
        health: listen("health", config.health).await?,
        debug: listen("debug", config.debug).await?,
        socket: socket::Listener::bind(&config.socket)?,
        probes: asking(What::Probes(Rc::new(config.probes.clone()))),
        application: asking(What::Metrics(Rc::new(config.application.clone()))),
    })
}

impl Bound {
    #[cfg(test)]
    /// Metrics, health, debug.
    ///
    /// # Errors
    /// When the system doesn't know the address of a listener.
    pub(crate) fn addresses(&self) -> io::Result<[SocketAddr; 3]> {
        Ok([
            self.metrics.local_addr()?,
            self.health.local_addr()?,
            self.debug.local_addr()?,
        ])
    }

    /// Answers until it is dropped.
    pub(crate) async fn serve(self, sources: Sources) {
        let sources = Rc::new(sources);
        tokio::join!(
            accept(
                self.metrics,
                Rc::clone(&sources),
                Port::Metrics,
                Some(self.application)
            ),
            accept(
                self.health,
                Rc::clone(&sources),
                Port::Health,
                Some(self.probes)
            ),
            accept(self.debug, Rc::clone(&sources), Port::Debug, None),
            self.socket.serve(Arc::clone(&sources.control)),
        );
    }
}

type Answer = Response<Full<Bytes>>;

/// A caller has so long to ask: requests here are small, and come at once.
const HEAD_PATIENCE: Duration = Duration::from_secs(3);

/// And so long to take the answer.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Port {
    Metrics,
    Health,
    Debug,
}

impl Port {
    async fn answer(self, sources: &Sources, path: &str) -> Answer {
        match self {
            Self::Metrics => metrics(sources, path),
            Self::Health => health(sources, path),
            Self::Debug => debug(sources, path).await,
        }
    }
}

async fn accept(listener: TcpListener, sources: Rc<Sources>, port: Port, asking: Option<Asking>) {
    let mut tasks = Tasks::new();
    let room = Rc::new(Room::default());
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => match room.enter(canonical(peer).ip()) {
                Some(place) => {
                    let sources = Rc::clone(&sources);
                    tasks.spawn(connection(stream, place, sources, port, asking.clone()));
                }
                None => tracing::debug!("admin connection over the limit closed"),
            },
            Err(error) => {
                tracing::warn!(%error, "admin connection not accepted");
                // Out of descriptors: the next try would spin.
                time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn connection(
    stream: TcpStream,
    place: Place,
    sources: Rc<Sources>,
    port: Port,
    asking: Option<Asking>,
) {
    let Ok(own) = stream.local_addr() else {
        return; // gone already
    };
    let asked = asking.as_ref().map(Asking::longest);
    let patience = HEAD_PATIENCE + PATIENCE + asked.unwrap_or_default();
    let place = &place;
    let service = service_fn(move |request: Request<Incoming>| {
        place.has_asked();
        let (sources, asking) = (Rc::clone(&sources), asking.clone());
        async move {
            if !matches!(*request.method(), Method::GET | Method::HEAD) {
                let refusal = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
                return Ok(refusal.map(Either::Left));
            }
            let path = request.uri().path();
            let answered = match &asking {
                Some(it) => it.carry_out(path, request.headers(), own).await,
                None => None,
            };
            match answered {
                Some(answered) => answered,
                None => Ok(port.answer(&sources, path).await.map(Either::Left)),
            }
        }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_PATIENCE)
        .max_buf_size(16 * 1024)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        served = time::timeout(patience, serving) => match served {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "admin connection broke"),
            Err(_) => tracing::debug!("admin connection took too long"),
        },
        () = place.is_needed() => tracing::debug!("silent admin connection gave way"),
    }
}

fn metrics(sources: &Sources, path: &str) -> Answer {
    match path {
        "/metrics" => match sources.registry.encode() {
            Ok(page) => {
                let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
                answer(StatusCode::OK, kind, page.into())
            }
            Err(error) => {
                tracing::error!(%error, "metrics not encoded");
                text(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "metrics can't be encoded\n",
                )
            }
        },
        _ => text(
            StatusCode::NOT_FOUND,
            "/metrics is here, and nothing else\n",
        ),
    }
}

fn health(sources: &Sources, path: &str) -> Answer {
    match path {
        // That this thread answers is what liveness asks.
        "/live" => text(StatusCode::OK, "live\n"),
        "/ready" => {
            let readiness = Readiness::of(sources);
            let status = if readiness.ready {
                StatusCode::OK
            } else {
                StatusCode::SERVICE_UNAVAILABLE
            };
            json(status, &readiness)
        }
        _ => text(StatusCode::NOT_FOUND, "/live and /ready are here\n"),
    }
}

async fn debug(sources: &Sources, path: &str) -> Answer {
    match path {
        "/dump" => json(StatusCode::OK, &dump::of(sources).await),
        _ => text(StatusCode::NOT_FOUND, "/dump is here\n"),
    }
}

#[derive(Debug, Serialize)]
struct Readiness {
    ready: bool,
    phase: &'static str,
    waiting_for: Vec<&'static str>,
    /// Why the control plane hasn't given it yet, where a try has failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    stream_error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate_error: Option<String>,
}

impl Readiness {
    fn of(sources: &Sources) -> Self {
        let waiting_for = sources.health.waiting_for(sources.wall.now());
        let status = sources.health.status();
        let phase = sources.phase.phase();
        Self {
            ready: waiting_for.is_empty() && phase == Phase::Serving,
            phase: phase_text(phase),
            waiting_for,
            stream_error: status.stream_error,
            certificate_error: status.renewal_error,
        }
    }
}

fn phase_text(phase: Phase) -> &'static str {
    match phase {
        Phase::Serving => "serving",
        Phase::Draining => "draining",
        Phase::Stopping => "stopping",
    }
}

fn json(status: StatusCode, value: &impl Serialize) -> Answer {
    let mut body = serde_json::to_vec_pretty(value).unwrap_or_default();
    body.push(b'\n');
    answer(status, "application/json", body.into())
}

fn text(status: StatusCode, body: &'static str) -> Answer {
    answer(
        status,
        "text/plain; charset=utf-8",
        Bytes::from_static(body.as_bytes()),
    )
}

fn answer(status: StatusCode, kind: &'static str, body: Bytes) -> Answer {
    let mut answer = Response::new(Full::new(body));
    *answer.status_mut() = status;
    answer
        .headers_mut()
        .insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    answer
}

#[cfg(test)]
mod tests;

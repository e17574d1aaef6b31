//! One HTTP/2 connection to an endpoint: opening, sharing and ending it.
//!
//! Used by `pool` alone. A connection with mutual TLS is retired when our
//! certificate is renewed, and ends when one of its certificates does or when
//! its root is no longer trusted.

use std::{
    cell::Cell,
    future::{Future, poll_fn},
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use bytes::Bytes;
use h2::{
    client::{Builder, SendRequest},
    ext::Protocol,
};
use http::{Method, Request, Uri, Version};
use tokio::{sync::watch, time::Instant};

use crate::{
    discovery::{Endpoint, EndpointKey, Places, Security},
    outcome::Reason,
    tls::{
        Alpn,
        certs::{Session, Store},
        connect::Refusal,
    },
    wire::LANE_PROTOCOL,
};

use super::{Config, Stream};
use crate::upstream::connect::Connector;

/// An open connection, as the pool keeps it.
#[derive(Debug)]
pub(super) struct Multiplexed {
    pub(super) number: u64,
    pub(super) streams: Rc<Cell<u32>>,
    sender: SendRequest<Bytes>,
    state: Rc<State>,
    refusal: Option<Refusal>,
    /// Where its driver has a place.
    places: Arc<Places>,
}

#[derive(Debug)]
struct State {
    is_open: Cell<bool>,
    last_used: Cell<Instant>,
    has_served: Cell<bool>,
}

/// What to dial; owned, since a dial outlives its caller's snapshot.
pub(super) struct Target {
    endpoint: Arc<Endpoint>,
    connect: Duration,
}

impl Target {
    pub(super) fn new(endpoint: &Arc<Endpoint>, connect: Duration) -> Self {
        Self {
            endpoint: Arc::clone(endpoint),
            connect,
        }
    }

    pub(super) fn key(&self) -> EndpointKey {
        self.endpoint.key
    }
}

type Running = Pin<Box<dyn Future<Output = Result<(), h2::Error>>>>;

/// Moves the connection's frames until it ends.
pub(super) struct Driver {
    connection: Running,
    state: Rc<State>,
    streams: Rc<Cell<u32>>,
    session: Option<Session>,
}

/// # Errors
/// Why it could not be opened.
pub(super) async fn open(
    connector: &Connector,
    config: &Config,
    target: &Target,
    number: u64,
    places: Arc<Places>,
) -> Result<(Multiplexed, Driver), Reason> {
    let mut builder = Builder::new();
    builder
        .enable_push(false)
        .initial_window_size(config.stream_window)
        .initial_connection_window_size(config.connection_window)
        .max_header_list_size(config.header_bytes)
        .max_concurrent_streams(0)
        .max_send_buffer_size(SEND_BUFFER);
    let broken = |_| Reason::StreamRefused;
    let refusal;
    let (sender, connection, session): (_, Running, _) = match target.endpoint.security {
        Security::Mesh { .. } => {
            let mesh = connector
                .mesh(&target.endpoint, Alpn::Http, target.connect)
                .await?;
            refusal = Some(mesh.refusal);
            let (sender, connection) = builder.handshake(mesh.stream).await.map_err(broken)?;
            (sender, Box::pin(connection), Some(mesh.session))
        }
        Security::Unmeshed => {
            let stream = connector
                .tcp(target.endpoint.address, target.connect)
                .await?;
            refusal = None;
            let (sender, connection) = builder.handshake(stream).await.map_err(broken)?;
            (sender, Box::pin(connection), None)
        }
    };
    let state = Rc::new(State {
        is_open: Cell::new(true),
        last_used: Cell::new(Instant::now()),
        has_served: Cell::new(false),
    });
    let streams = Rc::new(Cell::new(0));
    let driver = Driver {
        connection,
        state: Rc::clone(&state),
        streams: Rc::clone(&streams),
        session,
    };
    Ok((
        Multiplexed {
            number,
            streams,
            sender,
            state,
            refusal,
            places,
        },
        driver,
    ))
}

/// Per stream, bytes that wait for the socket.
const SEND_BUFFER: usize = 256 * 1024;

impl Multiplexed {
    pub(super) fn is_open(&self) -> bool {
        self.state.is_open.get()
    }

    pub(super) fn places(&self) -> &Arc<Places> {
        &self.places
    }

    pub(super) fn idle_for(&self, now: Instant) -> Duration {
        now.duration_since(self.state.last_used.get())
    }

    pub(super) fn stream_limit(&self, ours: u32) -> u32 {
        let theirs = u32::try_from(self.sender.current_max_send_streams()).unwrap_or(u32::MAX);
        ours.min(theirs)
    }

    pub(super) fn lend(&self) -> Lent {
        self.state.last_used.set(Instant::now());
        let mut stream = Stream::new(self.number, &self.streams, self.refusal.clone());
        stream.is_reused = self.state.has_served.replace(true);
        Lent {
            sender: self.sender.clone(),
            stream,
            state: Rc::clone(&self.state),
        }
    }

    /// Idle ones end after `idle_timeout`: dropping the sender closes them.
    pub(super) fn is_wanted(&self, now: Instant, idle_timeout: Duration) -> bool {
        self.is_open() && (self.streams.get() > 0 || self.idle_for(now) < idle_timeout)
    }
}

/// A place on a connection that was open a moment ago.
pub(super) struct Lent {
    sender: SendRequest<Bytes>,
    stream: Stream,
    state: Rc<State>,
}

impl Lent {
    /// `None` when the connection takes no new stream any more (GOAWAY, or
    /// broken): it is not lent again.
    pub(super) async fn ready(mut self) -> Option<(SendRequest<Bytes>, Stream)> {
        if poll_fn(|cx| self.sender.poll_ready(cx)).await.is_err() {
            self.state.is_open.set(false);
            return None;
        }
        Some((self.sender, self.stream))
    }
}

impl Driver {
    /// Calls `retire` once no new stream may use it: idle lanes end then.
    /// Returns why it ended.
    pub(super) async fn run(mut self, certificates: &Store, retire: impl Fn()) -> &'static str {
        let cause = match self.session.take() {
            None => ended(&(&mut self.connection).await),
            Some(session) => tokio::select! {
                result = &mut self.connection => ended(&result),
                () = certificates.retired(&session) => {
                    self.state.is_open.set(false);
                    retire();
                    tokio::select! {
                        () = self.drained() => {}
                        () = certificates.ended(&session) => {}
                    }
                    "certificate"
                }
            },
        };
        self.state.is_open.set(false);
        retire();
        cause
    }

    /// Streams in flight may finish until a certificate ends.
    async fn drained(&mut self) {
        poll_fn(|cx| {
            let is_over = self.connection.as_mut().poll(cx).is_ready() || self.streams.get() == 0;
            if is_over {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
    }
}

fn ended(result: &Result<(), h2::Error>) -> &'static str {
    if result.is_ok() { "peer" } else { "error" }
}

pub(super) fn open_lane() -> Request<()> {
    let mut request = Request::new(());
    *request.method_mut() = Method::CONNECT;
    *request.version_mut() = Version::HTTP_2;
    *request.uri_mut() = Uri::from_static("http://weft/");
    request
        .extensions_mut()
        .insert(Protocol::from_static(LANE_PROTOCOL));
    request
}

/// A dial that several may wait for.
#[derive(Clone, Debug)]
pub(super) struct Dialling(watch::Receiver<Option<Result<(), Reason>>>);

pub(super) struct Tell(watch::Sender<Option<Result<(), Reason>>>);

impl Dialling {
    pub(super) fn new() -> (Tell, Self) {
        let (sender, receiver) = watch::channel(None);
        (Tell(sender), Self(receiver))
    }

    pub(super) async fn ended(mut self) -> Result<(), Reason> {
        match self.0.wait_for(Option::is_some).await {
            Ok(result) => (*result).unwrap_or(Ok(())),
            Err(_) => Err(Reason::ConnectTimeout),
        }
    }
}

impl Tell {
    pub(super) fn end(self, result: Result<(), Reason>) {
        self.0.send_replace(Some(result));
    }
}

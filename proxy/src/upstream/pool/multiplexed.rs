//! One HTTP/2 connection to an endpoint: opening, sharing and ending it.
//!
//! Used by `pool` alone. A connection with mutual TLS is retired when our
//! certificate is renewed, and ends when one of its certificates does or when
//! its root is no longer trusted.

use std::{
    cell::{Cell, RefCell},
    future::{Future, pending, poll_fn},
    pin::{Pin, pin},
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker},
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

use super::{Config, Stream, settled::Settled};
use crate::upstream::{connect::Connector, queue};

/// An open connection, as the pool keeps it.
#[derive(Debug)]
pub(super) struct Multiplexed {
    sender: SendRequest<Bytes>,
    state: Rc<State>,
}

/// What the pool, the streams and the driver of a connection share.
#[derive(Debug)]
pub(super) struct State {
    number: u64,
    streams: Cell<u32>,
    is_open: Cell<bool>,
    last_used: Cell<Instant>,
    has_served: Cell<bool>,
    refusal: Option<Refusal>,
    /// Where the driver has a place.
    places: Arc<Places>,
    /// A stream has ended while somebody waits for such a place.
    is_wanted: Cell<bool>,
    driver: RefCell<Option<Waker>>,
    settled: Settled,
}

impl State {
    fn new(number: u64, refusal: Option<Refusal>, places: Arc<Places>, settled: Settled) -> Self {
        Self {
            number,
            streams: Cell::new(0),
            is_open: Cell::new(true),
            last_used: Cell::new(Instant::now()),
            has_served: Cell::new(false),
            refusal,
            places,
            is_wanted: Cell::new(false),
            driver: RefCell::default(),
            settled,
        }
    }

    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// One more stream; whether it is not the first.
    pub(super) fn begin(&self) -> bool {
        self.last_used.set(Instant::now());
        self.streams.set(self.streams.get() + 1);
        self.has_served.replace(true)
    }

    pub(super) fn end(&self) {
        self.streams.set(self.streams.get().saturating_sub(1));
        if queue::is_wanted(&self.places) {
            self.is_wanted.set(true);
            if let Some(driver) = self.driver.take() {
                driver.wake();
            }
        }
    }

    pub(super) fn settled(&self) -> &Settled {
        &self.settled
    }

    pub(super) fn refusal(&self) -> Option<Reason> {
        self.refusal.as_ref()?.reason()
    }

    /// Ready once for each time that its place may be given to another.
    fn poll_wanted(&self, cx: &Context<'_>) -> Poll<()> {
        if self.is_wanted.take() {
            return Poll::Ready(());
        }
        let mut driver = self.driver.borrow_mut();
        if driver.as_ref().is_none_or(|it| !it.will_wake(cx.waker())) {
            *driver = Some(cx.waker().clone());
        }
        Poll::Pending
    }
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
    let mut ping = None;
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
            let (sender, mut connection) = builder.handshake(stream).await.map_err(broken)?;
            ping = connection.ping_pong();
            (sender, Box::pin(connection), None)
        }
    };
    let state = Rc::new(State::new(number, refusal, places, Settled::new(ping)));
    let driver = Driver {
        connection,
        state: Rc::clone(&state),
        session,
    };
    Ok((Multiplexed { sender, state }, driver))
}

/// Per stream, bytes that wait for the socket.
const SEND_BUFFER: usize = 256 * 1024;

/// Whoever had it opened gets it within this time.
const FRESH: Duration = Duration::from_secs(1);

impl Multiplexed {
    pub(super) fn number(&self) -> u64 {
        self.state.number
    }

    pub(super) fn streams(&self) -> u32 {
        self.state.streams.get()
    }

    pub(super) fn is_open(&self) -> bool {
        self.state.is_open.get()
    }

    /// Just opened, for somebody who has not had it yet.
    pub(super) fn is_fresh(&self) -> bool {
        !self.state.has_served.get() && self.idle_for(Instant::now()) < FRESH
    }

    pub(super) fn places(&self) -> &Arc<Places> {
        &self.state.places
    }

    pub(super) fn idle_for(&self, now: Instant) -> Duration {
        now.duration_since(self.state.last_used.get())
    }

    pub(super) fn stream_limit(&self, ours: u32) -> u32 {
        let theirs = u32::try_from(self.sender.current_max_send_streams()).unwrap_or(u32::MAX);
        ours.min(theirs)
    }

    pub(super) fn lend(&self) -> Lent {
        Lent {
            sender: self.sender.clone(),
            stream: Stream::new(&self.state),
        }
    }

    /// Idle ones end after `idle_timeout`: dropping the sender closes them.
    pub(super) fn is_wanted(&self, now: Instant, idle_timeout: Duration) -> bool {
        self.is_open() && (self.streams() > 0 || self.idle_for(now) < idle_timeout)
    }
}

/// A place on a connection that was open a moment ago.
pub(super) struct Lent {
    sender: SendRequest<Bytes>,
    stream: Stream,
}

impl Lent {
    /// `None` when the connection takes no new stream any more (GOAWAY, or
    /// broken): it is not lent again.
    pub(super) async fn ready(mut self) -> Option<(SendRequest<Bytes>, Stream)> {
        if poll_fn(|cx| self.sender.poll_ready(cx)).await.is_err() {
            self.stream.connection().is_open.set(false);
            return None;
        }
        Some((self.sender, self.stream))
    }
}

impl Driver {
    /// Calls `retire` once no new stream may use it: idle lanes end then; and
    /// `gives_way` when it might be idle while somebody waits for its place.
    /// Returns why it ended.
    pub(super) async fn run(
        mut self,
        certificates: &Store,
        retire: impl Fn(),
        gives_way: impl Fn() -> bool,
    ) -> &'static str {
        let state = Rc::clone(&self.state);
        let session = self.session.take();
        let mut retired = pin!(async {
            match &session {
                Some(session) => certificates.retired(session).await,
                None => pending().await,
            }
        });
        let mut has_given_way = false;
        let cause = loop {
            tokio::select! {
                biased;
                result = &mut self.connection => {
                    break if has_given_way { "limit" } else { ended(&result) };
                }
                () = poll_fn(|cx| state.poll_wanted(cx)) => has_given_way |= gives_way(),
                () = &mut retired => {
                    state.is_open.set(false);
                    retire();
                    tokio::select! {
                        () = self.drained() => {}
                        () = async {
                            match &session {
                                Some(session) => certificates.ended(session).await,
                                None => pending().await,
                            }
                        } => {}
                    }
                    break "certificate";
                }
            }
        };
        state.is_open.set(false);
        retire();
        cause
    }

    /// Streams in flight may finish until a certificate ends.
    async fn drained(&mut self) {
        poll_fn(|cx| {
            let is_over =
                self.connection.as_mut().poll(cx).is_ready() || self.state.streams.get() == 0;
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

//! From a socket to a connection whose caller is known.
//!
//! TCP or a unix socket, the same TLS on both. Accepting never waits (`gate`):
//! who watches, or tells as a replica, stays; whoever else is connected gives way
//! to who comes later, and without a certificate has its time. A certificate
//! alone holds no place: there is one stream to a pod, and no end to silence.
//! What comes after is tonic, which finds the `Peer` in each request's extensions.

use std::{
    fmt, fs, io,
    net::{IpAddr, SocketAddr},
    os::unix::fs::{FileTypeExt, PermissionsExt},
    path::{Path, PathBuf},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures_util::task::AtomicWaker;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, UnixListener},
    sync::{mpsc, watch},
    time::{sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tonic::transport::server::Connected;

use crate::{
    clock::Wall,
    gate::{Gate, Limits, Pass},
    runtime::Tasks,
    serve::{
        metrics::{Metrics, Reason},
        tls::{Nobody, Tls, Verified},
    },
};

mod socket;

use socket::Socket;

const HANDSHAKE: Duration = Duration::from_secs(10);
/// Handshakes under way, and callers that don't watch: as many as there are when
/// all proxies of a large mesh come at once.
const UNPROVED: usize = 2048;
/// A caller without a certificate may ask for one, which takes moments.
const WITHOUT_CERTIFICATE: Duration = Duration::from_secs(30);

/// A node that hides its pods behind one address has a few hundred proxies.
const fn limits(most: usize) -> Limits {
    let share = most / 8;
    Limits {
        most,
        most_of_one: if share < 64 { 64 } else { share },
        most_waiting: if most < UNPROVED { most } else { UNPROVED },
    }
}

/// Where proxies reach the control plane.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[derive(Debug)]
pub(crate) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    pub(crate) async fn bind(address: &Address) -> io::Result<Self> {
        match address {
            Address::Tcp(address) => Ok(Self::Tcp(TcpListener::bind(address).await?)),
            // Whoever reaches it: TLS says who it is.
            Address::Unix(path) => Ok(Self::Unix(bind_unix(path, 0o666)?)),
        }
    }

    pub(crate) fn address(&self) -> io::Result<Address> {
        match self {
            Self::Tcp(listener) => Ok(Address::Tcp(listener.local_addr()?)),
            Self::Unix(listener) => {
                let address = listener.local_addr()?;
                Ok(Address::Unix(
                    address
                        .as_pathname()
                        .unwrap_or_else(|| Path::new(""))
                        .to_owned(),
                ))
            }
        }
    }

    async fn accept(&self) -> io::Result<(Socket, Option<IpAddr>)> {
        match self {
            Self::Tcp(listener) => {
                let (socket, from) = listener.accept().await?;
                socket.set_nodelay(true)?;
                Ok((Socket::Tcp(socket), Some(from.ip())))
            }
            Self::Unix(listener) => Ok((Socket::Unix(listener.accept().await?.0), None)),
        }
    }
}

/// Replaces a socket that nobody listens on any more, and nothing else.
pub(crate) fn bind_unix(path: &Path, mode: u32) -> io::Result<UnixListener> {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|it| it.file_type().is_socket());
    if is_socket && std::os::unix::net::UnixStream::connect(path).is_err() {
        fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    Ok(listener)
}

/// Hands finished handshakes on until nobody takes them.
#[derive(Debug)]
pub(crate) struct Acceptor {
    pub(crate) listener: Listener,
    pub(crate) tls: watch::Receiver<Arc<Tls>>,
    pub(crate) most_connections: usize,
    pub(crate) clock: Wall,
    pub(crate) metrics: Metrics,
}

impl Acceptor {
    pub(crate) async fn run(self, ready: mpsc::Sender<io::Result<Connection>>) {
        let gate = Gate::new(limits(self.most_connections));
        let mut tasks = Tasks::new();
        loop {
            let accepted = tokio::select! {
                () = ready.closed() => return,
                accepted = self.listener.accept() => accepted,
            };
            let (socket, from) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    // Out of descriptors, most likely: those in use have to end first.
                    sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let Some(pass) = gate.enter(from) else {
                self.metrics.refuse(Reason::TooMany);
                tracing::warn!(limit = self.most_connections, "too many connections");
                continue;
            };
            let (tls, ready) = (self.tls.borrow().clone(), ready.clone());
            let (clock, metrics) = (self.clock, self.metrics.clone());
            tasks.spawn(let_in(socket, pass, (tls, clock, metrics), ready));
        }
    }
}

async fn let_in(
    socket: Socket,
    pass: Pass,
    (tls, clock, metrics): (Arc<Tls>, Wall, Metrics),
    ready: mpsc::Sender<io::Result<Connection>>,
) {
    let evicted = pass.ended();
    let shaken = tokio::select! {
        shaken = timeout(HANDSHAKE, shake_hands(socket, &tls, clock)) => shaken,
        () = evicted => return metrics.refuse(Reason::TooMany),
    };
    let (stream, verified) = match shaken {
        Ok(Ok(shaken)) => shaken,
        Ok(Err(refused)) => {
            metrics.refuse(refused.reason());
            tracing::debug!(error = %refused, "a handshake failed");
            return;
        }
        Err(_) => return metrics.refuse(Reason::HandshakeTimeout),
    };
    let connection = Connection::new(stream, verified, pass, metrics);
    let _stopping = ready.send(Ok(connection)).await;
}

/// What ends a connection that does nothing wrong.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Over {
    /// Its place is somebody else's.
    Evicted,
    /// It had its time.
    Late,
}

/// Until it has to give way, or without a certificate had its time.
async fn over(evicted: impl Future<Output = ()>, has_proved: bool) -> Over {
    if has_proved {
        evicted.await;
        return Over::Evicted;
    }
    match timeout(WITHOUT_CERTIFICATE, evicted).await {
        Ok(()) => Over::Evicted,
        Err(_) => Over::Late,
    }
}

#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error(transparent)]
    Handshake(#[from] io::Error),
    #[error(transparent)]
    Nobody(#[from] Nobody),
}

impl Refused {
    const fn reason(&self) -> Reason {
        match self {
            Self::Handshake(_) => Reason::Handshake,
            Self::Nobody(_) => Reason::PeerIdentity,
        }
    }
}

async fn shake_hands(
    socket: Socket,
    tls: &Tls,
    clock: Wall,
) -> Result<(TlsStream<Socket>, Option<Verified>), Refused> {
    let stream = TlsAcceptor::from(tls.config.clone()).accept(socket).await?;
    let session = stream.get_ref().1;
    if session.alpn_protocol() != Some(b"h2") {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "not HTTP/2").into());
    }
    let verified = match session.peer_certificates() {
        Some(chain) => {
            let chain: Vec<_> = chain.iter().map(|it| it.clone().into_owned()).collect();
            Some(tls.verify(&chain, clock)?)
        }
        None => None,
    };
    Ok((stream, verified))
}

/// Who is at the other end.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    /// `None`: it showed no certificate.
    pub(crate) verified: Option<Arc<Verified>>,
    pub(crate) closer: Closer,
    /// Its place; who watches has a turn of it.
    pub(crate) pass: Arc<Pass>,
}

/// Ends a connection whose reader is stuck, from outside.
#[derive(Clone, Debug, Default)]
pub(crate) struct Closer(Arc<(AtomicBool, AtomicWaker)>);

impl Closer {
    pub(crate) fn close(&self) {
        self.0.0.store(true, Ordering::Release);
        self.0.1.wake();
    }

    #[cfg(test)]
    pub(crate) fn is_closed(&self) -> bool {
        self.0.0.load(Ordering::Acquire)
    }

    /// An error once it is closed; until then the task is woken when it will be.
    fn check(&self, cx: &Context<'_>) -> io::Result<()> {
        self.0.1.register(cx.waker());
        if self.0.0.load(Ordering::Acquire) {
            return Err(io::Error::new(
                io::ErrorKind::ConnectionAborted,
                "closed by its session",
            ));
        }
        Ok(())
    }
}

/// A connection as tonic takes it.
pub(crate) struct Connection {
    stream: TlsStream<Socket>,
    peer: Peer,
    metrics: Metrics,
    /// `None`: it is over.
    over: Option<Pin<Box<dyn Future<Output = Over> + Send>>>,
}

impl Connection {
    fn new(
        stream: TlsStream<Socket>,
        verified: Option<Verified>,
        pass: Pass,
        metrics: Metrics,
    ) -> Self {
        metrics.connections.inc();
        let over = over(pass.ended(), verified.is_some());
        let peer = Peer {
            verified: verified.map(Arc::new),
            closer: Closer::default(),
            pass: Arc::new(pass),
        };
        Self {
            stream,
            peer,
            metrics,
            over: Some(Box::pin(over)),
        }
    }

    /// An error once it is over or closed; until then the task is woken when it
    /// will be.
    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if let Some(over) = &mut self.over
            && let Poll::Ready(why) = over.as_mut().poll(cx)
        {
            self.over = None;
            if why == Over::Evicted {
                self.metrics.refuse(Reason::TooMany);
            }
            self.peer.closer.close();
        }
        self.peer.closer.check(cx)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.metrics.connections.dec();
    }
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

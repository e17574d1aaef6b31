//! A connection to the control plane: TCP or a unix socket, then TLS 1.3.
//!
//! `identity` and `client` open one when they need it and let it go when it
//! breaks; neither trusts an address: the server must prove that it is the
//! control plane.

use std::{future::Future, io, path::PathBuf, pin::Pin, str::FromStr, sync::Arc, time::Duration};

use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream, lookup_host},
    time::timeout,
};
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use crate::{
    identity::SpiffeId,
    outcome::Reason,
    sock::{self, Liveness, Source},
    tls::{
        certs::{Bundle, Certificate, Session, Store},
        connect::to_control_plane,
    },
};

/// No name, no connection and no answer to a call takes longer.
pub(super) const DEADLINE: Duration = Duration::from_secs(10);

/// `ip:port`, `name:port` or `unix:PATH`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Address {
    Tcp(String),
    Unix(PathBuf),
}

#[derive(Debug)]
pub(super) struct NotAnAddress;

impl FromStr for Address {
    type Err = NotAnAddress;

    fn from_str(text: &str) -> Result<Self, NotAnAddress> {
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.is_empty() {
                Err(NotAnAddress)
            } else {
                Ok(Self::Unix(path.into()))
            };
        }
        let (host, port) = text.rsplit_once(':').ok_or(NotAnAddress)?;
        let is_port = port.parse::<u16>().is_ok_and(|port| port != 0);
        let is_host = !host.is_empty() && (!host.contains(':') || host.starts_with('['));
        if is_port && is_host {
            Ok(Self::Tcp(text.to_owned()))
        } else {
            Err(NotAnAddress)
        }
    }
}

/// Bytes to and from whoever is at the address.
pub(super) trait Bytes: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Bytes for T {}

type Dialing = Pin<Box<dyn Future<Output = io::Result<Box<dyn Bytes>>> + Send>>;

/// Connects once per call. Tests hand in one that connects in memory.
pub(super) type Dial = Arc<dyn Fn() -> Dialing + Send + Sync>;

pub(super) fn dial(address: Address, mark: Option<u32>, liveness: Liveness) -> Dial {
    Arc::new(move || {
        let address = address.clone();
        Box::pin(async move {
            Ok(match address {
                Address::Unix(path) => Box::new(UnixStream::connect(path).await?) as Box<dyn Bytes>,
                Address::Tcp(address) => Box::new(connect(&address, mark, &liveness).await?),
            })
        })
    })
}

/// Tries each address that the name has.
async fn connect(address: &str, mark: Option<u32>, liveness: &Liveness) -> io::Result<TcpStream> {
    let from = Source {
        inbound: false,
        mark,
    };
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in lookup_host(address).await? {
        match sock::connect(address, from, liveness).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Why the control plane can't be spoken to.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unreachable {
    #[error("no connection: {0}")]
    Connect(#[from] io::Error),
    #[error("no connection in time")]
    Timeout,
    #[error("no TLS: {}", .0.as_str())]
    Tls(Reason),
    #[error("no HTTP/2: {0}")]
    Http(#[from] tonic::transport::Error),
    #[error("{}: {}", .0.code(), .0.message())]
    Refused(Box<tonic::Status>),
}

impl From<tonic::Status> for Unreachable {
    fn from(status: tonic::Status) -> Self {
        Self::Refused(Box::new(status))
    }
}

/// A channel over one connection, and how long that may live. It never
/// reconnects: when to do so is its owner's decision.
pub(super) async fn open(
    dial: Dial,
    certificates: Arc<Store>,
    roots: Arc<Bundle>,
    own: Option<Certificate>,
) -> Result<(Channel, Session), Unreachable> {
    let expected = control_plane(certificates.trust_domain());
    let tcp = timeout(DEADLINE, dial())
        .await
        .map_err(|_| Unreachable::Timeout)??;
    let tls = to_control_plane(tcp, &expected, &certificates, &roots, own.as_ref());
    let (stream, session) = Box::pin(tls).await.map_err(Unreachable::Tls)?;
    let mut once = Some(TokioIo::new(stream));
    let connector = service_fn(move |_| {
        let stream = once.take().ok_or(io::ErrorKind::NotConnected);
        std::future::ready(stream.map_err(io::Error::from))
    });
    let endpoint = Endpoint::from_static("http://control-plane");
    let connecting = Box::pin(endpoint.connect_with_connector(connector));
    Ok((connecting.await?, session))
}

/// Whom every replica of the control plane proves to be.
fn control_plane(trust_domain: &str) -> SpiffeId {
    SpiffeId::new(trust_domain, "weft-system", "weft-control-plane")
        .expect("`start` has made an identity of this trust domain")
}

/// Waits that grow while tries fail; none before the first.
#[derive(Debug, Default)]
pub(super) struct Backoff(u32);

impl Backoff {
    pub(super) fn reset(&mut self) {
        self.0 = 0;
    }

    /// Half of it at least, the rest by chance, so that a thousand proxies
    /// don't come back at once.
    pub(super) fn next(&mut self, longest: Duration) -> Duration {
        let doublings = self.0.min(16);
        self.0 = self.0.saturating_add(1);
        if doublings == 0 {
            return Duration::ZERO;
        }
        let wait = Duration::from_millis(50 << doublings).min(longest);
        wait.mul_f64(0.5 + fastrand::f64() / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_a_host_with_a_port_or_a_socket() {
        for right in [
            "10.0.0.1:15010",
            "[fd00::1]:15010",
            "weft.weft-system:15010",
        ] {
            assert_eq!(
                right.parse::<Address>().unwrap(),
                Address::Tcp(right.into())
            );
        }
        assert_eq!(
            "unix:/run/x".parse::<Address>().unwrap(),
            Address::Unix("/run/x".into())
        );
        for wrong in [
            "",
            "10.0.0.1",
            "fd00::1:15010",
            "host:0",
            "host:99999",
            ":1",
            "unix:",
        ] {
            assert!(wrong.parse::<Address>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_first_try_again_is_at_once_and_later_ones_grow_to_a_bound() {
        let mut backoff = Backoff::default();
        assert_eq!(backoff.next(DEADLINE), Duration::ZERO);
        for most in [100, 200, 400] {
            let wait = backoff.next(DEADLINE).as_millis();
            assert!(wait >= most / 2 && wait <= most, "{wait}");
        }
        for _ in 0..40 {
            assert!(backoff.next(DEADLINE) <= DEADLINE);
        }
        backoff.reset();
        assert_eq!(backoff.next(DEADLINE), Duration::ZERO);
    }
}

//! A connection to an endpoint: TCP, and mutual TLS where it has a proxy.
//!
//! Called by `pool` for HTTP and by the stories for opaque bytes. Every dial
//! has a deadline, and a failed one a `Reason`. Never retries.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use tokio::{net::TcpStream, time::timeout};

use crate::{
    discovery::{Endpoint, Security},
    outcome::Reason,
    sock,
    tls::{
        Alpn,
        certs::Store,
        connect::{Connected, connect},
    },
};

#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// SO_MARK of our sockets, where packets are told apart by mark.
    pub(crate) mark: Option<u32>,
    pub(crate) keep_alive: Duration,
    pub(crate) user_timeout: Duration,
}

/// Source of a dial.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Source {
    /// Whatever the kernel chooses.
    Any,
    /// 127.0.0.6 or ::6: inbound proxy to its application.
    Inbound,
}

#[derive(Debug)]
pub(crate) struct Connector {
    config: Config,
    source: Source,
    pub(crate) certificates: Arc<Store>,
}

/// Opaque bytes to an endpoint.
#[derive(Debug)]
pub(crate) enum Opaque {
    Plain(TcpStream),
    Mesh(Box<Connected>),
}

impl Connector {
    pub(crate) fn new(config: Config, source: Source, certificates: Arc<Store>) -> Rc<Self> {
        Rc::new(Self { config, source, certificates })
    }

    /// # Errors
    /// `ConnectRefused`, `ConnectTimeout` or `ConnectUnreachable`.
    pub(crate) async fn tcp(&self, address: SocketAddr, limit: Duration) -> Result<TcpStream, Reason> {
        let options = sock::Dial {
            mark: self.config.mark,
            keep_alive: self.config.keep_alive,
            user_timeout: self.config.user_timeout,
            source: match (self.source, address.ip()) {
                (Source::Any, _) => None,
                (Source::Inbound, IpAddr::V4(_)) => Some(sock::INBOUND_SOURCE_V4.into()),
                (Source::Inbound, IpAddr::V6(_)) => Some(sock::INBOUND_SOURCE_V6.into()),
            },
        };
        match timeout(limit, sock::dial(address, &options)).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => Err(reason(&error)),
            Err(_) => Err(Reason::ConnectTimeout),
        }
    }

    /// Mutual TLS to the endpoint's proxy, which proves the endpoint's identity.
    ///
    /// # Errors
    /// Why there is no such connection; nothing was sent over it.
    pub(crate) async fn mesh(&self, endpoint: &Endpoint, alpn: Alpn, limit: Duration) -> Result<Connected, Reason> {
        let Security::Mesh { identity, .. } = &endpoint.security else {
            return Err(Reason::TlsHandshake);
        };
        let dial = async {
            let stream = self.tcp(endpoint.address, limit).await?;
            connect(stream, identity, alpn, &self.certificates).await
        };
        timeout(limit, dial).await.unwrap_or(Err(Reason::ConnectTimeout))
    }

    /// For bytes that stay opaque.
    ///
    /// # Errors
    /// As `mesh` and `tcp`.
    pub(crate) async fn opaque(&self, endpoint: &Endpoint, limit: Duration) -> Result<Opaque, Reason> {
        match endpoint.security {
            Security::Mesh { tcp: true, .. } => {
                Ok(Opaque::Mesh(Box::new(self.mesh(endpoint, Alpn::Tcp, limit).await?)))
            }
            Security::Mesh { tcp: false, .. } => Err(Reason::OpaqueRefused),
            Security::Unmeshed => Ok(Opaque::Plain(self.tcp(endpoint.address, limit).await?)),
        }
    }
}

fn reason(error: &io::Error) -> Reason {
    match error.kind() {
        io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset => Reason::ConnectRefused,
        io::ErrorKind::TimedOut => Reason::ConnectTimeout,
        _ => Reason::ConnectUnreachable,
    }
}

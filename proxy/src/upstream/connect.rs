//! A connection to an endpoint: TCP, and mutual TLS where it has a proxy.
//!
//! Called by `pool` for HTTP and by the stories for opaque bytes. Every dial
//! has a deadline, and a failed one a `Reason`. Never retries.

use std::{io, net::SocketAddr, rc::Rc, sync::Arc, time::Duration};

use tokio::{net::TcpStream, time::timeout};

use crate::{
    discovery::{Endpoint, Security},
    outcome::Reason,
    record::Metrics,
    sock,
    tls::{
        Alpn,
        certs::Store,
        connect::{Connected, connect},
    },
};

#[derive(Debug)]
pub(crate) struct Connector {
    source: sock::Source,
    liveness: sock::Liveness,
    pub(crate) certificates: Arc<Store>,
    metrics: Arc<Metrics>,
}

/// Opaque bytes to an endpoint.
#[derive(Debug)]
pub(crate) enum Opaque {
    Plain(TcpStream),
    Mesh(Box<Connected>),
}

impl Connector {
    pub(crate) fn new(
        source: sock::Source,
        liveness: sock::Liveness,
        certificates: Arc<Store>,
        metrics: Arc<Metrics>,
    ) -> Rc<Self> {
        Rc::new(Self {
            source,
            liveness,
            certificates,
            metrics,
        })
    }

    /// # Errors
    /// `ConnectRefused`, `ConnectTimeout` or `ConnectUnreachable`.
    pub(crate) async fn tcp(
        &self,
        address: SocketAddr,
        limit: Duration,
    ) -> Result<TcpStream, Reason> {
        match timeout(limit, sock::connect(address, self.source, &self.liveness)).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => Err(reason(&error)),
            Err(_) => Err(Reason::ConnectTimeout),
        }
    }

    /// Mutual TLS to the endpoint's proxy, which proves the endpoint's identity.
    ///
    /// # Errors
    /// Why there is no such connection; nothing was sent over it.
    pub(crate) async fn mesh(
        &self,
        endpoint: &Endpoint,
        alpn: Alpn,
        limit: Duration,
    ) -> Result<Connected, Reason> {
        let Security::Mesh { identity, .. } = &endpoint.security else {
            return Err(Reason::TlsHandshake);
        };
        let dial = async {
            let stream = self.tcp(endpoint.address, limit).await?;
            let connected = connect(stream, identity, alpn, &self.certificates).await;
            let results = &self.metrics.tls.connected;
            results.inc(
                connected
                    .as_ref()
                    .map_or_else(|reason| reason.as_str(), |_| "ok"),
            );
            connected
        };
        timeout(limit, dial)
            .await
            .unwrap_or(Err(Reason::ConnectTimeout))
    }

    /// For bytes that stay opaque.
    ///
    /// # Errors
    /// As `mesh` and `tcp`.
    pub(crate) async fn opaque(
        &self,
        endpoint: &Endpoint,
        limit: Duration,
    ) -> Result<Opaque, Reason> {
        match endpoint.security {
            Security::Mesh { tcp: true, .. } => Ok(Opaque::Mesh(Box::new(
                self.mesh(endpoint, Alpn::Tcp, limit).await?,
            ))),
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

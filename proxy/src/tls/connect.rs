//! Our side of a handshake that we begin.
//!
//! `upstream::connect` dials and hands the socket here. The peer must prove the
//! endpoint's identity before a byte of the request is written. A refusal of
//! *our* certificate arrives late in TLS 1.3, at the first read: `MeshStream`
//! notes it, and `Refusal::reason` tells it.

use std::{
    io,
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream, rustls::pki_types::ServerName};

use crate::{
    around::{Around, Reading},
    identity::SpiffeId,
    outcome::Reason,
    tls::{
        Alpn, HANDSHAKE_DEADLINE,
        certs::{Bundle, Certificate, Session, Store},
        reason_of,
        verify::{Proof, Verifier},
    },
};

/// A connection to a peer proxy that proved to be the endpoint.
#[derive(Debug)]
pub(crate) struct Connected {
    pub(crate) stream: MeshStream,
    pub(crate) session: Session,
    pub(crate) refusal: Refusal,
}

/// Why the peer refused us after our side of the handshake was done. Cheap to
/// clone; kept by whoever has to name the fault when the stream breaks.
#[derive(Clone, Default, Debug)]
pub(crate) struct Refusal(Arc<OnceLock<Reason>>);

impl Refusal {
    /// `None` unless TLS broke before the first byte from the peer: then the
    /// request never reached the peer's application.
    pub(crate) fn reason(&self) -> Option<Reason> {
        self.0.get().copied()
    }
}

/// Finishes the handshake as `expected`'s caller.
///
/// # Errors
/// `CertificateMissing` when we have none; `ConnectTimeout` after
/// `HANDSHAKE_DEADLINE`; otherwise what was wrong with the peer or the handshake.
pub(crate) async fn connect(
    tcp: TcpStream,
    expected: &SpiffeId,
    alpn: Alpn,
    store: &Store,
) -> Result<Connected, Reason> {
    let material = store.current();
    let own = store.own(&material)?;
    let (mut stream, proof) = handshake(
        tcp,
        expected,
        alpn.as_str(),
        store,
        &material.bundle,
        Some(&own),
    )
    .await?;
    stream
        .get_mut()
        .1
        .set_buffer_limit(Some(alpn.buffer_limit()));
    let refusal = Refusal::default();
    let session = Session::new(proof, Some(&own), store.wall().now());
    let stream = MeshStream {
        stream,
        reading: Noting {
            refusal: Some(refusal.clone()),
        },
    };
    Ok(Connected {
        stream,
        session,
        refusal,
    })
}

/// To the control plane, which proves itself by one of `roots`: `h2`, with our
/// certificate where `own` is given.
///
/// # Errors
/// As `connect`.
pub(crate) async fn to_control_plane<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    expected: &SpiffeId,
    store: &Store,
    roots: &Arc<Bundle>,
    own: Option<&Certificate>,
) -> Result<(TlsStream<S>, Session), Reason> {
    let (stream, proof) = handshake(stream, expected, "h2", store, roots, own).await?;
    Ok((stream, Session::new(proof, own, store.wall().now())))
}

async fn handshake<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    expected: &SpiffeId,
    alpn: &str,
    store: &Store,
    roots: &Arc<Bundle>,
    own: Option<&Certificate>,
) -> Result<(TlsStream<S>, Proof), Reason> {
    let verifier = Verifier::new(
        Arc::clone(roots),
        store.trust_domain(),
        Some(expected.clone()),
    );
    let verifier = Arc::new(verifier);
    let config = store.client_config(verifier.clone(), alpn, own);
    // Identities are no host names; the verifier never looks at this one.
    let name = ServerName::from(std::net::IpAddr::from([0, 0, 0, 0]));
    let connecting = TlsConnector::from(Arc::new(config)).connect(name, stream);
    // Its state is needed once per connection, and large.
    let connecting = Box::pin(connecting);
    match timeout(HANDSHAKE_DEADLINE, connecting).await {
        Err(_) => Err(Reason::ConnectTimeout),
        Ok(Err(error)) => Err(match verifier.verdict() {
            Some(Err(reason)) => reason,
            _ => reason_of(&error).unwrap_or(Reason::TlsHandshake),
        }),
        Ok(Ok(stream)) if stream.get_ref().1.alpn_protocol() == Some(alpn.as_bytes()) => {
            match verifier.verdict() {
                Some(Ok(proof)) => Ok((stream, proof)),
                // A handshake without a verdict would be one without a certificate.
                Some(Err(_)) | None => Err(Reason::PeerUntrusted),
            }
        }
        Ok(Ok(_)) => Err(Reason::TlsHandshake),
    }
}

/// Bytes to and from the peer's proxy.
pub(crate) type MeshStream = Around<TlsStream<TcpStream>, Noting>;

/// Notes the reason of a late refusal.
#[derive(Debug)]
pub(crate) struct Noting {
    /// Until the first byte arrives.
    refusal: Option<Refusal>,
}

impl MeshStream {
    pub(crate) fn tcp(&self) -> &TcpStream {
        self.stream.get_ref().0
    }
}

impl Noting {
    fn note(&self, error: &io::Error) {
        if let (Some(refusal), Some(reason)) = (&self.refusal, reason_of(error)) {
            // The first reason stays.
            let _ = refusal.0.set(reason);
        }
    }
}

impl Reading<TlsStream<TcpStream>> for Noting {
    fn poll_read(
        &mut self,
        stream: &mut TlsStream<TcpStream>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        let polled = Pin::new(stream).poll_read(cx, into);
        match &polled {
            Poll::Ready(Err(error)) => self.note(error),
            Poll::Ready(Ok(())) if into.filled().len() > before => self.refusal = None,
            Poll::Ready(Ok(())) | Poll::Pending => {}
        }
        polled
    }
}

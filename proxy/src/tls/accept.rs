//! Our side of a handshake that a peer proxy begins.
//!
//! `inbound` has `detect` read the ClientHello and hands a connection here only
//! when it offers a mesh ALPN: an application's own TLS is never touched. The
//! caller is whoever its verified certificate names.

use std::{io, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use crate::{
    around::Prefixed,
    identity::Peer,
    outcome::Reason,
    tls::{
        Alpn, HANDSHAKE_DEADLINE,
        certs::{Session, Store},
        reason_of,
        verify::Verifier,
    },
};

/// A connection of a peer proxy that proved who it is.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) stream: TlsStream<Prefixed<TcpStream>>,
    pub(crate) peer: Peer,
    pub(crate) alpn: Alpn,
    pub(crate) session: Session,
}

/// Finishes the handshake.
///
/// # Errors
/// `CertificateMissing` when we have none; otherwise what was wrong with the
/// peer or the handshake, a timeout included. The peer has been told by alert.
pub(crate) async fn accept(io: Prefixed<TcpStream>, store: &Store) -> Result<Accepted, Reason> {
    let material = store.current();
    let own = store.own(&material)?;
    let verifier = Arc::new(Verifier::new(
        material.bundle.clone(),
        store.trust_domain(),
        None,
    ));
    let config = store.server_config(verifier.clone(), &own);
    let accepting = TlsAcceptor::from(Arc::new(config)).accept(io);
    // Its state is needed once per connection, and large.
    let accepting = Box::pin(accepting.into_fallible());
    let mut stream = match timeout(HANDSHAKE_DEADLINE, accepting).await {
        Err(_) => return Err(Reason::TlsHandshake),
        Ok(Err((error, io))) => {
            linger(io).await;
            return Err(match verifier.verdict() {
                Some(Err(reason)) => reason,
                _ => reason_of(&error).unwrap_or(Reason::TlsHandshake),
            });
        }
        Ok(Ok(stream)) => stream,
    };
    let alpn = stream
        .get_ref()
        .1
        .alpn_protocol()
        .and_then(Alpn::from_bytes);
    let (Some(alpn), Some(Ok(proof))) = (alpn, verifier.verdict()) else {
        return Err(Reason::TlsHandshake);
    };
    stream
        .get_mut()
        .1
        .set_buffer_limit(Some(alpn.buffer_limit()));
    let peer = Peer::Identified(proof.identity.clone());
    let session = Session::new(proof, Some(&own), store.wall().now());
    Ok(Accepted {
        stream,
        peer,
        alpn,
        session,
    })
}

/// Lets the alert arrive: closing with bytes unread would reset the connection,
/// and the peer could only guess why. It has written its first request by now.
async fn linger(mut io: Prefixed<TcpStream>) {
    let mut unread = 256 << 10;
    let mut into = vec![0; 4096];
    let drain = async {
        io.shutdown().await?;
        while unread > 0 {
            match io.read(&mut into).await? {
                0 => break,
                read => unread = usize::saturating_sub(unread, read),
            }
        }
        io::Result::Ok(())
    };
    // However it ends, the connection is over.
    let _ = timeout(LINGER, drain).await;
}

/// A round trip inside a cluster, many times over.
const LINGER: Duration = Duration::from_secs(1);

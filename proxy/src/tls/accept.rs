//! Our side of a handshake that a peer proxy begins.
//!
//! `inbound` reads the ClientHello, asks `offer` whether it is ours, and hands
//! the connection here. The caller is whoever its verified certificate names.
//! An application's own TLS is recognised by its ALPN and never touched.

use std::{io, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, rustls::server::Acceptor, server::TlsStream};

use crate::{
    identity::Peer,
    outcome::Reason,
    prefixed::Prefixed,
    tls::{
        Alpn, HANDSHAKE_DEADLINE,
        certs::{Session, Store},
        reason_of,
        verify::Verifier,
    },
};

/// What a connection's first TLS bytes ask for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Offer {
    /// The ClientHello is not complete yet.
    Incomplete,
    /// A peer proxy.
    Mesh,
    /// The application's own TLS, or nothing that we understand: opaque.
    Foreign,
}

/// A ClientHello fits in this (X25519MLKEM768 takes 1,216 bytes of it).
const LONGEST_HELLO: usize = 16 << 10;

/// Looks at the first bytes of a connection. Only a hello that offers our
/// ALPNs, and no other, is ours.
pub(crate) fn offer(first: &[u8]) -> Offer {
    let mut acceptor = Acceptor::default();
    let mut rest = first;
    while !rest.is_empty() {
        if acceptor.read_tls(&mut rest).is_err() {
            return Offer::Foreign;
        }
        match acceptor.accept() {
            Err(_) => return Offer::Foreign,
            Ok(None) => {}
            Ok(Some(hello)) => {
                let mut names = hello.client_hello().alpn().into_iter().flatten().peekable();
                let is_ours =
                    names.peek().is_some() && names.all(|name| Alpn::from_bytes(name).is_some());
                return if is_ours { Offer::Mesh } else { Offer::Foreign };
            }
        }
    }
    if first.len() >= LONGEST_HELLO {
        Offer::Foreign
    } else {
        Offer::Incomplete
    }
}

/// Reads on until the hello is complete; nothing of it is lost. The caller
/// bounds the wait.
///
/// # Errors
/// The stream's own.
pub(crate) async fn hello(io: &mut Prefixed<TcpStream>) -> io::Result<Offer> {
    loop {
        match offer(io.prefix()) {
            // An end inside a hello is for the application to see.
            Offer::Incomplete if io.peek_more().await? == 0 => return Ok(Offer::Foreign),
            Offer::Incomplete => {}
            answer @ (Offer::Mesh | Offer::Foreign) => return Ok(answer),
        }
    }
}

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
    let accepting = TlsAcceptor::from(Arc::new(config))
        .accept(io)
        .into_fallible();
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
    let session = Session::new(proof, &own, store.wall().now());
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
    let mut into = [0; 4096];
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

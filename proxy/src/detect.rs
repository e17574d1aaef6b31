//! Tells a protocol by the first bytes of either side.
//!
//! Step 3 of both stories: `listen` hands the connection over before any byte
//! was read, the verdict chooses between `http`, `tls` and `tcp`. `classify`
//! and `client_hello` are pure over bytes from the network; `first_bytes` is
//! the one driver. It never answers and never consumes: what was read stays in
//! the buffer.

use std::{future::Future, io, pin::Pin, time::Duration};

use bytes::BytesMut;
use tokio::net::TcpStream;

/// What the client's bytes so far say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// Could still be more than one thing.
    NeedMore,
    /// A request line or something so near to it that HTTP must judge it.
    Http1,
    /// The whole preface of RFC 9113 §3.4.
    Http2,
    /// A TLS record of a handshake.
    Tls,
    Opaque,
}

/// Who spoke first.
#[derive(Debug)]
pub(crate) enum First<S> {
    /// The client; never `Verdict::NeedMore`.
    Client(Verdict),
    /// The server's future resolved first: opaque.
    Server(S),
    /// The client sent FIN without a byte. It may still wait for the server:
    /// opaque, and half-closed.
    ClientFinished,
}

/// What is worth knowing of a ClientHello.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct ClientHello {
    pub(crate) server_name: Option<String>,
    pub(crate) alpn: Vec<Vec<u8>>,
}

impl ClientHello {
    /// Another sidecar speaks, and not an application's own TLS.
    pub(crate) fn is_mesh(&self) -> bool {
        self.alpn.iter().any(|name| matches!(name.as_slice(), b"weft1-h2" | b"weft1-tcp"))
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Hello {
    NeedMore,
    Complete(ClientHello),
    /// TLS that we can't read, so it is none of ours: an application's own.
    Unreadable,
}

/// Delays of detection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// Silence of the client after which the server is dialled.
    pub(crate) silence: Duration,
    /// How long a beginning that could be HTTP may stay incomplete.
    pub(crate) stall: Duration,
}

pub(crate) fn classify(_bytes: &[u8]) -> Verdict {
    Verdict::NeedMore
}

pub(crate) fn client_hello(_bytes: &[u8]) -> Hello {
    Hello::NeedMore
}

/// Waits for the first bytes in either direction, as long as it takes. What
/// the client sent is in `buffer`. `server` is first polled after
/// `patience.silence` of the client's silence, and stays the caller's.
///
/// # Errors
/// When the client's connection breaks.
pub(crate) async fn first_bytes<F: Future>(
    _stream: &TcpStream,
    _buffer: &mut BytesMut,
    _server: Pin<&mut F>,
    _patience: &Patience,
) -> io::Result<First<F::Output>> {
    Ok(First::ClientFinished)
}

/// Reads on until the ClientHello in `buffer` is complete, unreadable, too
/// large or stalled for `limit`: the last three are `Hello::Unreadable`.
///
/// # Errors
/// When the client's connection breaks.
pub(crate) async fn read_client_hello(
    _stream: &TcpStream,
    _buffer: &mut BytesMut,
    _limit: Duration,
) -> io::Result<Hello> {
    Ok(Hello::Unreadable)
}

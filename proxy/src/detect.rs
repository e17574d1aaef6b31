//! Tells a protocol by the first bytes of either side.
//!
//! Step 3 of both stories: `listen` hands the connection over before any byte
//! was read, the verdict chooses between `http`, `tls` and `tcp`. `classify`
//! and `client_hello` are pure over bytes from the network; `first_bytes` is
//! the one driver. It never answers and never consumes: what was read stays in
//! the buffer.

use std::{future::Future, io, pin::Pin, time::Duration};

use bytes::BytesMut;
use tokio::{
    net::TcpStream,
    time::{Instant, sleep},
};
use tokio_rustls::rustls::server::Acceptor;

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
        self.alpn
            .iter()
            .any(|name| matches!(name.as_slice(), b"weft1-h2" | b"weft1-tcp"))
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
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Patience {
    /// Silence of the client after which the server is dialled.
    pub(crate) silence: Duration,
    /// How long a beginning that could be HTTP may stay incomplete.
    pub(crate) stall: Duration,
    /// How long a silent client is waited for when nothing is to be heard from
    /// a server: HTTP can be told why, whoever waits for the server to speak
    /// gets a reset.
    pub(crate) refusal: Duration,
}

impl Default for Patience {
    /// Silence: a client that speaks first does so within a round trip of its
    /// own machine; a server that speaks first may come 20 ms late. Stall: one
    /// lost segment is sent again within 200 ms to 400 ms, two within a second.
    /// Refusal: no busy machine keeps a client from its first bytes for longer,
    /// and a client of a server that is down tries again later anyway.
    fn default() -> Self {
        Self {
            silence: Duration::from_millis(5),
            stall: Duration::from_secs(1),
            refusal: Duration::from_secs(1),
        }
    }
}

/// The preface of RFC 9113 §3.4.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// A handshake record of any TLS version (RFC 8446 §5.1).
const TLS_HANDSHAKE: u8 = 0x16;
const TLS_MAJOR: u8 = 0x03;
/// The longest method in use is UPDATEREDIRECTREF, 17 (IANA registry).
const METHOD_LIMIT: usize = 32;
/// How much of a request line is looked at.
const LINE_LIMIT: usize = 4096;
/// A ClientHello with a post-quantum key share has some 1.8 KiB.
const HELLO_LIMIT: usize = 16 * 1024;
const READ: usize = 4096;

/// Judges what the client sent so far. More bytes never change a verdict other
/// than `NeedMore`, so it does not matter how the network cut them.
pub(crate) fn classify(bytes: &[u8]) -> Verdict {
    match bytes {
        [] | [TLS_HANDSHAKE] => Verdict::NeedMore,
        [TLS_HANDSHAKE, TLS_MAJOR, ..] => Verdict::Tls,
        _ if bytes.starts_with(PREFACE) => Verdict::Http2,
        _ if PREFACE.starts_with(bytes) => Verdict::NeedMore,
        _ => classify_text(bytes),
    }
}

/// The verdict on a beginning that nothing follows.
pub(crate) fn settle(bytes: &[u8]) -> Verdict {
    match classify(bytes) {
        // Half a preface is a request line too, and a malformed one.
        Verdict::NeedMore if classify_text(bytes) == Verdict::Http1 => Verdict::Http1,
        Verdict::NeedMore => Verdict::Opaque,
        verdict => verdict,
    }
}

/// HTTP/1 or opaque. What begins like a request must reach the strict parser,
/// which answers 400, and not slip past it as opaque: an upper-case word and a
/// path, or any first line that names HTTP as its version. Text protocols that
/// look alike (`SET key value`, `INVITE sip:x SIP/2.0`) stay opaque.
fn classify_text(bytes: &[u8]) -> Verdict {
    let bytes = skip_empty_lines(bytes);
    let bytes = bytes.get(..LINE_LIMIT).unwrap_or(bytes);
    let Some(first) = bytes.first() else {
        return Verdict::NeedMore;
    };
    let method = bytes
        .iter()
        .take_while(|byte| byte.is_ascii_uppercase() || matches!(byte, b'-' | b'_'))
        .count();
    let after_method = bytes.get(method..).unwrap_or_default();
    if (1..=METHOD_LIMIT).contains(&method) && after_method.starts_with(b" /") {
        return Verdict::Http1;
    }
    let (line, complete) = match memchr::memchr(b'\n', bytes) {
        Some(end) => (bytes.get(..end).unwrap_or(bytes), true),
        None => (bytes, false),
    };
    if !begins_like_a_request(*first, line, complete) {
        return Verdict::Opaque;
    }
    if complete {
        return if names_http(line) {
            Verdict::Http1
        } else {
            Verdict::Opaque
        };
    }
    match line.len() {
        ..LINE_LIMIT => Verdict::NeedMore,
        // Too long to wait for its end; HTTP's own answer to that is 414.
        _ if is_known_method(line.get(..method).unwrap_or_default()) => Verdict::Http1,
        _ => Verdict::Opaque,
    }
}

/// A server should ignore an empty line before the request (RFC 9112 §2.2).
fn skip_empty_lines(bytes: &[u8]) -> &[u8] {
    let skip_one = |bytes: &'_ [u8]| match bytes {
        [b'\r'] => 1,
        [b'\r', b'\n', ..] => 2,
        [b'\n', ..] => 1,
        _ => 0,
    };
    let bytes = bytes.get(skip_one(bytes)..).unwrap_or_default();
    bytes.get(skip_one(bytes)..).unwrap_or_default()
}

/// A letter first, text only, and a short first word.
fn begins_like_a_request(first: u8, line: &[u8], complete: bool) -> bool {
    let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let word = line.iter().take(METHOD_LIMIT + 1).position(is_blank);
    let could_still_end = !complete && line.len() <= METHOD_LIMIT;
    first.is_ascii_alphabetic()
        && (word.is_some() || could_still_end)
        && !line
            .iter()
            .any(|byte| byte.is_ascii_control() && !matches!(byte, b'\t' | b'\r'))
}

fn names_http(line: &[u8]) -> bool {
    memchr::memmem::find(line, b" HTTP/").is_some()
        || memchr::memmem::find(line, b"\tHTTP/").is_some()
}

/// RFC 9110 §9.3 and RFC 5789.
fn is_known_method(method: &[u8]) -> bool {
    matches!(
        method,
        b"GET"
            | b"HEAD"
            | b"POST"
            | b"PUT"
            | b"DELETE"
            | b"CONNECT"
            | b"OPTIONS"
            | b"TRACE"
            | b"PATCH"
    )
}

/// Reads the ClientHello at the start of `bytes`, over however many records.
pub(crate) fn client_hello(bytes: &[u8]) -> Hello {
    match bytes {
        // Parsing starts anew each time: not before the first record is whole.
        [TLS_HANDSHAKE, TLS_MAJOR, _, high, low, rest @ ..]
            if rest.len() < usize::from(u16::from_be_bytes([*high, *low])) => {}
        [] | [TLS_HANDSHAKE] => {}
        [TLS_HANDSHAKE, TLS_MAJOR, ..] => return parse_client_hello(bytes),
        _ => return Hello::Unreadable,
    }
    if bytes.len() < HELLO_LIMIT {
        Hello::NeedMore
    } else {
        Hello::Unreadable
    }
}

fn parse_client_hello(mut bytes: &[u8]) -> Hello {
    let limited = bytes.len() >= HELLO_LIMIT;
    let mut acceptor = Acceptor::default();
    while !bytes.is_empty() {
        if !matches!(acceptor.read_tls(&mut bytes), Ok(1..)) {
            return Hello::Unreadable;
        }
        match acceptor.accept() {
            Ok(None) => {}
            Ok(Some(accepted)) => {
                let hello = accepted.client_hello();
                return Hello::Complete(ClientHello {
                    server_name: hello.server_name().map(str::to_owned),
                    alpn: hello
                        .alpn()
                        .into_iter()
                        .flatten()
                        .map(<[u8]>::to_vec)
                        .collect(),
                });
            }
            Err(_) => return Hello::Unreadable,
        }
    }
    if limited {
        Hello::Unreadable
    } else {
        Hello::NeedMore
    }
}

/// Waits for the first bytes in either direction, as long as it takes. What
/// the client sent is in `buffer`. `server` is first polled after
/// `patience.silence` of the client's silence, and stays the caller's.
///
/// # Errors
/// When the client's connection breaks.
pub(crate) async fn first_bytes<F: Future>(
    stream: &TcpStream,
    buffer: &mut BytesMut,
    mut server: Pin<&mut F>,
    patience: &Patience,
) -> io::Result<First<F::Output>> {
    let silence = sleep(patience.silence);
    let stall = sleep(patience.stall);
    tokio::pin!(silence, stall);
    let mut is_server_asked = false;
    loop {
        let verdict = classify(buffer);
        if verdict != Verdict::NeedMore {
            return Ok(First::Client(verdict));
        }
        let is_silent = buffer.is_empty();
        tokio::select! {
            biased;
            read = read_some(stream, buffer) => match read? {
                0 if is_silent => return Ok(First::ClientFinished),
                0 => return Ok(First::Client(settle(buffer))),
                _ if is_silent => stall.as_mut().reset(Instant::now() + patience.stall),
                _ => {}
            },
            spoke = &mut server, if is_server_asked => return Ok(First::Server(spoke)),
            () = &mut silence, if is_silent && !is_server_asked => is_server_asked = true,
            () = &mut stall, if !is_silent => return Ok(First::Client(settle(buffer))),
        }
    }
}

/// Reads on until the ClientHello in `buffer` is complete, unreadable, too
/// large or stalled for `limit`: the last three are `Hello::Unreadable`.
///
/// # Errors
/// When the client's connection breaks.
pub(crate) async fn read_client_hello(
    stream: &TcpStream,
    buffer: &mut BytesMut,
    limit: Duration,
) -> io::Result<Hello> {
    let until = sleep(limit);
    tokio::pin!(until);
    loop {
        let hello = client_hello(buffer);
        if hello != Hello::NeedMore {
            return Ok(hello);
        }
        tokio::select! {
            biased;
            read = read_some(stream, buffer) => if read? == 0 {
                return Ok(Hello::Unreadable);
            },
            () = &mut until => return Ok(Hello::Unreadable),
        }
    }
}

/// Takes what is there, 0 at its end. A silent connection holds no buffer.
async fn read_some(stream: &TcpStream, buffer: &mut BytesMut) -> io::Result<usize> {
    loop {
        stream.readable().await?;
        buffer.reserve(READ);
        match stream.try_read_buf(buffer) {
            // Readiness may be a false alarm, of a fresh socket always.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if buffer.is_empty() {
                    *buffer = BytesMut::new();
                }
            }
            read => return read,
        }
    }
}

/// Does a server's first word begin with SETTINGS (RFC 9113 §3.4, §6.5)? It may
/// come before its client has spoken, and says nothing to anybody but an HTTP/2
/// client, whose turn it is: not a greeting that makes a connection opaque.
pub(crate) fn is_http2_greeting(said: &[u8]) -> bool {
    const SETTING: u8 = 6;
    matches!(said, [0, 0, length, 4, 0, 0, 0, 0, 0, ..] if length % SETTING == 0)
}

#[cfg(test)]
mod tests;

//! HTTP/2 for tests that otherwise work with plain sockets: one call, or an
//! application that keeps what it was asked.
//!
//! Blocking, on a runtime of its own per connection. What no library would send
//! is written frame by frame, see [`frame`].

use std::{
    io::{ErrorKind, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread::{self, JoinHandle},
};

use bytes::Bytes;
use h2::ext::Protocol;
use http::{HeaderMap, Request};
use socket2::SockRef;
use tokio::runtime::{Builder, Runtime};

/// An answer.
#[derive(Clone, Debug)]
pub struct Call {
    pub status: u16,
    pub grpc_status: Option<u8>,
    pub fields: HeaderMap,
    pub body: Vec<u8>,
    pub trailers: HeaderMap,
}

impl Call {
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.get(name)?.to_str().ok()
    }
}

fn runtime() -> Runtime {
    let runtime = Builder::new_current_thread().enable_all().build();
    runtime.expect("a thread may have a runtime")
}

/// Makes one gRPC call and waits for all of its answer.
///
/// # Errors
/// When connection or stream broke.
pub fn grpc(stream: TcpStream, path: &str) -> Result<Call, h2::Error> {
    let request = Request::post(format!("http://app{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    call(stream, request.body(()).expect("a path is a URI"))
}

/// What opens a WebSocket (RFC 8441 §4), or another tunnel.
///
/// # Panics
/// When the target is no URI.
#[must_use]
pub fn connect(uri: &str, protocol: Option<&'static str>) -> Request<()> {
    let request = Request::connect(uri).version(http::Version::HTTP_2);
    let request = match protocol {
        Some(protocol) => request.extension(Protocol::from_static(protocol)),
        None => request,
    };
    request.body(()).expect("a URI")
}

/// Makes one call without a body.
///
/// # Errors
/// When connection or stream broke.
///
/// # Panics
/// When the socket can't be made asynchronous.
pub fn call(stream: TcpStream, request: Request<()>) -> Result<Call, h2::Error> {
    stream.set_nonblocking(true).expect("a socket");
    let work = async {
        let stream = tokio::net::TcpStream::from_std(stream).expect("a runtime with I/O");
        let (mut sender, connection) = h2::client::handshake(stream).await?;
        let exchange = async {
            let (response, _) = sender.send_request(request, true)?;
            let (head, mut body) = response.await?.into_parts();
            let mut bytes = Vec::new();
            while let Some(data) = body.data().await {
                let data = data?;
                body.flow_control().release_capacity(data.len())?;
                bytes.extend_from_slice(&data);
            }
            let trailers = body.trailers().await?.unwrap_or_default();
            let told = trailers
                .get("grpc-status")
                .or_else(|| head.headers.get("grpc-status"));
            let told = told.and_then(|it| it.to_str().ok()?.parse().ok());
            Ok(Call {
                status: head.status.as_u16(),
                grpc_status: told,
                fields: head.headers,
                body: bytes,
                trailers,
            })
        };
        let mut connection = std::pin::pin!(connection);
        let mut exchange = std::pin::pin!(exchange);
        tokio::select! {
            biased;
            done = &mut exchange => done,
            ended = &mut connection => {
                // What was answered before the connection ended is there already.
                ended?;
                exchange.await
            }
        }
    };
    let bounded = async {
        let timed = tokio::time::timeout(crate::wait::PATIENCE, work).await;
        timed.unwrap_or_else(|_| Err(h2::Reason::CANCEL.into()))
    };
    runtime().block_on(bounded)
}

/// What the application was asked.
#[derive(Clone, Debug)]
pub struct Asked {
    pub method: String,
    /// Path and query, as they came.
    pub target: String,
    pub authority: String,
    pub fields: HeaderMap,
}

/// An application that answers everything with 200 and these fields.
#[derive(Debug)]
pub struct Application {
    asked: Arc<Mutex<Vec<Asked>>>,
    listener: TcpListener,
    serving: Option<JoinHandle<()>>,
}

impl Application {
    /// # Panics
    /// When the listener can't be shared with a thread.
    #[must_use]
    pub fn start(listener: TcpListener, fields: HeaderMap, trailers: HeaderMap) -> Self {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let own = listener.try_clone().expect("descriptors suffice");
        let to = Arc::clone(&asked);
        let serving = thread::spawn(move || {
            for stream in own.incoming() {
                let Ok(stream) = stream else { return };
                let (to, fields, trailers) = (Arc::clone(&to), fields.clone(), trailers.clone());
                // An error is the client's way to end.
                thread::spawn(move || runtime().block_on(serve(stream, &to, fields, trailers)));
            }
        });
        Self {
            asked,
            listener,
            serving: Some(serving),
        }
    }

    /// All requests since the last time.
    ///
    /// # Panics
    /// When a connection's thread has.
    #[must_use]
    pub fn take(&self) -> Vec<Asked> {
        std::mem::take(&mut self.asked.lock().expect("no connection panics"))
    }
}

impl Drop for Application {
    fn drop(&mut self) {
        let _ = SockRef::from(&self.listener).shutdown(Shutdown::Both);
        if let Some(serving) = self.serving.take() {
            let _ = serving.join();
        }
    }
}

async fn serve(
    stream: TcpStream,
    asked: &Mutex<Vec<Asked>>,
    fields: HeaderMap,
    trailers: HeaderMap,
) -> Result<(), h2::Error> {
    stream.set_nonblocking(true).expect("a socket");
    let stream = tokio::net::TcpStream::from_std(stream).expect("a runtime with I/O");
    let mut connection = h2::server::handshake(stream).await?;
    while let Some(accepted) = connection.accept().await {
        let (request, mut respond) = accepted?;
        let (head, _body) = request.into_parts();
        let target = head.uri.path_and_query().map_or("", |it| it.as_str());
        asked.lock().expect("no connection panics").push(Asked {
            method: head.method.to_string(),
            target: target.to_owned(),
            authority: head.uri.authority().map_or("", |it| it.as_str()).to_owned(),
            fields: head.headers,
        });
        let mut answer = http::Response::new(());
        *answer.headers_mut() = fields.clone();
        let is_end = trailers.is_empty();
        // Its client may have taken a request back meanwhile.
        let Ok(mut body) = respond.send_response(answer, is_end) else {
            continue;
        };
        if !is_end {
            body.send_data(Bytes::from_static(b"x"), false)?;
            body.send_trailers(trailers.clone())?;
        }
    }
    Ok(())
}

/// One frame: its type, flags, stream and payload (RFC 9113 §4.1).
///
/// # Panics
/// When the payload is longer than a frame can be.
#[must_use]
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a frame's length");
    let [zero, high, middle, low] = length.to_be_bytes();
    assert_eq!(zero, 0, "a frame's length has 24 bits");
    let mut bytes = vec![high, middle, low, kind, flags];
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// What a client says first, with empty SETTINGS.
#[must_use]
pub fn preface() -> Vec<u8> {
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(SETTINGS, 0, 0, &[]));
    bytes
}

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PUSH_PROMISE: u8 = 5;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

/// Fields as literals without indexing and without Huffman coding (RFC 7541 §6.2.2).
///
/// # Panics
/// When a name or value is longer than 16 KiB.
#[must_use]
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in fields {
        bytes.push(0);
        for text in [name, value] {
            integer(text.len(), &mut bytes);
            bytes.extend_from_slice(text.as_bytes());
        }
    }
    bytes
}

/// With a prefix of 7 bits (RFC 7541 §5.1).
fn integer(value: usize, bytes: &mut Vec<u8>) {
    let mut rest = match u8::try_from(value) {
        Ok(small @ ..127) => return bytes.push(small),
        _ => value - 127,
    };
    bytes.push(127);
    while rest >= 128 {
        bytes.push(u8::try_from(rest % 128).expect("seven bits") | 128);
        rest /= 128;
    }
    bytes.push(u8::try_from(rest).expect("seven bits"));
}

/// How a stream of our own making was met.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Met {
    /// With a response, whose status is known where one byte says it.
    Answered(Option<u16>),
    /// RST_STREAM with this code.
    Reset(u32),
    /// GOAWAY with this code.
    GoneAway(u32),
    /// The connection ended without a word.
    Closed,
}

/// Reads frames until stream `of` is answered or over.
///
/// # Errors
/// Of the socket, a timeout among them.
pub fn met(stream: &mut impl Read, of: u32) -> std::io::Result<Met> {
    loop {
        let mut head = [0; 9];
        match stream.read_exact(&mut head) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(Met::Closed),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(Met::Closed),
            Err(error) => return Err(error),
        }
        let [high, middle, low, kind, _, id @ ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, high, middle, low]) as usize];
        stream.read_exact(&mut payload)?;
        let number = |at: usize| {
            let bytes = payload.get(at..at + 4).and_then(|it| it.try_into().ok());
            bytes.map_or(0, u32::from_be_bytes)
        };
        match (kind, u32::from_be_bytes(id)) {
            (HEADERS, id) if id == of => {
                // RFC 7541, appendix A.
                let known = [200, 204, 206, 304, 400, 404, 500];
                let first = payload.first().copied().unwrap_or_default();
                let index = usize::from(first).checked_sub(0x88);
                return Ok(Met::Answered(index.and_then(|it| known.get(it).copied())));
            }
            (RST_STREAM, id) if id == of => return Ok(Met::Reset(number(0))),
            (GOAWAY, _) => return Ok(Met::GoneAway(number(4))),
            _ => {}
        }
    }
}

/// Sends a request whose fields no library would, and reads how it was met.
///
/// # Errors
/// Of the socket, a timeout among them.
pub fn ask(stream: &mut TcpStream, fields: &[(&str, &str)]) -> std::io::Result<Met> {
    let mut bytes = preface();
    bytes.extend(frame(HEADERS, END_STREAM | END_HEADERS, 1, &block(fields)));
    stream.write_all(&bytes)?;
    met(stream, 1)
}

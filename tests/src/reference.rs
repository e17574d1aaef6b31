//! How hyper reads the same bytes: the second opinion on our HTTP/1 codec.
//!
//! In process, over a pipe in memory. Its answers are brought into the form
//! of `weft_proxy::seams::http1`, so that a test compares two values.

use std::cell::RefCell;
use std::convert::Infallible;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::HeaderMap;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use weft_proxy::seams::http1::{Asked, Field, Message, Start};

/// Room for any message of the corpus, so that nobody waits for anybody.
const PIPE: usize = 1 << 20;

/// What hyper read, and whether it liked all of it.
#[derive(Debug)]
pub struct Opinion {
    pub messages: Vec<Message>,
    pub error: Option<String>,
}

/// A message as hyper can tell it: lower-case names, only the values of one
/// name in order, and the target of an absolute form with its slash.
pub fn normalised(message: &Message) -> Message {
    let normal = |fields: &[Field]| {
        let mut fields: Vec<_> = fields
            .iter()
            .map(|(name, value)| (name.to_ascii_lowercase(), value.clone()))
            .collect();
        fields.sort_by(|one, two| one.0.cmp(&two.0));
        fields
    };
    let start = match &message.start {
        Start::Request { method, target } => Start::Request {
            method: method.clone(),
            target: uri(target).map_or_else(|| target.clone(), |uri| uri.to_string().into_bytes()),
        },
        response @ Start::Response { .. } => response.clone(),
    };
    Message {
        start,
        fields: normal(&message.fields),
        trailers: normal(&message.trailers),
        ..message.clone()
    }
}

/// The target, if hyper's type for it can hold it.
pub fn uri(target: &[u8]) -> Option<hyper::Uri> {
    hyper::Uri::try_from(target).ok()
}

/// Serves `input` with hyper until it ends.
pub async fn requests(input: &[u8]) -> Opinion {
    let (mut client, server) = tokio::io::duplex(PIPE);
    let messages = RefCell::new(Vec::new());
    let serve = service_fn(async |request: hyper::Request<Incoming>| {
        let (head, body) = request.into_parts();
        let start = Start::Request {
            method: head.method.as_str().to_owned(),
            target: head.uri.to_string().into_bytes(),
        };
        if let Some((body, trailers)) = whole(body).await {
            let message = Message {
                start,
                version: version(head.version),
                fields: plain(&head.headers),
                body,
                trailers,
            };
            messages.borrow_mut().push(message);
        }
        Ok::<_, Infallible>(hyper::Response::new(Empty::<Bytes>::new()))
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .half_close(true)
        .max_headers(256)
        .serve_connection(TokioIo::new(server), serve);
    let (ended, ()) = tokio::join!(connection, say(&mut client, input));
    let error = ended.err().map(|error| format!("{error:?}"));
    Opinion {
        messages: messages.into_inner(),
        error,
    }
}

/// Answers a request of hyper's client with `input`. Informational responses stay hidden in hyper.
pub async fn responses(input: &[u8], asked: Asked) -> Opinion {
    let (client, mut server) = tokio::io::duplex(PIPE);
    let talk = async {
        let mut builder = hyper::client::conn::http1::Builder::new();
        let (mut sender, connection) = builder
            .max_headers(256)
            .handshake(TokioIo::new(client))
            .await?;
        let exchange = async {
            let response = sender.send_request(request(asked)).await?;
            let (head, body) = response.into_parts();
            let reason = head.extensions.get::<hyper::ext::ReasonPhrase>();
            let reason = reason.map_or_else(
                || {
                    head.status
                        .canonical_reason()
                        .unwrap_or_default()
                        .as_bytes()
                        .to_vec()
                },
                |reason| reason.as_bytes().to_vec(),
            );
            let whole = whole(body).await;
            drop(sender);
            Ok::<_, hyper::Error>(whole.map(|(body, trailers)| Message {
                start: Start::Response {
                    status: head.status.as_u16(),
                    reason,
                },
                version: version(head.version),
                fields: plain(&head.headers),
                body,
                trailers,
            }))
        };
        let (message, ended) = tokio::join!(exchange, connection.with_upgrades());
        // An error of the connection after the answer is about the bytes behind it.
        drop(ended);
        message
    };
    let (message, ()) = tokio::join!(talk, say(&mut server, input));
    match message {
        Ok(message) => Opinion {
            error: message
                .is_none()
                .then(|| "the body is incomplete".to_owned()),
            messages: message.into_iter().collect(),
        },
        Err(error) => Opinion {
            messages: Vec::new(),
            error: Some(format!("{error:?}")),
        },
    }
}

fn request(asked: Asked) -> hyper::Request<Empty<Bytes>> {
    let request = hyper::Request::builder().uri("/").header("host", "a");
    let request = match asked {
        Asked::Get => request,
        Asked::Head => request.method("HEAD"),
        Asked::Upgrade => request
            .header("connection", "upgrade")
            .header("upgrade", "websocket"),
        Asked::Http10 => request.version(hyper::Version::HTTP_10),
    };
    request.body(Empty::new()).expect("a request of constants")
}

/// Writes everything, ends, and lets the other side say what it likes.
async fn say(stream: &mut DuplexStream, input: &[u8]) {
    // The other side may have left after the first bytes.
    let _ = stream.write_all(input).await;
    let _ = stream.shutdown().await;
    let _ = stream.read_to_end(&mut Vec::new()).await;
}

async fn whole(body: Incoming) -> Option<(Vec<u8>, Vec<Field>)> {
    let collected = body.collect().await.ok()?;
    let trailers = collected.trailers().map(plain).unwrap_or_default();
    Some((collected.to_bytes().to_vec(), trailers))
}

fn plain(fields: &HeaderMap) -> Vec<Field> {
    fields
        .iter()
        .map(|(name, value)| (name.as_str().as_bytes().to_vec(), value.as_bytes().to_vec()))
        .collect()
}

fn version(version: hyper::Version) -> &'static str {
    if version == hyper::Version::HTTP_10 {
        "HTTP/1.0"
    } else {
        "HTTP/1.1"
    }
}

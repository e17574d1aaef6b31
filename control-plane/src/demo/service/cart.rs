//! The cart: HTTP to its callers, Redis' protocol to its store.
//!
//! One connection to the store, which a task owns; like any client of Redis it
//! connects again and asks once more when that connection has broken.

use std::{convert::Infallible, io, sync::Arc};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    sync::{mpsc, oneshot},
};

use super::{serve, web::respond};
use crate::runtime;

const LARGEST: usize = 64 * 1024;
const EMPTY: &[u8] = b"the cart is empty";

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Cart {
    /// Who answers
    #[arg(long)]
    name: String,
    #[arg(long, default_value_t = 80)]
    port: u16,
    /// HOST:PORT of Redis; without it the cart is in memory
    #[arg(long)]
    store: Option<String>,
}

pub(crate) async fn run(cart: &Cart) -> anyhow::Result<()> {
    let (questions, asked) = mpsc::channel(64);
    let _store = runtime::spawn(keep(cart.store.clone(), asked));
    let name: Arc<str> = cart.name.as_str().into();
    serve(cart.port, |stream| {
        let (name, questions) = (Arc::clone(&name), questions.clone());
        async move {
            let answer = service_fn(move |request| {
                let (name, questions) = (Arc::clone(&name), questions.clone());
                async move { Ok::<_, Infallible>(answer(&name, &questions, request).await) }
            });
            // A caller that goes away is none of our concern.
            let _ = http1::Builder::new()
                .serve_connection(TokioIo::new(stream), answer)
                .await;
        }
    })
    .await
}

/// PUT sets what is in the cart, anything else shows it.
async fn answer(
    name: &str,
    store: &mpsc::Sender<Question>,
    request: Request<Incoming>,
) -> Response<Full<Bytes>> {
    let puts = request.method() == Method::PUT;
    let Ok(body) = Limited::new(request.into_body(), LARGEST).collect().await else {
        return respond(name, StatusCode::BAD_REQUEST, "no body\n");
    };
    let put = puts.then(|| body.to_bytes());
    let (reply, answered) = oneshot::channel();
    if store.send(Question { put, reply }).await.is_err() {
        return respond(name, StatusCode::INTERNAL_SERVER_ERROR, "no store\n");
    }
    match answered.await {
        Ok(Ok(value)) => respond(name, StatusCode::OK, value),
        Ok(Err(error)) => respond(name, StatusCode::BAD_GATEWAY, format!("store: {error}\n")),
        Err(_) => respond(name, StatusCode::INTERNAL_SERVER_ERROR, "no store\n"),
    }
}

#[derive(Debug)]
struct Question {
    /// What to set; `None`: what is there.
    put: Option<Bytes>,
    reply: oneshot::Sender<io::Result<Bytes>>,
}

/// Answers one question after the other.
async fn keep(store: Option<String>, mut asked: mpsc::Receiver<Question>) {
    let mut connection = None;
    let mut memory = Bytes::from_static(EMPTY);
    while let Some(question) = asked.recv().await {
        let answer = match (&store, question.put) {
            (Some(store), put) => ask_redis(store, &mut connection, put).await,
            (None, Some(put)) => {
                memory = put;
                Ok(Bytes::from_static(b"OK"))
            }
            (None, None) => Ok(memory.clone()),
        };
        // Whoever asked may have gone.
        let _ = question.reply.send(answer);
    }
}

async fn ask_redis(
    store: &str,
    connection: &mut Option<BufReader<TcpStream>>,
    put: Option<Bytes>,
) -> io::Result<Bytes> {
    let question = match &put {
        Some(value) => encode(&[b"SET", b"cart", value]),
        None => encode(&[b"GET", b"cart"]),
    };
    let was_open = connection.is_some();
    match ask(store, connection, &question).await {
        // Both commands may be said twice.
        Err(_) if was_open => ask(store, connection, &question).await,
        answer => answer,
    }
}

async fn ask(
    store: &str,
    place: &mut Option<BufReader<TcpStream>>,
    question: &[u8],
) -> io::Result<Bytes> {
    let mut connection = match place.take() {
        Some(connection) => connection,
        None => {
            let stream = TcpStream::connect(store).await?;
            stream.set_nodelay(true)?;
            BufReader::new(stream)
        }
    };
    connection.write_all(question).await?;
    let answer = decode(&mut connection).await?;
    *place = Some(connection);
    Ok(answer)
}

/// RESP: an array of bulk strings.
fn encode(command: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", command.len()).into_bytes();
    for part in command {
        bytes.extend_from_slice(format!("${}\r\n", part.len()).as_bytes());
        bytes.extend_from_slice(part);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

/// The answers that SET and GET have: a bulk string, none, or a line.
async fn decode(from: &mut (impl AsyncBufReadExt + Unpin)) -> io::Result<Bytes> {
    let mut line = String::new();
    from.read_line(&mut line).await?;
    let said = line.trim_end();
    match said.split_at_checked(1) {
        Some(("$", "-1")) => Ok(Bytes::from_static(EMPTY)),
        Some(("$", length)) => {
            let length: usize = length.parse().map_err(io::Error::other)?;
            let mut value = vec![0; length + 2];
            from.read_exact(&mut value).await?;
            value.truncate(length);
            Ok(value.into())
        }
        Some(("+", word)) => Ok(Bytes::copy_from_slice(word.as_bytes())),
        Some(_) => Err(io::Error::other(said.to_owned())),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_store_s_answers_are_understood() {
        let said = |bytes: &'static [u8]| async move { decode(&mut BufReader::new(bytes)).await };
        assert_eq!(said(b"$3\r\ntea\r\n").await.unwrap(), "tea");
        assert_eq!(said(b"+OK\r\n").await.unwrap(), "OK");
        assert_eq!(said(b"$-1\r\n").await.unwrap(), EMPTY);
        for broken in [b"" as &[u8], b"-ERR no\r\n", b"$3\r\nte", b"$x\r\n"] {
            assert!(said(broken).await.is_err(), "{broken:?}");
        }
        assert_eq!(
            encode(&[b"GET", b"cart"]),
            b"*2\r\n$3\r\nGET\r\n$4\r\ncart\r\n"
        );
    }
}

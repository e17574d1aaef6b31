//! HTTP/1 as an exchange sees it, over our codec on both legs.
//!
//! `h1` knows the bytes, `wire` moves them; here they meet. Heads and small
//! pieces are gathered and written together when nothing more is ready; large
//! pieces go through uncopied. An upgraded connection ends in `tunnel`.

mod caller;
mod endpoint;

use std::cell::Cell;

use bytes::Bytes;

use crate::wire::{Reader, Writer};

use super::{
    h1::{self, Fields, Framing, Persistence},
    message::{self, Break, Carried},
};

pub(super) use caller::{Answer, Incoming, Request};
use endpoint::{Outgoing, Responding, Response, Upstream};

/// Pieces up to this size are copied behind what already waits, and what waits
/// stays below it.
const GATHERED: usize = 16 * 1024;

#[derive(Debug)]
pub(crate) enum One {}

impl message::Version for One {
    type Request = Request;
    type Response = Response;
    type Trailers = Box<Fields>;
    type Incoming = Incoming;
    type Answer = Answer;
    type Upstream = Upstream;
    type Outgoing = Outgoing;
    type Responding = Responding;

    fn copy(request: &Request) -> Option<Request> {
        (!request.0.is_websocket_upgrade()).then(|| Request(request.0.clone()))
    }

    async fn tunnel(
        incoming: &mut Incoming,
        outgoing: &mut Outgoing,
        responding: &mut Responding,
        answer: &mut Answer,
        carried: &Carried,
    ) -> Result<(), Break> {
        let (received, sent) = (&carried.received, &carried.sent);
        let there = pass(&mut incoming.reader, &mut outgoing.writer, received);
        let back = pass(&mut responding.reader, &mut answer.writer, sent);
        answer.persistence = Persistence::Close;
        tokio::try_join!(there, back).map(|_| ())
    }
}

/// Copies until the end of one side, and passes that end on.
async fn pass(from: &mut Reader, to: &mut Writer, passed: &Cell<u64>) -> Result<(), Break> {
    loop {
        if !from.buffer.is_empty() {
            let data = from.buffer.split().freeze();
            Carried::count(passed, data.len());
            to.send(data).await.map_err(|_| Break::Gone)?;
        }
        if from.fill().await.map_err(|_| Break::Gone)? == 0 {
            return to.end().await.map_err(|_| Break::Gone);
        }
    }
}

/// Whether the writer's buffer is still all there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Left {
    Nothing,
    Something,
}

/// Writes one piece of a body: gathered where small, uncopied where large.
async fn put(writer: &mut Writer, framing: Framing, data: Bytes) -> std::io::Result<Left> {
    let is_small = data.len() <= GATHERED / 2;
    let is_gathered = is_small && writer.buffer.len() + data.len() <= GATHERED;
    if is_small && !is_gathered {
        writer.flush().await?;
    }
    match (framing, is_small) {
        (Framing::Chunked, true) => h1::encode_chunk(&mut writer.buffer, &data),
        (Framing::Chunked, false) => {
            h1::encode_chunk_start(&mut writer.buffer, data.len());
            writer.send(data).await?;
            h1::encode_chunk_end(&mut writer.buffer);
        }
        (_, true) => writer.buffer.extend_from_slice(&data),
        (_, false) => writer.send(data).await?,
    }
    Ok(match is_gathered {
        true => Left::Nothing,
        false => Left::Something,
    })
}

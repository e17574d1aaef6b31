//! HTTP/2 as an exchange sees it, over the `h2` crate on both legs.
//!
//! Streams keep their back-pressure: a window is released when the bytes went
//! on, not when they came. Resets that the application made are passed on with
//! their code. Fields go through unchanged but for the mesh's own. A WebSocket
//! (RFC 8441) ends in `tunnel`.

mod caller;
mod endpoint;
mod tunnel;

use std::future::poll_fn;

use bytes::Bytes;
use h2::SendStream;
use http::HeaderMap;

use super::message::{self, Break, Carried};
use crate::discovery::FieldEdits;

pub(super) use caller::{Answer, Incoming, Request};
use endpoint::{Outgoing, Responding, Response, Upstream};
use tunnel::End;

#[derive(Debug)]
pub(crate) enum Two {}

impl message::Version for Two {
    type Request = Request;
    type Response = Response;
    type Trailers = HeaderMap;
    type Incoming = Incoming;
    type Answer = Answer;
    type Upstream = Upstream;
    type Outgoing = Outgoing;
    type Responding = Responding;

    fn copy(request: &Request) -> Option<Request> {
        (!request.is_websocket()).then(|| Request(request.0.clone()))
    }

    async fn tunnel(
        incoming: &mut Incoming,
        outgoing: &mut Outgoing,
        responding: &mut Responding,
        answer: &mut Answer,
        carried: &Carried,
    ) -> Result<(), Break> {
        let (Some(from), Some(to)) = (&mut responding.body, &mut answer.stream) else {
            return Err(Break::Gone);
        };
        let endpoint = End {
            from,
            to: &mut outgoing.0,
        };
        let caller = End { from: incoming, to };
        tunnel::carry(caller, endpoint, carried).await
    }
}

/// Sends all of `data` as fast as flow control lets it.
async fn send(stream: &mut SendStream<Bytes>, mut data: Bytes) -> Result<(), h2::Error> {
    while !data.is_empty() {
        stream.reserve_capacity(data.len());
        let mut room = stream.capacity();
        while room == 0 {
            match poll_fn(|cx| stream.poll_capacity(cx)).await {
                Some(capacity) => room = capacity?,
                None => return Err(h2::Reason::CANCEL.into()),
            }
        }
        stream.send_data(data.split_to(room.min(data.len())), false)?;
    }
    Ok(())
}

/// What a route's filters change of a head's fields.
fn edit(fields: &mut HeaderMap, edits: &FieldEdits) {
    for edit in edits.iter() {
        if !edit.keeps {
            fields.remove(&edit.name);
        }
        for value in &edit.values {
            fields.append(edit.name.clone(), value.clone());
        }
    }
}

fn finish(stream: &mut SendStream<Bytes>, trailers: Option<HeaderMap>) -> Result<(), h2::Error> {
    match trailers {
        Some(trailers) => stream.send_trailers(trailers),
        None => stream.send_data(Bytes::new(), true),
    }
}

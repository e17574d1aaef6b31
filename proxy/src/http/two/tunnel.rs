//! What flows once an application has accepted a WebSocket over HTTP/2: DATA
//! both ways, until both sides have ended (RFC 8441 §5).
//!
//! The end of `two`'s exchanges that switch. A half-close is passed on as one,
//! a reset with its code, and a connection that broke as CANCEL. Each side is
//! read at the pace of the other. Never looks into the bytes.

use std::{
    cell::Cell,
    future::{Future, poll_fn},
    pin::pin,
};

use bytes::Bytes;
use h2::SendStream;

use crate::http::{
    body::ready,
    message::{Break, Carried, Chunk},
};

use super::{Incoming, finish, send};

/// One side of a tunnel.
pub(super) struct End<'a> {
    pub(super) from: &'a mut Incoming,
    pub(super) to: &'a mut SendStream<Bytes>,
}

pub(super) async fn carry(
    caller: End<'_>,
    endpoint: End<'_>,
    carried: &Carried,
) -> Result<(), Break> {
    let ended = async {
        let mut there = pin!(pass(caller.from, &mut *endpoint.to, &carried.received));
        let mut back = pin!(pass(endpoint.from, &mut *caller.to, &carried.sent));
        tokio::select! {
            to = &mut there => rest(to?, back).await,
            to = &mut back => rest(to?, there).await,
        }
    };
    ended.await.map_err(|code| {
        caller.to.send_reset(code);
        endpoint.to.send_reset(code);
        Break::Gone
    })
}

/// Copies until the end of one side, and passes that end on.
///
/// # Errors
/// The code with which either side reset it.
async fn pass<'a>(
    from: &mut Incoming,
    to: &'a mut SendStream<Bytes>,
    passed: &Cell<u64>,
) -> Result<&'a mut SendStream<Bytes>, h2::Reason> {
    loop {
        let chunk = tokio::select! {
            biased;
            chunk = from.chunk() => chunk.map_err(|error| code(&error))?,
            why = reset(to) => return unwanted(to, why),
        };
        let moved = match chunk {
            Chunk::Data(data) => {
                Carried::count(passed, data.len());
                send(to, data).await
            }
            Chunk::End => return finish(to, None).map(|()| to).map_err(|error| code(&error)),
            // RFC 9113 §8.5: nothing but DATA.
            Chunk::Trailers(_) => return Err(h2::Reason::PROTOCOL_ERROR),
        };
        if let Err(error) = moved {
            let why = ready(pin!(reset(to))).await;
            return unwanted(to, why.unwrap_or_else(|| code(&error)));
        }
    }
}

/// Until the other direction has ended, too, its reader may still reset.
async fn rest<'a>(
    ended: &mut SendStream<Bytes>,
    other: impl Future<Output = Result<&'a mut SendStream<Bytes>, h2::Reason>>,
) -> Result<(), h2::Reason> {
    let mut other = pin!(other);
    let why = tokio::select! {
        biased;
        over = &mut other => return over.map(|_| ()),
        why = reset(ended) => why,
    };
    unwanted(ended, why)?;
    other.await.map(|_| ())
}

/// NO_ERROR asks only that nothing more be sent (RFC 9113 §8.1).
fn unwanted<T>(to: T, why: h2::Reason) -> Result<T, h2::Reason> {
    match why {
        h2::Reason::NO_ERROR => Ok(to),
        why => Err(why),
    }
}

/// Resolves when the reader of `stream` has reset it.
async fn reset(stream: &mut SendStream<Bytes>) -> h2::Reason {
    let reset = poll_fn(|cx| stream.poll_reset(cx)).await;
    reset.unwrap_or(h2::Reason::CANCEL)
}

fn code(error: &h2::Error) -> h2::Reason {
    let reset = error.reason().filter(|_| error.is_reset());
    reset.unwrap_or(h2::Reason::CANCEL)
}

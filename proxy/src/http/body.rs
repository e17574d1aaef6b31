//! A request's body on its way out, and the part of it that is kept so that
//! another attempt can send it again.
//!
//! Used by `attempt`. At most `REPLAY_BYTES` are kept, and none once an answer
//! stands. Never reads faster than the endpoint takes.

use std::{
    cell::{Cell, RefCell},
    future::{Future, poll_fn},
    pin::{Pin, pin},
    task::Poll,
};

use bytes::Bytes;
use tokio::time::{Instant, timeout_at};

use super::{
    message::{Break, Chunk, Incoming, Outgoing, Version},
    mirror::Copies,
    retry::REPLAY_BYTES,
};

/// What was read of a request's body.
pub(crate) struct Kept<V: Version> {
    /// There never was a body.
    is_empty: bool,
    chunks: RefCell<Vec<Bytes>>,
    trailers: RefCell<Option<V::Trailers>>,
    bytes: Cell<u64>,
    is_whole: Cell<bool>,
    keeps: Cell<bool>,
    /// For mirrors, until they have it whole.
    copies: RefCell<Option<Box<Copies<V>>>>,
}

impl<V: Version> Kept<V> {
    pub(crate) fn new(is_empty: bool, copies: Option<Copies<V>>) -> Self {
        Self {
            is_empty,
            chunks: RefCell::default(),
            trailers: RefCell::new(None),
            bytes: Cell::new(0),
            is_whole: Cell::new(false),
            keeps: Cell::new(true),
            copies: RefCell::new(copies.map(Box::new)),
        }
    }

    pub(crate) fn is_empty_request(&self) -> bool {
        self.is_empty
    }

    /// Whether everything that was read can be sent again.
    pub(crate) fn is_replayable(&self) -> bool {
        self.keeps.get()
    }

    /// Bytes of the body that the caller sent so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.get()
    }

    /// No attempt will follow.
    pub(crate) fn forget(&self) {
        self.keeps.set(false);
        self.chunks.take();
    }

    fn keep(&self, data: &Bytes) {
        self.bytes.set(self.bytes.get() + data.len() as u64);
        if self.bytes.get() > REPLAY_BYTES as u64 {
            self.forget();
        }
        if self.keeps.get() {
            self.chunks.borrow_mut().push(data.clone());
        }
        let mut copies = self.copies.borrow_mut();
        if copies.as_mut().is_some_and(|copies| !copies.add(data)) {
            *copies = None;
        }
    }

    fn end(&self, trailers: Option<V::Trailers>) {
        if let Some(copies) = self.copies.take() {
            copies.send(trailers.as_ref());
        }
        self.trailers.replace(trailers);
        self.is_whole.set(true);
    }

    fn chunk(&self, index: usize) -> Option<Bytes> {
        self.chunks.borrow().get(index).cloned()
    }
}

/// How a body's way out ended.
#[derive(Debug)]
pub(crate) enum Pumped<Outgoing> {
    /// All of it went.
    Sent(Outgoing),
    /// The endpoint takes no more; its answer decides what that means.
    Unwanted,
    /// The caller's side broke off.
    Caller(Break),
}

/// Sends what is kept from earlier attempts, then what the caller still sends.
pub(crate) async fn pump<V: Version>(
    incoming: &mut V::Incoming,
    kept: &Kept<V>,
    mut outgoing: V::Outgoing,
) -> Pumped<V::Outgoing> {
    if kept.is_empty {
        return match outgoing.flush().await {
            Ok(()) => Pumped::Sent(outgoing),
            Err(_) => Pumped::Unwanted,
        };
    }
    let mut sent = 0;
    while let Some(chunk) = kept.chunk(sent) {
        sent += 1;
        if outgoing.data(chunk).await.is_err() {
            return Pumped::Unwanted;
        }
    }
    while !kept.is_whole.get() {
        let next = {
            let mut next = pin!(incoming.next());
            match ready(next.as_mut()).await {
                Some(next) => next,
                // What is held back must not wait for what may never come.
                None if outgoing.flush().await.is_err() => return Pumped::Unwanted,
                None => next.await,
            }
        };
        match next {
            Ok(Chunk::Data(data)) => {
                kept.keep(&data);
                if outgoing.data(data).await.is_err() {
                    return Pumped::Unwanted;
                }
            }
            Ok(Chunk::Trailers(trailers)) => kept.end(Some(trailers)),
            Ok(Chunk::End) => kept.end(None),
            Err(left) => return Pumped::Caller(left),
        }
    }
    let trailers = kept.trailers.borrow_mut().take();
    let ended = outgoing.end(trailers.as_ref()).await;
    kept.trailers.replace(trailers);
    match ended {
        Ok(()) => Pumped::Sent(outgoing),
        Err(_) => Pumped::Unwanted,
    }
}

/// Drives the request's body while something else is awaited.
pub(crate) struct Alongside<'p, P, O> {
    pump: Pin<&'p mut P>,
    done: Option<Pumped<O>>,
}

impl<'p, P: Future<Output = Pumped<O>>, O> Alongside<'p, P, O> {
    pub(crate) fn new(pump: Pin<&'p mut P>) -> Self {
        Self { pump, done: None }
    }

    /// # Errors
    /// When the caller's body broke off meanwhile.
    pub(crate) async fn with<T>(&mut self, other: impl Future<Output = T>) -> Result<T, Break> {
        match self.with_until(other, || None).await? {
            Some(out) => Ok(out),
            // Without a limit nothing is late.
            None => Err(Break::Gone),
        }
    }

    /// As `with`; but once the body has gone all of its way, only until `late`:
    /// `None` is that it is late.
    pub(crate) async fn with_until<T>(
        &mut self,
        other: impl Future<Output = T>,
        late: impl FnOnce() -> Option<Instant>,
    ) -> Result<Option<T>, Break> {
        let mut other = pin!(other);
        if self.done.is_none() {
            tokio::select! {
                biased;
                done = &mut self.pump => self.done = Some(done),
                out = &mut other => return Ok(Some(out)),
            }
        }
        match (&self.done, late()) {
            (Some(Pumped::Caller(left)), _) => Err(*left),
            (_, None) => Ok(Some(other.await)),
            (_, Some(by)) => Ok(timeout_at(by, other).await.ok()),
        }
    }

    /// Whether the body is still on its way.
    pub(crate) fn is_busy(&self) -> bool {
        self.done.is_none()
    }

    /// The way out, if the request went all of it.
    pub(crate) fn take_sent(&mut self) -> Option<O> {
        match self.done.take() {
            Some(Pumped::Sent(outgoing)) => Some(outgoing),
            _ => None,
        }
    }
}

/// The output of a future that has it already.
pub(crate) async fn ready<F: Future>(mut future: Pin<&mut F>) -> Option<F::Output> {
    poll_fn(|cx| {
        Poll::Ready(match future.as_mut().poll(cx) {
            Poll::Ready(output) => Some(output),
            Poll::Pending => None,
        })
    })
    .await
}

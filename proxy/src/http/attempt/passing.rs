//! An answer that stands, on its way to the caller.
//!
//! The last part of `attempt`. What is ready is written together; what isn't
//! yet makes what is held back go. An early answer does not end the upload.

use std::{future::Future, pin::pin, time::Duration};

use tokio::time::{Instant, sleep_until};

use crate::{
    http::{
        body::{Alongside, Pumped, ready},
        message::{Answer, Break, Broken, Chunk, Responding, Response, Trailers, Version},
    },
    record::Record,
};

use super::{GRPC_STATUS, first::Stop, number};

/// How passing the answer on ended.
pub(super) enum Passed {
    /// With the gRPC status of its trailers.
    Whole(Option<u8>),
    /// What follows is no longer HTTP.
    Switched,
    Broken(Broken),
    CallerLeft,
    Idle,
}

/// An answer that stands, on its way to the caller.
pub(super) struct Passing<'a, V: Version> {
    answer: &'a mut V::Answer,
    responding: &'a mut V::Responding,
    record: &'a mut Record,
    sent: u64,
    is_switching: bool,
}

impl<'a, V: Version> Passing<'a, V> {
    pub(super) fn new(
        answer: &'a mut V::Answer,
        responding: &'a mut V::Responding,
        record: &'a mut Record,
    ) -> Self {
        Self {
            answer,
            responding,
            record,
            sent: 0,
            is_switching: false,
        }
    }

    pub(super) async fn pass(
        mut self,
        head: V::Response,
        chunk: Option<Chunk<V::Trailers>>,
        pumping: &mut Alongside<'_, impl Future<Output = Pumped<V::Outgoing>>, V::Outgoing>,
        idle: Option<Duration>,
    ) -> Passed {
        let passed = self.body(head, chunk, pumping, idle).await;
        self.record.sent(self.sent);
        match passed {
            Ok(_) if self.is_switching => Passed::Switched,
            Ok(status) => Passed::Whole(status),
            Err(None) => Passed::Idle,
            Err(Some(Stop::Caller(_))) => Passed::CallerLeft,
            Err(Some(Stop::Endpoint(broken))) => Passed::Broken(broken),
        }
    }

    /// `Err(None)`: nothing moved for too long.
    async fn body(
        &mut self,
        head: V::Response,
        mut chunk: Option<Chunk<V::Trailers>>,
        pumping: &mut Alongside<'_, impl Future<Output = Pumped<V::Outgoing>>, V::Outgoing>,
        idle: Option<Duration>,
    ) -> Result<Option<u8>, Option<Stop>> {
        let is_end = head.is_end();
        self.is_switching = head.is_switch();
        self.answer.head(head, is_end).await.map_err(stop)?;
        let mut status = None;
        if is_end || self.is_switching {
            return self.rest(status, pumping, idle).await;
        }
        loop {
            let next = match chunk.take() {
                Some(chunk) => chunk,
                None => {
                    let mut next = pin!(pumping.with(self.responding.next()));
                    match ready(next.as_mut()).await {
                        Some(next) => next.map_err(stop)?.map_err(stop)?,
                        None => {
                            self.answer.flush().await.map_err(stop)?;
                            tokio::select! {
                                next = next => next.map_err(stop)?.map_err(stop)?,
                                () = self.answer.cancelled() => return Err(Some(Stop::Caller(Break::Gone))),
                                () = silence(idle) => return Err(None),
                            }
                        }
                    }
                }
            };
            match next {
                Chunk::Data(data) => {
                    self.sent += data.len() as u64;
                    pumping
                        .with(self.answer.data(data))
                        .await
                        .map_err(stop)?
                        .map_err(stop)?;
                }
                Chunk::Trailers(trailers) => {
                    status = trailers.field(GRPC_STATUS).and_then(number);
                    self.answer.end(Some(trailers)).await.map_err(stop)?;
                    break;
                }
                Chunk::End => {
                    self.answer.end(None).await.map_err(stop)?;
                    break;
                }
            }
        }
        self.rest(status, pumping, idle).await
    }

    /// An early answer does not end the upload, unless the endpoint does.
    async fn rest(
        &mut self,
        status: Option<u8>,
        pumping: &mut Alongside<'_, impl Future<Output = Pumped<V::Outgoing>>, V::Outgoing>,
        idle: Option<Duration>,
    ) -> Result<Option<u8>, Option<Stop>> {
        if pumping.is_busy() && !self.responding.is_closing() {
            tokio::select! {
                rest = pumping.with(std::future::ready(())) => rest.map_err(stop)?,
                () = silence(idle) => return Err(None),
            }
        }
        Ok(status)
    }
}

fn stop(why: impl Into<Stop>) -> Option<Stop> {
    Some(why.into())
}

async fn silence(limit: Option<Duration>) {
    match limit {
        Some(limit) => sleep_until(Instant::now() + limit).await,
        None => std::future::pending().await,
    }
}

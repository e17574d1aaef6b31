//! What is heard first of an answer: its final head, a break, or nothing in time.
//!
//! The middle of `attempt`. Informational heads are passed on meanwhile. Where a
//! policy asks for a gRPC status, the piece behind the head is looked at too.

use std::future::Future;

use tokio::time::{Instant, timeout_at};

use crate::{
    http::{
        body::{Alongside, Pumped},
        message::{Answer, Break, Broken, Chunk, Responding, Response, Version},
        tries::Tries,
    },
    outcome::Reason,
};

use super::Way;

/// The first that is heard of an answer.
pub(super) enum First<V: Version> {
    /// The final head; the piece behind it where that decides.
    Answer(V::Response, Option<Chunk<V::Trailers>>),
    Broken(Broken),
    Caller(Break),
    Late(Reason),
}

impl Way<'_, '_> {
    /// Waits for the final head and passes informational ones on.
    pub(super) async fn first<V: Version>(
        &self,
        pumping: &mut Alongside<'_, impl Future<Output = Pumped<V::Outgoing>>, V::Outgoing>,
        responding: &mut V::Responding,
        answer: &mut V::Answer,
        began: Instant,
    ) -> First<V> {
        let Tries { plan, deadline, .. } = &*self.tries;
        let peeks = !plan.backend.policy.retries.grpc_statuses.is_empty();
        let wait = async {
            loop {
                let late = || deadline.of_first_byte(Instant::now());
                let head = tokio::select! {
                    head = pumping.with_until(responding.head(), late) => head?,
                    () = answer.cancelled() => return Err(Stop::Caller(Break::Gone)),
                };
                let Some(head) = head.transpose()? else {
                    return Ok(None);
                };
                if (100..200).contains(&head.status()) && !head.is_switch() {
                    answer.informational(head).await?;
                    continue;
                }
                let mut chunk = None;
                let has_body = !head.is_end() && !head.is_switch();
                while peeks && is_grpc(&head) && has_body && chunk.is_none() {
                    chunk = match pumping.with(responding.next()).await?? {
                        Chunk::Data(data) if data.is_empty() => None,
                        other => Some(other),
                    };
                }
                return Ok(Some((head, chunk)));
            }
        };
        let waited = match deadline.of_try(began) {
            None => wait.await,
            Some(by) => timeout_at(by, wait).await.unwrap_or(Ok(None)),
        };
        match waited {
            Ok(Some((head, chunk))) => First::Answer(head, chunk),
            Ok(None) => First::Late(deadline.over(Instant::now())),
            Err(Stop::Caller(left)) => First::Caller(left),
            Err(Stop::Endpoint(broken)) => First::Broken(broken),
        }
    }
}

pub(super) fn is_grpc(head: &impl Response) -> bool {
    head.field("content-type")
        .is_some_and(|kind| kind.starts_with(b"application/grpc"))
}

/// Why a wait ended without an answer.
pub(super) enum Stop {
    Caller(Break),
    Endpoint(Broken),
}

impl From<Break> for Stop {
    fn from(left: Break) -> Self {
        Self::Caller(left)
    }
}

impl From<Broken> for Stop {
    fn from(broken: Broken) -> Self {
        Self::Endpoint(broken)
    }
}

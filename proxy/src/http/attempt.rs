//! One attempt of a request at one endpoint: a connection, the request on its
//! way out, the first answer, and if it stands, the answer on its way back.
//!
//! Called by `exchange`, which picked the endpoint and decides what follows a
//! failure. Both bodies stream at once, each at the pace of its reader; of the
//! request little is kept until the answer stands (`body`). One future, no task.

mod first;
mod passing;
mod tunnel;
mod verdict;

use std::{future::Future, pin::pin, time::Duration};

use tokio::time::{Instant, timeout_at};

use crate::{
    discovery::Security,
    outcome::{Outcome, Reason, Retryable},
    record::Record,
    request::Request,
    upstream::{balance::InFlight, breaker::Verdict},
};

use super::{
    answer::{FAULT, heard},
    body::{Alongside, Kept, pump},
    exchange::Refusal,
    message::{Answer, Break, Broken, Chunk, Edit, Response, Trailers, Upstream, Version},
    retry::{Attempt, Failure},
    tries::Tries,
};

use first::{First, is_grpc};
use passing::{Passed, Passing};

pub(crate) use tunnel::Tunnel;

/// What became of an attempt.
pub(crate) enum Tried<V: Version> {
    Ended(Outcome),
    /// The endpoint agreed to a tunnel, and the caller knows.
    Switched(Box<Tunnel<V>>),
    /// Make another after this time.
    Again(Duration),
    Refused(Refusal),
    /// The application reset the stream before it answered.
    BrokenOff(Option<h2::Reason>),
}

/// The request and its caller, whatever the attempt.
pub(crate) struct Caller<'a, V: Version> {
    pub(crate) request: &'a V::Request,
    pub(crate) body: &'a mut V::Incoming,
    pub(crate) kept: &'a Kept<V>,
    pub(crate) answer: &'a mut V::Answer,
}

pub(crate) async fn attempt<V: Version>(
    tries: &mut Tries<'_>,
    mut flight: InFlight,
    caller: Caller<'_, V>,
    record: &mut Record,
) -> Tried<V> {
    let endpoint = flight.endpoint().clone();
    let opened = V::Upstream::open(
        &tries.cx.pool,
        &tries.plan.backend,
        &endpoint,
        tries.wanted(),
        &tries.cx.limits,
    )
    .await;
    let upstream = match opened {
        Ok(upstream) => upstream,
        Err(reason) => {
            tries.report(&mut flight, verdict::of_fault(reason), record);
            let failed = Attempt {
                failure: Failure::Fault(reason),
                sent: false,
                response_started: false,
            };
            return tries.after(
                failed,
                reason,
                caller.request.method(),
                caller.kept.is_replayable(),
                record,
            );
        }
    };
    let is_reused = upstream.is_reused();
    let is_mesh = matches!(endpoint.security, Security::Mesh { .. });
    let edit = Edit {
        attempt: tries.number(),
        mesh: is_mesh,
        path: tries.plan.permit.path(),
        filters: tries.plan.filters.as_deref().map(|of| &of.request),
    };
    let last = caller.kept.is_empty_request();
    let sent = upstream.send(caller.request, edit, last).await;
    let mut way = Way {
        tries,
        flight,
        is_reused,
        is_mesh,
    };
    match sent {
        Ok((outgoing, responding)) => {
            way.there_and_back(outgoing, responding, caller, record)
                .await
        }
        Err(broken) => way.broken(broken, caller.request, caller.kept, record),
    }
}

/// A request on its way to an endpoint and back.
struct Way<'a, 'b> {
    tries: &'a mut Tries<'b>,
    flight: InFlight,
    is_reused: bool,
    is_mesh: bool,
}

impl Way<'_, '_> {
    async fn there_and_back<V: Version>(
        mut self,
        outgoing: V::Outgoing,
        mut responding: V::Responding,
        caller: Caller<'_, V>,
        record: &mut Record,
    ) -> Tried<V> {
        let Caller {
            request,
            body,
            kept,
            answer,
        } = caller;
        let began = Instant::now();
        let (passed, outcome, whole) = {
            let pump = pin!(pump::<V>(body, kept, outgoing));
            let mut pumping = Alongside::new(pump);
            let first = self
                .first::<V>(&mut pumping, &mut responding, answer, began)
                .await;
            let (head, chunk) = match first {
                First::Answer(head, chunk) => (head, chunk),
                First::Broken(broken) => return self.broken(broken, request, kept, record),
                First::Caller(left) => return caller_left(left),
                First::Late(reason) => return self.late(reason, request, kept, record),
            };
            record.first_byte();
            self.tries.observe(&self.flight, began);
            let (outcome, failure) = self.judge::<V>(&head, chunk.as_ref(), record);
            if let Some(backoff) =
                failure.and_then(|failure| self.again(failure, request, kept, record))
            {
                return Tried::Again(backoff);
            }
            kept.forget();
            record.status(head.status());
            let passing = Passing::<V>::new(answer, &mut responding, record);
            let passed = self
                .within(began, passing.pass(head, chunk, &mut pumping, self.idle()))
                .await;
            (passed, outcome, pumping.take_sent())
        };
        match (passed, whole) {
            (Ok(Passed::Whole(grpc_status)), whole) => {
                self.close(grpc_status, record);
                if let Some(outgoing) = whole {
                    V::Upstream::release(&self.tries.cx.pool, outgoing, responding);
                }
                Tried::Ended(outcome)
            }
            (Ok(Passed::Switched), Some(outgoing)) => {
                self.close(None, record);
                Tried::Switched(Tunnel::new(outgoing, responding, self.flight))
            }
            (Ok(Passed::Broken(broken)), _) if is_own(&broken) && answer.retract() => {
                self.tries
                    .report(&mut self.flight, Verdict::Failure, record);
                Tried::Refused(broken.reason.into())
            }
            (Ok(Passed::Broken(broken)), _) => self.truncated::<V>(broken, answer, record),
            (Ok(Passed::CallerLeft | Passed::Switched), _) => Tried::Ended(Outcome::CallerLeft),
            (Ok(Passed::Idle), _) => Tried::Refused(Reason::IdleTimeout.into()),
            (Err(reason), _) => Tried::Refused(reason.into()),
        }
    }

    /// Whether an answer that could stand is tried again.
    fn again<V: Version>(
        &mut self,
        failure: Failure,
        request: &V::Request,
        kept: &Kept<V>,
        record: &mut Record,
    ) -> Option<Duration> {
        let sent =
            !matches!(failure, Failure::Fault(reason) if reason.retryable() == Retryable::Unsent);
        let failed = Attempt {
            failure,
            sent,
            response_started: false,
        };
        self.tries
            .again(failed, request.method(), kept.is_replayable(), record)
    }

    fn late<V: Version>(
        &mut self,
        reason: Reason,
        request: &V::Request,
        kept: &Kept<V>,
        record: &mut Record,
    ) -> Tried<V> {
        self.tries
            .report(&mut self.flight, Verdict::Failure, record);
        let failed = Attempt {
            failure: Failure::Fault(reason),
            sent: true,
            response_started: false,
        };
        self.tries.after(
            failed,
            reason,
            request.method(),
            kept.is_replayable(),
            record,
        )
    }

    /// What an answer says of its endpoint, and whether it is one to try again.
    fn judge<V: Version>(
        &mut self,
        head: &V::Response,
        chunk: Option<&Chunk<V::Trailers>>,
        record: &mut Record,
    ) -> (Outcome, Option<Failure>) {
        let told = if self.is_mesh {
            head.field(FAULT).and_then(heard)
        } else {
            None
        };
        if let Some(fault) = told {
            self.tries
                .report(&mut self.flight, verdict::of_fault(fault.reason), record);
            let again = fault.reason.retryable() == Retryable::Unsent;
            return (
                Outcome::PeerFaulted(fault),
                again.then_some(Failure::Fault(fault.reason)),
            );
        }
        let retries = &self.tries.plan.backend.policy.retries;
        let grpc = match chunk {
            Some(Chunk::Trailers(trailers)) => trailers.field(GRPC_STATUS),
            _ => head.field(GRPC_STATUS),
        };
        if let Some(status) = grpc.and_then(number::<u8>) {
            self.tries
                .report(&mut self.flight, verdict::of_grpc(status), record);
            record.grpc_status(status);
            let again = retries.grpc_statuses.contains(&status);
            return (
                Outcome::Answered,
                again.then_some(Failure::GrpcStatus(status)),
            );
        }
        let status = head.status();
        // A gRPC call's success is known from its trailers alone.
        if status != 200 || !is_grpc(head) {
            self.tries
                .report(&mut self.flight, verdict::of_http(status), record);
        }
        let again = retries.status_codes.contains(&status);
        (Outcome::Answered, again.then_some(Failure::Status(status)))
    }

    fn close(&mut self, grpc_status: Option<u8>, record: &mut Record) {
        let verdict = grpc_status.map_or(Verdict::Success, verdict::of_grpc);
        if let Some(status) = grpc_status {
            record.grpc_status(status);
        }
        self.tries.report(&mut self.flight, verdict, record);
    }

    /// The connection broke before anything was passed on.
    fn broken<V: Version>(
        &mut self,
        broken: Broken,
        request: &V::Request,
        kept: &Kept<V>,
        record: &mut Record,
    ) -> Tried<V> {
        let died = self.is_reused
            && !broken.unread
            && broken.reset.is_none()
            && broken.reason == Reason::UpstreamReset;
        let failure = match broken.told {
            // The peer proxy had a connection, and lost its answer.
            Some(fault) => Failure::Fault(fault.reason),
            None if died => Failure::ReusedConnectionDied,
            None => Failure::Fault(broken.reason),
        };
        // An idle connection that its server closed says nothing of the server.
        let verdict = match failure {
            Failure::ReusedConnectionDied => Verdict::Ignore,
            _ => verdict::of_fault(broken.reason),
        };
        self.tries.report(&mut self.flight, verdict, record);
        let failed = Attempt {
            failure,
            sent: !broken.unread,
            response_started: false,
        };
        match self
            .tries
            .again(failed, request.method(), kept.is_replayable(), record)
        {
            Some(backoff) => Tried::Again(backoff),
            // The application's own word, not a fault of the mesh.
            None if broken.reset.is_some() => Tried::BrokenOff(broken.reset),
            None => Tried::Refused(Refusal {
                told: broken.told,
                ..broken.reason.into()
            }),
        }
    }

    /// The connection broke behind the head.
    fn truncated<V: Version>(
        &mut self,
        broken: Broken,
        answer: &mut V::Answer,
        record: &mut Record,
    ) -> Tried<V> {
        self.tries
            .report(&mut self.flight, Verdict::Failure, record);
        answer.abort(broken.reset);
        Tried::Ended(match (broken.reset, broken.told) {
            (Some(_), _) => Outcome::BrokenOff,
            (None, Some(fault)) => Outcome::PeerFaulted(fault),
            (None, None) => Outcome::Faulted(Reason::ResponseTruncated.at(self.tries.cx.side)),
        })
    }

    fn idle(&self) -> Option<Duration> {
        self.tries.plan.backend.policy.timeouts.idle
    }

    /// HTTPRouteTimeouts.backendRequest covers the whole response.
    async fn within<T>(&self, began: Instant, work: impl Future<Output = T>) -> Result<T, Reason> {
        match self.tries.deadline.of_try(began) {
            None => Ok(work.await),
            Some(by) => timeout_at(by, work)
                .await
                .map_err(|_| Reason::RequestTimeout),
        }
    }
}

/// Neither the peer proxy's fault nor the application's own word.
fn is_own(broken: &Broken) -> bool {
    broken.told.is_none() && broken.reset.is_none()
}

fn caller_left<V: Version>(left: Break) -> Tried<V> {
    match left {
        Break::Gone => Tried::Ended(Outcome::CallerLeft),
        Break::Bad(reason) => Tried::Refused(reason.into()),
    }
}

const GRPC_STATUS: &str = "grpc-status";

fn number<N: std::str::FromStr>(value: &[u8]) -> Option<N> {
    std::str::from_utf8(value).ok()?.parse().ok()
}

//! The attempts of one request: which endpoints had it, and what may follow.
//!
//! Part of `exchange`, which loops; `attempt` tells what each of them showed.
//! `upstream::balance` picks and `retry` decides: here is what they must know.

use std::time::Duration;

use tokio::time::Instant;
use tracing::info;

use crate::{
    discovery::{Backend, Endpoint, EndpointKey},
    limit,
    outcome::{Reason, Retried},
    record::Record,
    upstream::{
        balance::{self, InFlight, Nobody},
        breaker::{State, Transition, Verdict},
        pool::Wanted,
    },
};

use super::{
    attempt::Tried,
    deadline::Deadline,
    exchange::{Context, Plan, Refusal},
    message::Version,
    retry::{self, Attempt, Decision, Situation},
};

/// The attempts of one request: which endpoints had it, and what may follow.
pub(crate) struct Tries<'a> {
    pub(crate) cx: &'a Context,
    pub(crate) plan: &'a Plan,
    pub(crate) deadline: &'a Deadline,
    /// `weft-attempt` as it came.
    incoming: u32,
    tried: smallvec::SmallVec<[EndpointKey; 4]>,
    /// The endpoint of a broken connection, to be asked once more.
    same: Option<EndpointKey>,
    retries: u32,
    is_replayed: bool,
    made: u32,
}

impl<'a> Tries<'a> {
    pub(super) fn new(
        cx: &'a Context,
        plan: &'a Plan,
        deadline: &'a Deadline,
        incoming: u32,
    ) -> Self {
        Self {
            cx,
            plan,
            deadline,
            incoming,
            tried: smallvec::SmallVec::new(),
            same: None,
            retries: 0,
            is_replayed: false,
            made: 0,
        }
    }

    pub(super) fn pick(&mut self) -> Result<InFlight, Refusal> {
        if let Some(same) = self.same.take() {
            self.tried.retain(|key| *key != same);
        }
        let now_ms = self.now_ms();
        let mut averages = self.cx.averages.borrow_mut();
        let mut random = self.cx.random.borrow_mut();
        let picked = balance::pick(
            &self.plan.backend,
            &mut averages,
            &self.tried,
            now_ms,
            &mut random,
        );
        let flight = picked.map_err(Nobody::reason)?;
        self.tried.push(flight.endpoint().key);
        self.made += 1;
        Ok(flight)
    }

    /// Whoever met a connection that its server had closed meets no second one:
    /// servers close what idled together at once.
    pub(crate) fn wanted(&self) -> Wanted {
        if self.is_replayed {
            Wanted::New
        } else {
            Wanted::Any
        }
    }

    /// Which try is under way, counted over all proxies of the request.
    pub(crate) fn number(&self) -> u32 {
        self.incoming
            .saturating_add(self.made)
            .saturating_sub(1)
            .max(1)
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.cx.epoch.milliseconds(Instant::now())
    }

    /// The time until another attempt; `None`: there is none, and why is recorded.
    pub(crate) fn again(
        &mut self,
        failed: Attempt,
        method: &str,
        replayable: bool,
        record: &mut Record,
    ) -> Option<Duration> {
        let backend = &self.plan.backend;
        let now = Instant::now();
        let situation = Situation {
            method,
            replayable,
            incoming_attempt: self.incoming,
            retries: self.retries,
            replayed: self.is_replayed,
            other_endpoint: backend
                .ready()
                .iter()
                .any(|endpoint| !self.tried.contains(&endpoint.key)),
            remaining: self.deadline.remaining(now),
        };
        let now_ms = self.cx.epoch.milliseconds(now);
        let mut random = self.cx.random.borrow_mut();
        let withdraw = || limit::withdraw(backend, now_ms);
        match retry::decide(
            &failed,
            &situation,
            &backend.policy.retries,
            &mut random,
            withdraw,
        ) {
            Decision::Again { on, backoff, kind } => {
                self.same = (on == retry::On::Same)
                    .then(|| self.tried.last().copied())
                    .flatten();
                match kind {
                    Retried::Unsent => {}
                    Retried::Replay => self.is_replayed = true,
                    Retried::Policy => self.retries += 1,
                }
                record.retried(kind);
                Some(backoff)
            }
            Decision::Stop(why) => {
                record.not_retried(why);
                None
            }
        }
    }

    /// What follows a failure of which nothing was passed on.
    pub(crate) fn after<V: Version>(
        &mut self,
        failed: Attempt,
        reason: Reason,
        method: &str,
        replayable: bool,
        record: &mut Record,
    ) -> Tried<V> {
        match self.again(failed, method, replayable, record) {
            Some(backoff) => Tried::Again(backoff),
            None => Tried::Refused(reason.into()),
        }
    }

    /// How long the endpoint took to begin its answer.
    pub(crate) fn observe(&self, flight: &InFlight, began: Instant) {
        let now = Instant::now();
        let now_ms = self.cx.epoch.milliseconds(now);
        self.cx
            .averages
            .borrow_mut()
            .observe(flight.endpoint().key, now - began, now_ms);
    }

    /// What an attempt showed of its endpoint; the first word counts.
    pub(crate) fn report(&self, flight: &mut InFlight, verdict: Verdict, record: &Record) {
        let now_ms = self.now_ms();
        if verdict == Verdict::Failure {
            self.cx
                .averages
                .borrow_mut()
                .punish(flight.endpoint().key, now_ms);
        }
        if let Some(change) = flight.report(&self.plan.backend, verdict, now_ms) {
            told(&self.plan.backend, flight.endpoint(), &change, record);
        }
    }
}

/// A breaker's change is an event for operators.
pub(super) fn told(backend: &Backend, endpoint: &Endpoint, change: &Transition, record: &Record) {
    record.metrics().breaker.transitions.inc(change.to.as_str());
    let until_ms = match change.to {
        State::Ejected { until_ms } => until_ms,
        State::In { .. } | State::Probing => 0,
    };
    info!(
        service = %backend.service,
        port = backend.port,
        pod = %endpoint.pod,
        uid = %endpoint.uid,
        from = change.from.as_str(),
        to = change.to.as_str(),
        why = change.why.as_str(),
        until_ms,
        "breaker moved an endpoint"
    );
}

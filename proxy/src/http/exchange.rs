//! THE order of an exchange: plan → limit → attempt (pick, send, maybe again)
//! → answer → record. Both HTTP versions and both sides go through here.
//!
//! Comes after `server`, which read a request's head. Decisions are pure calls
//! (`Planner`, `retry`); moving one attempt's bytes is `attempt`'s work. Never
//! knows a policy, a socket or a protocol's syntax.

use std::{cell::RefCell, rc::Rc, sync::Arc, time::Duration};

use tokio::time::{Instant, sleep, timeout_at};
use tracing::info;

use crate::{
    authz::{Denial, Permit},
    clock::Epoch,
    discovery::{Backend, Endpoint, EndpointKey, Rule, Snapshot},
    limit,
    outcome::{Fault, Outcome, Reason, Retried, Side},
    record::Record,
    request::Request,
    upstream::{
        balance::{self, Averages, InFlight, Nobody},
        breaker::{State, Transition, Verdict},
        pool::{Pool, Wanted},
        queue,
    },
};

use super::{
    attempt::{Caller, Tried, attempt},
    body::Kept,
    deadline::Deadline,
    h1::Limits,
    message::{Answer, Incoming, Version},
    retry::{self, Attempt, Decision, Situation},
};

/// What a worker's exchanges share, for one side.
pub(crate) struct Context {
    pub(crate) side: Side,
    /// Renewed by message; decisions take it once per request.
    pub(crate) snapshot: RefCell<Arc<Snapshot>>,
    pub(crate) pool: Rc<Pool>,
    pub(crate) averages: RefCell<Averages>,
    pub(crate) random: RefCell<fastrand::Rng>,
    pub(crate) epoch: Epoch,
    pub(crate) limits: Limits,
}

/// What is to be done with a request.
#[derive(Debug)]
pub(crate) struct Plan {
    /// Without it nothing is forwarded.
    pub(crate) permit: Permit,
    pub(crate) rule: Option<Arc<Rule>>,
    pub(crate) backend: Arc<Backend>,
}

/// Decides; `inbound` and `outbound` do it each in their way.
pub(crate) trait Planner {
    /// # Errors
    /// Why the request goes nowhere.
    fn plan(&self, request: &impl Request) -> Result<Plan, Denial>;
}

/// One request and the way back to its caller.
pub(crate) struct Call<V: Version> {
    pub(crate) request: V::Request,
    pub(crate) body: V::Incoming,
    pub(crate) answer: V::Answer,
    /// `weft-attempt` of a peer proxy; 1 otherwise.
    pub(crate) attempt: u32,
}

/// Why the mesh answers instead of the application.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) reason: Reason,
    pub(crate) detail: Option<Arc<str>>,
    /// The peer proxy's fault, which we answer in its place.
    pub(crate) told: Option<Fault>,
}

impl From<Reason> for Refusal {
    fn from(reason: Reason) -> Self {
        Self {
            reason,
            detail: None,
            told: None,
        }
    }
}

/// Takes one request to its end and records it, whatever that is.
pub(crate) async fn exchange<V: Version>(
    cx: &Context,
    planner: &impl Planner,
    call: &mut Call<V>,
    mut record: Record,
) {
    let outcome = match order(cx, planner, call, &mut record).await {
        Ok(outcome) => outcome,
        Err(refusal) => refuse::<V>(cx.side, &refusal, call, &mut record).await,
    };
    record.finish(outcome);
}

async fn order<V: Version>(
    cx: &Context,
    planner: &impl Planner,
    call: &mut Call<V>,
    record: &mut Record,
) -> Result<Outcome, Refusal> {
    let plan = planner
        .plan(&call.request)
        .map_err(|denial| denied(denial, record))?;
    record.planned(plan.rule.as_ref(), &plan.backend);
    if let Some(policy) = plan.permit.policy() {
        record.judged_by(policy);
    }
    let now = Instant::now();
    let deadline = Deadline::new(
        plan.rule.as_deref(),
        &plan.backend.policy,
        &call.request,
        now,
    );
    let _slot = queue::enter(&plan.backend, deadline.total()).await?;
    limit::deposit(&plan.backend, cx.epoch.milliseconds(now));
    let attempts = attempts(cx, &plan, &deadline, call, record);
    match deadline.total() {
        None => attempts.await,
        Some(total) => match timeout_at(total, attempts).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Reason::RequestTimeout.into()),
        },
    }
}

fn denied(denial: Denial, record: &mut Record) -> Refusal {
    if let Some(policy) = &denial.policy {
        record.judged_by(policy);
    }
    Refusal {
        reason: denial.reason,
        detail: denial.policy,
        told: None,
    }
}

/// Answers with the fault; once a response has begun only breaking it off tells.
async fn refuse<V: Version>(
    side: Side,
    refusal: &Refusal,
    call: &mut Call<V>,
    record: &mut Record,
) -> Outcome {
    let (fault, outcome) = match refusal.told {
        Some(fault) => (fault, Outcome::PeerFaulted(fault)),
        None => {
            let fault = refusal.reason.at(side);
            (fault, Outcome::Faulted(fault))
        }
    };
    if call.answer.is_started() {
        call.answer.abort(None);
        return outcome;
    }
    let detail = refusal.detail.as_deref().unwrap_or_default();
    record.status(fault.reason.http_status());
    match call.answer.fault(fault, detail).await {
        Ok(()) => outcome,
        Err(_) => Outcome::CallerLeft,
    }
}

async fn attempts<V: Version>(
    cx: &Context,
    plan: &Plan,
    deadline: &Deadline,
    call: &mut Call<V>,
    record: &mut Record,
) -> Result<Outcome, Refusal> {
    let mut tries = Tries::new(cx, plan, deadline, call.attempt);
    let kept = Kept::new(call.body.is_end());
    let ended = loop {
        let flight = tries.pick()?;
        record.attempt(flight.endpoint());
        if let Some(probing) = flight.began() {
            told(&plan.backend, flight.endpoint(), &probing, record);
        }
        let caller = Caller {
            request: &call.request,
            body: &mut call.body,
            kept: &kept,
            answer: &mut call.answer,
        };
        match attempt::<V>(&mut tries, flight, caller, record).await {
            Tried::Ended(outcome) => break Ok(outcome),
            Tried::Refused(refusal) => break Err(refusal),
            Tried::BrokenOff(reset) => {
                call.answer.abort(reset);
                break Ok(Outcome::BrokenOff);
            }
            Tried::Again(backoff) if backoff.is_zero() => {}
            Tried::Again(backoff) => sleep(backoff).await,
        }
    };
    record.received(kept.bytes());
    ended
}

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
    fn new(cx: &'a Context, plan: &'a Plan, deadline: &'a Deadline, incoming: u32) -> Self {
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

    fn pick(&mut self) -> Result<InFlight, Refusal> {
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
    pub(crate) fn after(
        &mut self,
        failed: Attempt,
        reason: Reason,
        method: &str,
        replayable: bool,
        record: &mut Record,
    ) -> Tried {
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
fn told(backend: &Backend, endpoint: &Endpoint, change: &Transition, record: &Record) {
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

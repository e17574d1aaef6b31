//! THE order of an exchange: plan → filter → limit → attempt (pick, send, maybe
//! again) → answer → record. Both HTTP versions and both sides go through here.
//!
//! Comes after `server`, which read a request's head. Decisions are pure calls
//! (`Planner`, `retry`, which `tries` asks); moving one attempt's bytes is
//! `attempt`'s work. Never
//! knows a policy, a socket or a protocol's syntax.

use std::{cell::RefCell, rc::Rc, sync::Arc};

use tokio::time::{Instant, sleep, timeout_at};

use crate::{
    authz::{Denial, Permit},
    clock::Epoch,
    discovery::{Backend, Filters, Rule, Snapshot},
    limit,
    outcome::{Fault, Outcome, Reason, Side},
    record::Record,
    request::Request,
    upstream::{balance::Averages, pool::Pool, queue},
};

use super::{
    attempt::{Caller, Tried, Tunnel, attempt},
    body::Kept,
    deadline::Deadline,
    filter,
    h1::Limits,
    message::{Answer, Incoming, Version},
    mirror::{self, Mirrors},
    tries::{Tries, told},
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
    pub(crate) mirrors: Rc<Mirrors>,
}

/// What is to be done with a request.
#[derive(Debug)]
pub(crate) struct Plan {
    /// Without it nothing is forwarded.
    pub(crate) permit: Permit,
    pub(crate) rule: Option<Arc<Rule>>,
    pub(crate) filters: Option<Arc<Filters>>,
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
    if let Some(ended) = filter::enter(&plan, call, record).await {
        return Ok(ended);
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
    let ended = match deadline.total() {
        None => attempts.await,
        Some(total) => match timeout_at(total, attempts).await {
            Ok(ended) => ended,
            Err(_) => Err(Reason::RequestTimeout.into()),
        },
    };
    Ok(match ended? {
        Ended::Over(outcome) => outcome,
        // The request is answered: its time no longer runs.
        Ended::Switched(tunnel) => tunnel.carry(&mut call.body, &mut call.answer, record).await,
    })
}

/// How the attempts of a request ended.
enum Ended<V: Version> {
    Over(Outcome),
    Switched(Box<Tunnel<V>>),
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
) -> Result<Ended<V>, Refusal> {
    let mut tries = Tries::new(cx, plan, deadline, call.attempt);
    let is_empty = call.body.is_end();
    let copies = mirror::copies::<V>(cx, plan, &call.request, is_empty);
    let kept = Kept::new(is_empty, copies);
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
            Tried::Ended(outcome) => break Ok(Ended::Over(outcome)),
            Tried::Switched(tunnel) => break Ok(Ended::Switched(tunnel)),
            Tried::Refused(refusal) => break Err(refusal),
            Tried::BrokenOff(reset) => {
                call.answer.abort(reset);
                break Ok(Ended::Over(Outcome::BrokenOff));
            }
            Tried::Again(backoff) if backoff.is_zero() => {}
            Tried::Again(backoff) => sleep(backoff).await,
        }
    };
    record.received(kept.bytes());
    ended
}

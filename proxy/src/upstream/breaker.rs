//! Takes endpoints out that fail, and lets them back in by one probe.
//!
//! `balance` asks for a `Pass` before it hands an endpoint out; `http::exchange`
//! and `tcp` report how the attempt went and log what that changed.
//!
//! The state of an endpoint is one word that all workers share, and each step
//! is one compare-and-exchange: "exactly N in a row" holds in the one order in
//! which they happened. A place among the ejected is reserved before anything
//! goes out, so the permitted fraction and "never the last one" always hold.

mod word;

use std::sync::{Arc, atomic::Ordering};

use crate::discovery::{Backend, CircuitBreaking, Endpoint, EndpointCells};

use word::{Phase, Word, duration, read, replace};

/// What an attempt says about its endpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    Success,
    /// No connection, a broken one, a timeout, a 5xx.
    Failure,
    /// Says nothing: client errors, the caller left, a fault of our own side.
    Ignore,
}

/// Where an endpoint stands. Times are milliseconds of `clock::Epoch`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum State {
    In {
        failures: u32,
    },
    Ejected {
        until_ms: u64,
    },
    /// One request is out to see whether it is back.
    Probing,
}

impl State {
    pub(crate) const fn is_out(self) -> bool {
        matches!(self, Self::Ejected { .. } | Self::Probing)
    }

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::In { .. } => "in",
            Self::Ejected { .. } => "ejected",
            Self::Probing => "probing",
        }
    }
}

/// Why the state changed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Why {
    ConsecutiveFailures,
    TimeOver,
    ProbeSucceeded,
    ProbeFailed,
    /// Its caller left, or it said nothing: the next request probes.
    ProbeAbandoned,
}

impl Why {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::ConsecutiveFailures => "consecutive-failures",
            Self::TimeOver => "time-over",
            Self::ProbeSucceeded => "probe-succeeded",
            Self::ProbeFailed => "probe-failed",
            Self::ProbeAbandoned => "probe-abandoned",
        }
    }
}

/// To be logged and counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Transition {
    pub(crate) from: State,
    pub(crate) to: State,
    pub(crate) why: Why,
}

/// For the admin page.
pub(crate) fn state(endpoint: &Endpoint) -> State {
    read(&endpoint.cells).state()
}

/// Would `admit` give a pass?
pub(crate) fn is_open(endpoint: &Endpoint, now_ms: u64) -> bool {
    let word = read(&endpoint.cells);
    word.phase == Phase::In || word.is_due(now_ms)
}

/// Leave to send one request to an endpoint.
#[derive(Debug)]
pub(crate) struct Pass {
    /// Set until it is reported: whoever probes must say how it went.
    probe: Option<Arc<EndpointCells>>,
    is_reported: bool,
}

impl Pass {
    /// For an endpoint that is out while there is no other: neither success
    /// nor failure moves it.
    pub(crate) fn without_other() -> Self {
        Self {
            probe: None,
            is_reported: false,
        }
    }

    #[cfg(test)]
    pub(crate) fn is_probe(&self) -> bool {
        self.probe.is_some()
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        if let Some(cells) = self.probe.take() {
            abandon(&cells);
        }
    }
}

/// `None` while it is out and its time is not over, or another request probes.
pub(crate) fn admit(endpoint: &Endpoint, now_ms: u64) -> Option<(Pass, Option<Transition>)> {
    let cells = &endpoint.cells;
    let word = read(cells);
    if word.phase == Phase::In {
        return Some((
            Pass {
                probe: None,
                is_reported: false,
            },
            None,
        ));
    }
    let probing = Word {
        phase: Phase::Probing,
        ..word
    };
    if !word.is_due(now_ms) || !replace(cells, word, probing) {
        return None;
    }
    let transition = Transition {
        from: word.state(),
        to: State::Probing,
        why: Why::TimeOver,
    };
    Some((
        Pass {
            probe: Some(Arc::clone(cells)),
            is_reported: false,
        },
        Some(transition),
    ))
}

/// How an attempt went; the first report of a pass counts.
pub(crate) fn report(
    backend: &Backend,
    endpoint: &Endpoint,
    pass: &mut Pass,
    verdict: Verdict,
    now_ms: u64,
) -> Option<Transition> {
    if std::mem::replace(&mut pass.is_reported, true) {
        return None;
    }
    let rule = &backend.policy.circuit_breaking;
    match (pass.probe.take(), verdict) {
        (Some(cells), Verdict::Success) => readmit(&cells, now_ms),
        (Some(cells), Verdict::Failure) => eject_again(&cells, rule, now_ms),
        (Some(cells), Verdict::Ignore) => abandon(&cells),
        (None, Verdict::Success) => {
            succeed(&endpoint.cells, rule, now_ms);
            None
        }
        (None, Verdict::Failure) => fail(backend, &endpoint.cells, now_ms),
        (None, Verdict::Ignore) => None,
    }
}

/// One more failure in a row. Those of an endpoint that is out already came
/// too late to count.
fn fail(backend: &Backend, cells: &EndpointCells, now_ms: u64) -> Option<Transition> {
    let rule = &backend.policy.circuit_breaking;
    let mut place = None;
    loop {
        let word = read(cells);
        if word.phase != Phase::In {
            return None;
        }
        let failures = (word.failures + 1).min(Word::MOST_FAILURES);
        let counted = Word { failures, ..word };
        let is_enough = rule.consecutive_failures > 0
            && failures >= rule.consecutive_failures.min(Word::MOST_FAILURES);
        if is_enough && place.is_none() {
            place = Place::take(backend, cells);
        }
        if !is_enough || place.is_none() {
            if replace(cells, word, counted) {
                return None;
            }
            continue;
        }
        let out = word.ejected(rule, now_ms);
        if replace(cells, word, out) {
            if let Some(place) = place {
                place.keep();
            }
            return Some(Transition {
                from: counted.state(),
                to: out.state(),
                why: Why::ConsecutiveFailures,
            });
        }
    }
}

/// Ends a row of failures. After as long inside as its last ejection lasted,
/// the next ejection will be one step shorter.
fn succeed(cells: &EndpointCells, rule: &CircuitBreaking, now_ms: u64) {
    loop {
        let word = read(cells);
        if word.phase != Phase::In || (word.failures == 0 && word.ejections == 0) {
            return;
        }
        let mut next = Word {
            failures: 0,
            ..word
        };
        let last = duration(rule, word.ejections.saturating_sub(1));
        if word.ejections > 0 && now_ms.saturating_sub(word.time_ms) >= last {
            next = Word {
                ejections: word.ejections - 1,
                time_ms: now_ms,
                ..next
            };
        }
        if next == word || replace(cells, word, next) {
            return;
        }
    }
}

fn readmit(cells: &EndpointCells, now_ms: u64) -> Option<Transition> {
    let transition = leave_probing(cells, Why::ProbeSucceeded, |word| Word {
        phase: Phase::In,
        failures: 0,
        time_ms: now_ms,
        ..word
    });
    if transition.is_some() {
        Place::give_back(cells);
    }
    transition
}

fn eject_again(cells: &EndpointCells, rule: &CircuitBreaking, now_ms: u64) -> Option<Transition> {
    leave_probing(cells, Why::ProbeFailed, |word| word.ejected(rule, now_ms))
}

/// Its time stays over, so the next request probes.
fn abandon(cells: &EndpointCells) -> Option<Transition> {
    leave_probing(cells, Why::ProbeAbandoned, |word| Word {
        phase: Phase::Out,
        ..word
    })
}

/// Only the holder of the probe changes a word that says so.
fn leave_probing(
    cells: &EndpointCells,
    why: Why,
    next: impl Fn(Word) -> Word,
) -> Option<Transition> {
    let word = read(cells);
    let to = next(word);
    replace(cells, word, to).then(|| Transition {
        from: State::Probing,
        to: to.state(),
        why,
    })
}

/// A place among the ejected, until it is kept.
struct Place<'a>(&'a EndpointCells);

impl<'a> Place<'a> {
    fn take(backend: &Backend, cells: &'a EndpointCells) -> Option<Self> {
        let ready = u64::try_from(backend.ready().len()).unwrap_or(u64::MAX);
        let percent = u64::from(backend.policy.circuit_breaking.max_ejected_percent.min(100));
        let most = (ready * percent / 100).min(ready.saturating_sub(1));
        let more = |ejected: u32| (u64::from(ejected) < most).then(|| ejected + 1);
        let counter = &cells.backend().ejected;
        counter
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, more)
            .ok()
            .map(|_| Self(cells))
    }

    fn keep(self) {
        std::mem::forget(self);
    }

    fn give_back(cells: &EndpointCells) {
        cells.backend().ejected.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        Self::give_back(self.0);
    }
}

#[cfg(test)]
mod tests;

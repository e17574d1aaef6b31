//! Copies of requests for a route's mirrors, whose answers are thrown away.
//!
//! `exchange` asks for the copies of a request, and its body fills them on its
//! way (`body`). Once a copy is whole it goes, with what the filters made of
//! the request, in a task of its own: the request itself never waits for it
//! and never fails by it. What is larger than a replay may be, comes while too
//! many are held, or can't be had at once is dropped and counted.
//!
//! A mirror's endpoint is chosen as any that is in, but what it answers proves
//! nothing: it moves no breaker, average or budget, and probes nobody. A copy
//! queues nowhere, and takes no place that is the last one.

mod hold;

use std::{cell::RefCell, rc::Rc, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use smallvec::SmallVec;
use tokio::time::{Instant, timeout};

use crate::{
    discovery::{Backend, Filters, Mirror, Security},
    outcome::Reason,
    runtime::Tasks,
    telemetry::metric::Tally,
    upstream::{
        balance::{self, InFlight},
        pool::{Pool, Wanted},
        queue,
    },
};

use super::{
    exchange::{Context, Plan},
    h1::Limits,
    message::{Broken, Chunk, Edit, Outgoing, Responding, Response, Upstream, Version},
    retry::REPLAY_BYTES,
};

use hold::{Held, Hold};

/// How long one may take, unless its backend's policy says.
const PATIENCE: Duration = Duration::from_secs(15);

/// The copies that are under way.
#[derive(Debug)]
pub(crate) struct Mirrors {
    tasks: RefCell<Tasks>,
    pool: Rc<Pool>,
    limits: Limits,
    results: Tally,
    held: Rc<Held>,
}

impl Mirrors {
    pub(crate) fn new(pool: Rc<Pool>, limits: Limits, results: Tally) -> Rc<Self> {
        Rc::new(Self {
            tasks: RefCell::default(),
            pool,
            limits,
            results,
            held: Rc::default(),
        })
    }
}

/// One request for its mirrors, until its body is whole.
pub(crate) struct Copies<V: Version> {
    mirrors: Rc<Mirrors>,
    owed: Owed,
    copy: Copy<V>,
    body: BytesMut,
}

/// The mirrors that have not got it. Dropped, each counts as `otherwise`.
struct Owed {
    targets: SmallVec<[Target; 1]>,
    results: Tally,
    otherwise: &'static str,
}

impl Drop for Owed {
    fn drop(&mut self) {
        self.targets
            .iter()
            .for_each(|_| self.results.inc(self.otherwise));
    }
}

struct Target {
    backend: Arc<Backend>,
    flight: InFlight,
}

struct Copy<V: Version> {
    request: V::Request,
    filters: Arc<Filters>,
    path: Option<Box<[u8]>>,
    is_empty: bool,
    body: Bytes,
    trailers: Option<V::Trailers>,
    hold: Hold,
}

/// `None`: no mirror gets this request, or has it already.
pub(super) fn copies<V: Version>(
    cx: &Context,
    plan: &Plan,
    request: &V::Request,
    is_empty: bool,
) -> Option<Copies<V>> {
    let filters = plan.filters.as_ref()?;
    let mut owed = Owed {
        targets: targets(cx, &filters.mirrors),
        results: cx.mirrors.results.clone(),
        otherwise: "incomplete",
    };
    if owed.targets.is_empty() {
        return None;
    }
    let Some(hold) = Hold::new(&cx.mirrors.held) else {
        owed.otherwise = "busy";
        return None;
    };
    let Some(request) = V::copy(request) else {
        owed.otherwise = "upgrade";
        return None;
    };
    let copies = Copies {
        mirrors: Rc::clone(&cx.mirrors),
        owed,
        copy: Copy {
            request,
            filters: Arc::clone(filters),
            path: plan.permit.path().map(Into::into),
            is_empty,
            body: Bytes::new(),
            trailers: None,
            hold,
        },
        body: BytesMut::new(),
    };
    if is_empty {
        copies.send(None);
        return None;
    }
    Some(copies)
}

/// Those whose turn it is, by their fractions, with an endpoint each.
fn targets(cx: &Context, mirrors: &[Mirror]) -> SmallVec<[Target; 1]> {
    let mut targets = SmallVec::new();
    let mut random = cx.random.borrow_mut();
    let mut averages = cx.averages.borrow_mut();
    let now_ms = cx.epoch.milliseconds(Instant::now());
    for mirror in mirrors {
        if random.u32(..mirror.denominator) >= mirror.numerator {
            continue;
        }
        let Ok(backend) = &mirror.backend else {
            cx.mirrors.results.inc("invalid");
            continue;
        };
        match balance::pick_for_copy(backend, &mut averages, now_ms, &mut random) {
            Ok(flight) => targets.push(Target {
                backend: Arc::clone(backend),
                flight,
            }),
            Err(_) => cx.mirrors.results.inc("failed"),
        }
    }
    targets
}

impl<V: Version> Copies<V> {
    /// `false`: it has become too large, or all of them together.
    pub(super) fn add(&mut self, data: &[u8]) -> bool {
        if self.body.len().saturating_add(data.len()) > REPLAY_BYTES {
            self.owed.otherwise = "too-large";
            return false;
        }
        if !self.copy.hold.more(data.len()) {
            self.owed.otherwise = "busy";
            return false;
        }
        // Not a slice of what was read: a few bytes would hold a whole buffer.
        self.body.extend_from_slice(data);
        true
    }

    /// The request is whole.
    pub(super) fn send(mut self, trailers: Option<&V::Trailers>) {
        self.copy.trailers = trailers.cloned();
        self.copy.body = self.body.freeze();
        let targets = std::mem::take(&mut self.owed.targets);
        let Self { mirrors, copy, .. } = self;
        let copy = Rc::new(copy);
        for target in targets {
            let Some(slot) = queue::spare_request(&target.backend) else {
                mirrors.results.inc("busy");
                continue;
            };
            let (pool, limits) = (Rc::clone(&mirrors.pool), mirrors.limits);
            let (results, copy) = (mirrors.results.clone(), Rc::clone(&copy));
            let mut tasks = mirrors.tasks.borrow_mut();
            tasks.spawn(Box::pin(async move {
                let patience = target.backend.policy.timeouts.request.unwrap_or(PATIENCE);
                let carried = carry(&pool, &limits, &target, &copy);
                results.inc(match timeout(patience, carried).await {
                    Ok(Ok(())) => "answered",
                    Ok(Err(Failed::Busy)) => "busy",
                    Ok(Err(Failed::Broken)) => "failed",
                    Err(_) => "timed-out",
                });
                drop(slot);
            }));
        }
    }
}

enum Failed {
    /// There was no connection to be spared.
    Busy,
    Broken,
}

impl From<Broken> for Failed {
    fn from(_: Broken) -> Self {
        Self::Broken
    }
}

/// One copy to its endpoint; the answer is read, so that its connection can
/// serve again, and forgotten.
async fn carry<V: Version>(
    pool: &Rc<Pool>,
    limits: &Limits,
    target: &Target,
    copy: &Copy<V>,
) -> Result<(), Failed> {
    let endpoint = target.flight.endpoint();
    let opened = V::Upstream::open(pool, &target.backend, endpoint, Wanted::Spare, limits).await;
    let upstream = opened.map_err(|reason| match reason {
        Reason::TooManyConnections => Failed::Busy,
        _ => Failed::Broken,
    })?;
    let edit = Edit {
        attempt: 1,
        mesh: matches!(endpoint.security, Security::Mesh { .. }),
        path: copy.path.as_deref(),
        filters: Some(&copy.filters.request),
    };
    let sent = upstream.send(&copy.request, edit, copy.is_empty).await;
    let (mut outgoing, mut responding) = sent?;
    let there = async {
        if !copy.body.is_empty() {
            outgoing.data(copy.body.clone()).await?;
        }
        if copy.is_empty {
            outgoing.flush().await
        } else {
            outgoing.end(copy.trailers.as_ref()).await
        }
    };
    let back = async {
        while (100..200).contains(&responding.head().await?.status()) {}
        while let Chunk::Data(_) = responding.next().await? {}
        Ok::<(), Broken>(())
    };
    tokio::try_join!(there, back)?;
    V::Upstream::release(pool, outgoing, responding);
    Ok(())
}

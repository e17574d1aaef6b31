//! One proxy's stream: what it says goes to the hub, what the hub has for it
//! goes to the wire.
//!
//! A response is fetched only when the reader has room for it, so that it is
//! always the newest; at most `WINDOW` wait for their acknowledgement. A proxy
//! that says nothing for two heartbeats is disconnected, and with it its
//! socket, which may be stuck. Ends also with the caller's certificate, its
//! root, its pod, or this replica.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::{
    sync::{Notify, mpsc, watch},
    time::{Instant, sleep_until},
};
use tonic::{Status, Streaming};
use weft_proto::v1::{WatchRequest, watch_request::Message};

use crate::{
    clock::Wall,
    gate::Turn,
    serve::{
        accept::Peer,
        hub::{Batch, Hub},
        metrics::{Metrics, Reason},
        resource::{ResourceName, Version},
        stream::StreamId,
        tls::{Tls, Verified},
    },
};

/// Responses that may wait for an acknowledgement.
const WINDOW: usize = 8;

/// A response whose parts are already encoded.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) nonce: u64,
    pub(crate) parts: Vec<Bytes>,
}

pub(crate) type Outgoing = mpsc::Sender<Result<Response, Status>>;

/// What a session needs from outside, beside its stream.
#[derive(Clone, Debug)]
pub(crate) struct Context {
    pub(crate) hub: Hub,
    pub(crate) heartbeat: Duration,
    pub(crate) clock: Wall,
    pub(crate) tls: watch::Receiver<Arc<Tls>>,
    /// Whether this replica ends now.
    pub(crate) going: watch::Receiver<bool>,
    pub(crate) metrics: Metrics,
}

#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) context: Context,
    pub(crate) id: StreamId,
    pub(crate) wake: Arc<Notify>,
    pub(crate) peer: Peer,
    pub(crate) verified: Arc<Verified>,
    /// Its connection keeps its place for as long.
    _turn: Turn,
    nonce: u64,
    unacknowledged: VecDeque<Sent>,
    heard: Instant,
    heartbeat_at: Instant,
    has_work: bool,
}

#[derive(Debug)]
struct Sent {
    nonce: u64,
    at: Instant,
    content: Vec<(ResourceName, Version)>,
    since: Option<Instant>,
}

/// Why a session ends, and what the proxy is told.
struct End(Reason, Status);

impl Drop for Session {
    fn drop(&mut self) {
        let id = self.id;
        self.context.hub.tell(move |state| state.leave(id));
    }
}

impl Session {
    pub(crate) fn new(
        context: Context,
        id: StreamId,
        wake: Arc<Notify>,
        peer: Peer,
        verified: Arc<Verified>,
    ) -> Self {
        let now = Instant::now();
        Self {
            context,
            id,
            wake,
            _turn: peer.pass.begin(),
            peer,
            verified,
            nonce: 0,
            unacknowledged: VecDeque::new(),
            heard: now,
            // The first response carries one: it tells the interval.
            heartbeat_at: now,
            has_work: true,
        }
    }

    /// Until something ends it.
    pub(crate) async fn run(mut self, mut requests: Streaming<WatchRequest>, out: Outgoing) {
        let End(reason, status) = self.carry(&mut requests, &out).await;
        self.context.metrics.end(reason);
        tracing::info!(identity = %self.verified.identity, reason = reason.as_str(), detail = status.message(), "a proxy's stream ended");
        let _full_or_gone = out.try_send(Err(status));
        if reason == Reason::Silent {
            // Its writes may be stuck for as long as the kernel waits.
            self.peer.closer.close();
        }
    }

    async fn carry(&mut self, requests: &mut Streaming<WatchRequest>, out: &Outgoing) -> End {
        let expiry = self.expiry();
        let (mut tls, mut going) = (self.context.tls.clone(), self.context.going.clone());
        loop {
            let wants = (self.has_work || self.heartbeat_at <= Instant::now())
                && self.unacknowledged.len() < WINDOW;
            tokio::select! {
                biased;
                request = requests.message() => match request {
                    Ok(Some(request)) => if let Err(end) = self.take(request).await { return end },
                    Ok(None) => return End(Reason::Left, Status::ok("")),
                    Err(status) => return End(Reason::Left, status),
                },
                () = sleep_until(expiry) => {
                    return End(Reason::CertificateExpired, Status::unauthenticated("the certificate has expired"));
                }
                () = sleep_until(self.deadline()) => {
                    return End(Reason::Silent, Status::deadline_exceeded("nothing acknowledged for two heartbeats"));
                }
                Ok(()) = tls.changed() => {
                    let now_trusted = tls.borrow_and_update().verify(&self.verified.chain, self.context.clock);
                    if now_trusted.is_err() {
                        return End(Reason::RootRemoved, Status::unauthenticated("the certificate's root is no longer trusted"));
                    }
                }
                Ok(()) = going.changed() => {
                    return End(Reason::Going, Status::unavailable("this replica ends: another one serves"));
                }
                permit = out.reserve(), if wants => {
                    let Ok(permit) = permit else { return End(Reason::Left, Status::ok("")) };
                    match self.next().await {
                        Ok(Some(response)) => permit.send(Ok(response)),
                        Ok(None) => drop(permit),
                        Err(end) => return end,
                    }
                }
                () = self.wake.notified() => self.has_work = true,
                () = sleep_until(self.heartbeat_at), if self.heartbeat_at > Instant::now() => {}
            }
        }
    }

    /// Two heartbeats after its last word, when something waits for an answer.
    fn deadline(&self) -> Instant {
        let interval = self.context.heartbeat;
        match self.unacknowledged.front() {
            // Half an interval at least, so that what was just sent is no silence.
            Some(oldest) => (self.heard + 2 * interval).max(oldest.at + interval / 2),
            None => Instant::now() + 2 * interval,
        }
    }

    fn expiry(&self) -> Instant {
        let left = self
            .verified
            .expires
            .saturating_sub(self.context.clock.seconds());
        // Bounded, since tokio's clock can't hold every date.
        Instant::now() + Duration::from_secs(left.min(366 * 86_400))
    }

    async fn next(&mut self) -> Result<Option<Response>, End> {
        let (id, due) = (self.id, self.heartbeat_at <= Instant::now());
        let interval = u32::try_from(self.context.heartbeat.as_millis()).unwrap_or(u32::MAX);
        self.has_work = false;
        let asked = self
            .context
            .hub
            .ask(move |state| state.pull(id, due.then_some(interval)))
            .await;
        let Batch {
            parts,
            content,
            since,
            more,
            ended,
        } = asked
            .map_err(|stopping| End(Reason::NotReady, Status::unavailable(stopping.to_string())))?;
        if let Some(why) = ended {
            return Err(End(Reason::Revoked, Status::failed_precondition(why)));
        }
        self.has_work |= more;
        if due && !more {
            self.heartbeat_at = Instant::now() + self.context.heartbeat;
        }
        if parts.is_empty() {
            return Ok(None);
        }
        self.nonce += 1;
        self.context.metrics.pushes.inc();
        self.context
            .metrics
            .pushed_bytes
            .inc_by(parts.iter().map(|it| it.len() as u64).sum());
        self.unacknowledged.push_back(Sent {
            nonce: self.nonce,
            at: Instant::now(),
            content,
            since,
        });
        Ok(Some(Response {
            nonce: self.nonce,
            parts,
        }))
    }

    async fn take(&mut self, request: WatchRequest) -> Result<(), End> {
        self.heard = Instant::now();
        let id = self.id;
        let refused = |why: &str| End(Reason::Protocol, Status::invalid_argument(why));
        let stopping = |_| {
            End(
                Reason::NotReady,
                Status::unavailable("the control plane is stopping"),
            )
        };
        let parse = |name: Option<_>| {
            ResourceName::parse(&name.unwrap_or_default())
                .map_err(|error| refused(&error.to_string()))
        };
        match request.message {
            Some(Message::Subscribe(wanted)) => {
                let name = parse(wanted.name)?;
                let answer = self
                    .context
                    .hub
                    .ask(move |state| state.ask_for(id, name, wanted.refresh))
                    .await;
                answer.map_err(stopping)?.map_err(refused)?;
                self.has_work = true;
            }
            Some(Message::Unsubscribe(unwanted)) => {
                let name = parse(unwanted.name)?;
                self.context
                    .hub
                    .ask(move |state| state.unsubscribe(id, &name))
                    .await
                    .map_err(stopping)?;
                self.has_work = true;
            }
            Some(Message::Acknowledge(nonce)) => {
                self.acknowledged(nonce).await.map_err(stopping)?
            }
            Some(Message::Reject(reject)) => {
                let name = parse(reject.name)?;
                let rejected = move |state: &mut crate::serve::hub::State| {
                    state.reject(id, &name, reject.version, &reject.reason);
                };
                self.context.hub.ask(rejected).await.map_err(stopping)?;
                self.acknowledged(reject.nonce).await.map_err(stopping)?;
            }
            Some(Message::Hello(_)) => return Err(refused("a second hello")),
            // Of a newer proxy: nothing that we could have promised.
            None => {}
        }
        Ok(())
    }

    /// Answers settle everything up to their nonce; a stale one settles nothing.
    async fn acknowledged(&mut self, nonce: u64) -> Result<(), crate::serve::hub::Stopping> {
        let (mut content, mut since) = (Vec::new(), None);
        while let Some(sent) = self.unacknowledged.pop_front_if(|it| it.nonce <= nonce) {
            content.extend(sent.content);
            since = since.or(sent.since);
        }
        let id = self.id;
        self.context
            .hub
            .ask(move |state| state.acknowledge(id, &content, since))
            .await
    }
}

#[cfg(test)]
mod tests;

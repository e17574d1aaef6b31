//! Keeps the discovery stream: asks, applies, answers, comes back.
//!
//! One task owns the `store`; questions reach it from the workers, snapshots
//! leave it by `watch`. Loss of the stream changes nothing but its age: what is
//! held stays, questions are answered from it, and the next stream names the
//! versions held so that nothing is sent twice. Silence for two heartbeats is
//! loss, whichever side froze.

mod codec;
mod heartbeat;
mod link;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::mpsc,
    time::{Instant, sleep, sleep_until, timeout},
};

use self::link::Link;
use super::{
    Config,
    decode::{self, Key, Request, Response},
    dial::{self, Backoff, Dial, Unreachable},
    pin::Pin,
    state::State,
    store::Store,
    subscriptions::Subscriptions,
};
use crate::{
    discovery::{Health, Question, Rejected, Stream},
    tls::certs::{self, Bundle, Session},
};

/// Until a heartbeat says otherwise.
const FIRST_INTERVAL: Duration = Duration::from_secs(10);

/// Between two tries to reach the control plane.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// A burst of changes is kept once, a storm once per ten seconds.
const KEEP_AFTER: Duration = Duration::from_secs(1);
const KEEP_EVERY: Duration = Duration::from_secs(10);

/// Rejects that `/dump` shows.
const MAX_REJECTED: usize = 64;

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error(transparent)]
    Unreachable(#[from] Unreachable),
    #[error("the control plane was silent for two heartbeats")]
    Silent,
    #[error("the control plane closed the stream")]
    Closed,
    #[error("the control plane does not read what we send")]
    Stuck,
    #[error("the connection's certificate or root is at its end")]
    Retired,
}

pub(super) struct Client {
    pub(super) config: Arc<Config>,
    pub(super) dial: Dial,
    pub(super) certificates: Arc<certs::Store>,
    pub(super) health: Arc<Health>,
    pub(super) pin: Pin,
    pub(super) state: State,
    /// The roots that the control plane streamed last.
    told: Option<Bundle>,
    pub(super) store: Store,
    pub(super) questions: mpsc::Receiver<Question>,
    subscriptions: Subscriptions,
    interval: Duration,
    rejected: HashMap<Key, Rejected>,
    rejected_versions: HashMap<Key, u64>,
    /// Named by the last heartbeat in another version than is held.
    suspects: HashSet<Key>,
    keep_at: Option<Instant>,
    kept_at: Option<Instant>,
    sweep_at: Instant,
}

/// What `start` has put together.
pub(super) struct Parts {
    pub(super) config: Arc<Config>,
    pub(super) dial: Dial,
    pub(super) certificates: Arc<certs::Store>,
    pub(super) health: Arc<Health>,
    pub(super) pin: Pin,
    pub(super) state: State,
    pub(super) questions: mpsc::Receiver<Question>,
}

impl Client {
    pub(super) fn new(parts: Parts) -> Self {
        let Parts {
            config,
            dial,
            certificates,
            health,
            pin,
            state,
            questions,
        } = parts;
        let subscriptions = Subscriptions::new(config.max_subscriptions, config.idle_subscription);
        let sweep_at = Instant::now() + subscriptions.sweep_interval();
        Self {
            config,
            dial,
            certificates,
            health,
            pin,
            state,
            told: None,
            store: Store::new(),
            questions,
            subscriptions,
            interval: FIRST_INTERVAL,
            rejected: HashMap::new(),
            rejected_versions: HashMap::new(),
            suspects: HashSet::new(),
            keep_at: None,
            kept_at: None,
            sweep_at,
        }
    }

    /// Takes the configuration that an earlier life of this pod's proxy left.
    pub(super) fn restore(&mut self) {
        let kept = self.state.configuration();
        let Some(kept) = kept.and_then(|bytes| decode::response_from_bytes(&bytes)) else {
            return;
        };
        self.store.apply(kept.resources, &[]);
        let snapshot = self.store.snapshot();
        let is_ours = snapshot.workload.as_ref().is_some_and(|workload| {
            let config = &self.config;
            let is_same_life = config.pod_uid.is_empty() || workload.uid == config.pod_uid;
            workload.namespace == config.namespace && workload.pod == config.pod && is_same_life
        });
        if !is_ours {
            tracing::info!("kept configuration is another pod's");
            let all: Vec<_> = self.store.held().into_iter().map(|(key, _)| key).collect();
            return self.store.forget(&all);
        }
        self.subscriptions
            .restore(self.store.addresses(), Instant::now());
        self.health.update(|status| status.is_restored = true);
        self.report();
        tracing::info!(
            resources = self.store.held().len(),
            "kept configuration in use"
        );
    }

    /// For as long as the proxy lives.
    pub(super) async fn run(mut self) {
        let mut backoff = Backoff::default();
        loop {
            let certificates = self.certificates.clone();
            self.meanwhile(certified(&certificates)).await;
            let began = Instant::now();
            let mut was_open = false;
            let Err(end) = Box::pin(self.stream(&mut was_open)).await;
            self.health.update(|status| {
                status.stream = Stream::Idle;
                status.stream_error = Some(end.to_string());
            });
            // One that breaks at once is no better than one that can't be opened.
            if was_open && began.elapsed() >= self.interval.min(Duration::from_secs(1)) {
                backoff.reset();
            }
            self.pin.want_certificate();
            let wait = backoff.next(LONGEST_WAIT);
            tracing::warn!(%end, ?wait, was_open, "discovery stream ended");
            self.meanwhile(sleep(wait)).await;
        }
    }

    /// Waits without a stream: what is known still answers.
    async fn meanwhile<F: Future>(&mut self, future: F) -> F::Output {
        let mut future = std::pin::pin!(future);
        loop {
            tokio::select! {
                output = &mut future => return output,
                Some(question) = self.questions.recv() => {
                    let asked = self.ask(question);
                    if let Some(gone) = asked.unsubscribe {
                        self.store.forget(&[Key::Address(gone)]);
                    }
                }
                () = keep_due(self.keep_at) => self.keep(),
            }
        }
    }

    fn ask(&mut self, question: Question) -> super::subscriptions::Asked {
        self.subscriptions
            .ask(question, &self.store.snapshot(), Instant::now())
    }

    /// One stream, from dialling to its end.
    async fn stream(&mut self, was_open: &mut bool) -> Result<std::convert::Infallible, End> {
        self.health
            .update(|status| status.stream = Stream::Connecting);
        if !self.is_told() {
            // Others than were streamed hold: they are asked for again.
            self.store.forget(&[Key::TrustBundle]);
        }
        let own = self.certificates.current().certificate.clone();
        let (dial, certificates) = (self.dial.clone(), self.certificates.clone());
        let opening = dial::open(dial, certificates, self.pin.roots(&self.certificates), own);
        let (channel, session) = self.meanwhile(Box::pin(opening)).await?;
        let (mut link, requests) = Link::new(self.config.max_subscriptions);
        link.send(Request::hello(&self.config, self.store.held().into_iter()))?;
        for address in self.subscriptions.addresses() {
            link.send(Request::subscribe(&Key::Address(address), false))?;
        }
        let opening = timeout(dial::DEADLINE, codec::watch(channel, requests));
        let opened = self.meanwhile(opening).await;
        let mut responses = opened.map_err(|_| Unreachable::Timeout)??;
        self.suspects.clear();
        self.health.update(|status| {
            status.stream = Stream::Open;
            status.stream_error = None;
            status.connections += 1;
        });
        let mut silent_at = Instant::now() + 2 * self.interval;
        let certificates = self.certificates.clone();
        let mut retired = std::pin::pin!(certificates.retired(&session));
        loop {
            tokio::select! {
                response = responses.message() => {
                    let response = response.map_err(Unreachable::from)?.ok_or(End::Closed)?;
                    *was_open = true;
                    self.take(response, &mut link, &session)?;
                    silent_at = Instant::now() + 2 * self.interval;
                }
                Some(question) = self.questions.recv() => {
                    let asked = self.ask(question);
                    if let Some(address) = asked.subscribe {
                        link.send(Request::subscribe(&Key::Address(address), false))?;
                    }
                    if let Some(address) = asked.unsubscribe {
                        self.unsubscribe(address, &mut link)?;
                    }
                }
                () = sleep_until(self.sweep_at) => self.sweep(&mut link)?,
                () = keep_due(self.keep_at) => self.keep(),
                () = sleep_until(silent_at) => return Err(End::Silent),
                () = &mut retired => return Err(End::Retired),
            }
        }
    }

    fn unsubscribe(&mut self, address: std::net::SocketAddr, link: &mut Link) -> Result<(), End> {
        let key = Key::Address(address);
        link.send(Request::unsubscribe(&key))?;
        self.store.forget(&[key]);
        self.keep_soon();
        Ok(())
    }

    /// Forgets what nobody uses.
    fn sweep(&mut self, link: &mut Link) -> Result<(), End> {
        let now = Instant::now();
        self.sweep_at = now + self.subscriptions.sweep_interval();
        self.subscriptions.note_used(self.store.take_used(), now);
        for address in self.subscriptions.take_idle(now) {
            self.unsubscribe(address, link)?;
        }
        Ok(())
    }

    /// Applies one message and says what came of it.
    fn take(&mut self, response: Response, link: &mut Link, session: &Session) -> Result<(), End> {
        self.health.update(|status| {
            status.received_total += response.resources.len() as u64;
            status.heartbeats_total += u64::from(response.heartbeat.is_some());
            status.unknown_fields_total += response.unknown_fields;
        });
        if response.unknown_fields > 0 {
            let fields = response.unknown_fields;
            tracing::debug!(fields, "ignored what is newer than this proxy");
        }
        let keys: Vec<_> = response.resources.iter().map(|it| it.key.clone()).collect();
        for key in keys.iter().chain(&response.removed) {
            self.suspects.remove(key);
            self.rejected.remove(key);
            self.rejected_versions.remove(key);
        }
        let applied = self.store.apply(response.resources, &response.removed);
        if let Some(bundle) = applied.bundle {
            self.pin.learned(&bundle, session);
            self.health
                .update(|status| status.roots = bundle.roots().len());
            self.told = Some(bundle.clone());
            self.certificates.publish_bundle(bundle);
        }
        for (reject, invalid) in response.nameless {
            tracing::warn!(%invalid, "resource without a name rejected");
            link.send(reject)?;
        }
        for (key, version, invalid) in applied.rejected {
            let reason = invalid.to_string();
            tracing::warn!(%key, version, %reason, "resource rejected, the last good one stays");
            link.send(Request::reject(response.nonce, &key, version, &reason))?;
            self.health.update(|status| status.rejects_total += 1);
            self.rejected_versions.insert(key.clone(), version);
            let rejected = Rejected {
                name: key.to_string(),
                version,
                reason,
            };
            self.rejected.insert(key, rejected);
        }
        for key in applied.incomplete {
            link.send(Request::subscribe(&key, true))?;
        }
        link.send(Request::acknowledge(response.nonce))?;
        if let Some(heartbeat) = response.heartbeat {
            self.pin.look();
            if self.is_told() {
                self.pin.met(session);
            }
            self.compare(heartbeat, link)?;
        }
        if applied.is_new {
            self.keep_soon();
            self.subscriptions.answer(&self.store.snapshot());
        }
        self.report();
        self.health
            .update(|status| status.heard = Some(Instant::now()));
        Ok(())
    }

    /// Are the roots that hold those that the control plane streamed?
    fn is_told(&self) -> bool {
        self.told.as_ref() == Some(&*self.certificates.current().bundle)
    }

    /// Tells `health` what is held now.
    fn report(&self) {
        let held = self.store.held().into_iter();
        let mut held: Vec<_> = held
            .map(|(key, version)| (key.to_string(), version))
            .collect();
        held.sort();
        let mut rejected: Vec<_> = self.rejected.values().take(MAX_REJECTED).cloned().collect();
        rejected.sort_by(|one, other| one.name.cmp(&other.name));
        let is_configured = self.store.is_configured();
        self.health.update(|status| {
            status.held = held;
            status.rejected = rejected;
            status.is_configured = is_configured;
        });
    }

    fn keep_soon(&mut self) {
        let soon = Instant::now() + KEEP_AFTER;
        let next = self
            .kept_at
            .map_or(soon, |last| soon.max(last + KEEP_EVERY));
        self.keep_at = self.keep_at.or(Some(next));
    }

    fn keep(&mut self) {
        self.keep_at = None;
        self.kept_at = Some(Instant::now());
        self.state.keep_configuration(&self.store.to_bytes());
    }
}

/// Resolves when the discovery stream can be opened at all.
async fn certified(certificates: &certs::Store) {
    let mut changes = certificates.subscribe();
    while !certificates.is_certified() {
        // An expired certificate comes back by a change as well.
        if changes.changed().await.is_err() {
            return;
        }
    }
}

async fn keep_due(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

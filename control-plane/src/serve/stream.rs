//! What the hub knows of one proxy's stream: what it subscribes to, what it was
//! sent, what it has yet to get.
//!
//! The pending set holds names, latest wins, and is bounded by what the proxy
//! subscribes to: a slow reader costs memory for that, never a queue. Plain
//! data; `hub` moves it, `session` carries what it gives to the wire.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Weak},
};

use tokio::{sync::Notify, time::Instant};

use crate::{
    model::Name,
    serve::{
        render::View,
        resource::{ResourceName, Version},
        shelf::Closure,
        tls::Signed,
    },
};

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct StreamId(pub(crate) u64);

/// Who opened a stream, proved by certificate and index.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    pub(crate) pod: Name,
    pub(crate) uid: String,
    pub(crate) service_account: String,
    pub(crate) identity: String,
    pub(crate) version: String,
    pub(crate) features: Vec<String>,
    pub(crate) signed: Signed,
    /// When the certificate ends; seconds since the epoch.
    pub(crate) expires: u64,
}

#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) caller: Caller,
    pub(crate) view: View,
    /// Lives as long as the session; wakes it when there is something to send.
    pub(crate) wake: Weak<Notify>,
    /// What was asked for, with what each brings along.
    pub(crate) asked: HashMap<ResourceName, Closure>,
    pub(crate) interests: BTreeMap<ResourceName, Interest>,
    /// What the proxy said that it holds and has not subscribed to yet.
    pub(crate) held: HashMap<ResourceName, Version>,
    /// To be sent, and since when it is another; `None`: it was asked for.
    pub(crate) pending: BTreeMap<ResourceName, Option<Instant>>,
    pub(crate) removed: BTreeSet<ResourceName>,
    pub(crate) rejects: BTreeMap<ResourceName, Rejected>,
    /// Why the session has to end.
    pub(crate) ended: Option<&'static str>,
    pub(crate) since: Instant,
    pub(crate) heard: Instant,
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Interest {
    /// How many of the asked-for names bring it along.
    pub(crate) references: u32,
    /// 0: nothing.
    pub(crate) sent: Version,
    pub(crate) acknowledged: Version,
}

#[derive(Clone, Debug)]
pub(crate) struct Rejected {
    pub(crate) version: Version,
    pub(crate) reason: String,
    pub(crate) at: Instant,
}

impl Stream {
    pub(crate) fn new(
        caller: Caller,
        view: View,
        wake: &Arc<Notify>,
        held: HashMap<ResourceName, Version>,
    ) -> Self {
        let now = Instant::now();
        Self {
            caller,
            view,
            wake: Arc::downgrade(wake),
            asked: HashMap::new(),
            interests: BTreeMap::new(),
            held,
            pending: BTreeMap::new(),
            removed: BTreeSet::new(),
            rejects: BTreeMap::new(),
            ended: None,
            since: now,
            heard: now,
        }
    }

    /// The session has to look again.
    pub(crate) fn wake(&self) {
        if let Some(wake) = self.wake.upgrade() {
            wake.notify_one();
        }
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.wake.strong_count() == 0
    }

    pub(crate) fn end(&mut self, why: &'static str) {
        self.ended.get_or_insert(why);
        self.wake();
    }

    pub(crate) fn mark(&mut self, name: &ResourceName, since: Option<Instant>) {
        if self.interests.contains_key(name) {
            self.pending.entry(name.clone()).or_insert(since);
            self.wake();
        }
    }

    /// One more of the asked-for names needs it.
    pub(crate) fn acquire(&mut self, name: &ResourceName, newest: Version) {
        let is_new = !self.interests.contains_key(name);
        let held = if is_new {
            self.held.remove(name).unwrap_or(0)
        } else {
            0
        };
        let fresh = Interest {
            references: 0,
            sent: held,
            acknowledged: held,
        };
        let interest = self.interests.entry(name.clone()).or_insert(fresh);
        interest.references += 1;
        if interest.sent != newest {
            self.mark(name, None);
        }
        self.removed.remove(name);
    }

    /// One fewer needs it. True when that was the last.
    pub(crate) fn release(&mut self, name: &ResourceName) -> bool {
        let Some(interest) = self.interests.get_mut(name) else {
            return false;
        };
        interest.references -= 1;
        if interest.references > 0 {
            return false;
        }
        if interest.sent != 0 {
            self.removed.insert(name.clone());
        }
        self.interests.remove(name);
        self.pending.remove(name);
        self.rejects.remove(name);
        self.wake();
        true
    }

    /// The proxy applied these.
    pub(crate) fn acknowledge(&mut self, applied: &[(ResourceName, Version)]) {
        self.heard = Instant::now();
        for (name, version) in applied {
            // What it rejected it did not apply, whatever it says of the rest.
            if self
                .rejects
                .get(name)
                .is_some_and(|it| it.version == *version)
            {
                continue;
            }
            if let Some(interest) = self.interests.get_mut(name) {
                interest.acknowledged = *version;
                self.rejects.remove(name);
            }
        }
    }

    /// The proxy kept what it had before.
    pub(crate) fn reject(&mut self, name: &ResourceName, version: Version, reason: &str) {
        self.heard = Instant::now();
        let Some(interest) = self.interests.get_mut(name) else {
            return;
        };
        // The next change goes out whole: it can't build on what was rejected.
        if interest.sent == version {
            interest.sent = 0;
        }
        let reason = reason.chars().take(LONGEST_REASON).collect();
        self.rejects.insert(
            name.clone(),
            Rejected {
                version,
                reason,
                at: Instant::now(),
            },
        );
    }
}

const LONGEST_REASON: usize = 300;

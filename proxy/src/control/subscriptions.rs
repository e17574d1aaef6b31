//! Which addresses we keep up to date, and who waits for an answer.
//!
//! `client` asks it what to subscribe to and tells it what snapshots know.
//! Bounded: when it is full, the address that was used longest ago goes. Pure
//! but for the clock, which is an argument.

use std::{collections::HashMap, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{sync::oneshot, time::Instant};

use crate::discovery::{Question, Snapshot};

/// Who may wait for one address; more get no answer.
const MAX_WAITING: usize = 1024;

type Reply = oneshot::Sender<Arc<Snapshot>>;

#[derive(Debug)]
pub(super) struct Subscriptions {
    max: usize,
    idle: Duration,
    addresses: HashMap<SocketAddr, Subscription>,
}

#[derive(Debug)]
struct Subscription {
    used: Instant,
    waiting: Vec<Reply>,
}

/// What a question changes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) subscribe: Option<SocketAddr>,
    /// To make place.
    pub(super) unsubscribe: Option<SocketAddr>,
}

impl Subscriptions {
    pub(super) fn new(max: usize, idle: Duration) -> Self {
        Self {
            max: max.max(1),
            idle,
            addresses: HashMap::new(),
        }
    }

    pub(super) fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.addresses.keys().copied()
    }

    pub(super) fn contains(&self, address: SocketAddr) -> bool {
        self.addresses.contains_key(&address)
    }

    /// From an earlier life; as if it were used now.
    pub(super) fn restore(&mut self, addresses: impl Iterator<Item = SocketAddr>, now: Instant) {
        for address in addresses.take(self.max) {
            self.addresses.insert(
                address,
                Subscription {
                    used: now,
                    waiting: Vec::new(),
                },
            );
        }
    }

    /// Answers at once what `snapshot` knows, and remembers the rest.
    pub(super) fn ask(
        &mut self,
        question: Question,
        snapshot: &Arc<Snapshot>,
        now: Instant,
    ) -> Asked {
        let Question { address, reply } = question;
        let is_known = snapshot.addresses.contains_key(&address);
        let mut asked = Asked::default();
        if !self.addresses.contains_key(&address) {
            if self.addresses.len() >= self.max {
                asked.unsubscribe = self.least_used();
            }
            if let Some(gone) = asked.unsubscribe {
                self.addresses.remove(&gone);
            }
            asked.subscribe = Some(address);
        }
        let subscription = self.addresses.entry(address);
        let subscription = subscription.or_insert_with(|| Subscription {
            used: now,
            waiting: Vec::new(),
        });
        subscription.used = now;
        if is_known {
            // Whoever asked may be gone.
            let _ = reply.send(snapshot.clone());
            return asked;
        }
        subscription.waiting.retain(|reply| !reply.is_closed());
        if subscription.waiting.len() < MAX_WAITING {
            subscription.waiting.push(reply);
        }
        asked
    }

    fn least_used(&self) -> Option<SocketAddr> {
        let all = self.addresses.iter();
        all.min_by_key(|(_, it)| it.used)
            .map(|(address, _)| *address)
    }

    /// Tells those who waited for what `snapshot` now knows.
    pub(super) fn answer(&mut self, snapshot: &Arc<Snapshot>) {
        for (address, it) in &mut self.addresses {
            if !it.waiting.is_empty() && snapshot.addresses.contains_key(address) {
                for reply in std::mem::take(&mut it.waiting) {
                    // Whoever asked may be gone.
                    let _ = reply.send(snapshot.clone());
                }
            }
        }
    }

    pub(super) fn note_used(&mut self, used: impl Iterator<Item = SocketAddr>, now: Instant) {
        for address in used {
            if let Some(it) = self.addresses.get_mut(&address) {
                it.used = now;
            }
        }
    }

    /// Those that nobody has used for the idle time; they are forgotten.
    pub(super) fn take_idle(&mut self, now: Instant) -> Vec<SocketAddr> {
        let is_idle = |it: &Subscription| now.saturating_duration_since(it.used) >= self.idle;
        let idle = self.addresses.iter().filter(|(_, it)| is_idle(it));
        let idle: Vec<_> = idle.map(|(address, _)| *address).collect();
        for address in &idle {
            self.addresses.remove(address);
        }
        idle
    }

    /// How often to look for idle ones.
    pub(super) fn sweep_interval(&self) -> Duration {
        (self.idle / 4).max(Duration::from_secs(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discovery::Meaning;

    const IDLE: Duration = Duration::from_secs(600);

    fn at(last: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, last], 80))
    }

    fn question(last: u8) -> (Question, oneshot::Receiver<Arc<Snapshot>>) {
        let (reply, answer) = oneshot::channel();
        (
            Question {
                address: at(last),
                reply,
            },
            answer,
        )
    }

    fn knowing(last: u8) -> Arc<Snapshot> {
        let addresses = [(at(last), Meaning::Unknown.into())].into();
        Arc::new(Snapshot {
            revision: 7,
            addresses,
            ..Snapshot::default()
        })
    }

    #[tokio::test(start_paused = true)]
    async fn a_question_subscribes_once_and_is_answered_by_the_snapshot_that_knows() {
        let mut it = Subscriptions::new(10, IDLE);
        let empty = Arc::default();
        let (first, mut one) = question(1);
        assert_eq!(it.ask(first, &empty, Instant::now()).subscribe, Some(at(1)));
        let (second, mut two) = question(1);
        assert_eq!(it.ask(second, &empty, Instant::now()), Asked::default());
        it.answer(&knowing(2));
        assert!(one.try_recv().is_err());
        it.answer(&knowing(1));
        assert_eq!(one.try_recv().unwrap().revision, 7);
        assert_eq!(two.try_recv().unwrap().revision, 7);
        let (third, mut three) = question(1);
        it.ask(third, &knowing(1), Instant::now());
        assert_eq!(three.try_recv().unwrap().revision, 7);
    }

    #[tokio::test(start_paused = true)]
    async fn the_least_used_makes_place() {
        let mut it = Subscriptions::new(2, IDLE);
        for last in [1, 2] {
            it.ask(question(last).0, &Arc::default(), Instant::now());
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        it.note_used([at(1)].into_iter(), Instant::now());
        let asked = it.ask(question(3).0, &Arc::default(), Instant::now());
        assert_eq!(
            asked,
            Asked {
                subscribe: Some(at(3)),
                unsubscribe: Some(at(2))
            }
        );
        assert_eq!(it.addresses().count(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_uses_is_forgotten() {
        let mut it = Subscriptions::new(10, IDLE);
        for last in [1, 2] {
            it.ask(question(last).0, &Arc::default(), Instant::now());
        }
        tokio::time::advance(IDLE / 2).await;
        it.note_used([at(2)].into_iter(), Instant::now());
        assert!(it.take_idle(Instant::now()).is_empty());
        tokio::time::advance(IDLE / 2).await;
        assert_eq!(it.take_idle(Instant::now()), [at(1)]);
        assert!(it.contains(at(2)) && !it.contains(at(1)));
    }
}

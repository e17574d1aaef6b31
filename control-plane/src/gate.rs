//! Who may stay connected when not everybody can.
//!
//! Ground of every listening port. A place that nobody can take any more would
//! let silent connections keep all others out, so accepting never waits: where
//! all places are taken, somebody who has asked nothing gives way. Whoever has
//! most of those loses first, so that one address floods itself alone. Whoever
//! is being answered stays.
//!
//! No I/O: callers close what they are told to.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::sync::Notify;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Places altogether.
    pub(crate) most: usize,
    /// Places of one address.
    pub(crate) most_of_one: usize,
    /// Places of those that may have to give way.
    pub(crate) most_waiting: usize,
}

#[derive(Clone, Debug)]
pub(crate) struct Gate {
    limits: Limits,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    last: u64,
    taken: usize,
    /// Places by address; a unix socket has none.
    sources: HashMap<IpAddr, usize>,
    /// Who may have to give way, the longest waiting first.
    waiting: BTreeMap<u64, Waiting>,
}

#[derive(Debug)]
struct Waiting {
    source: Option<IpAddr>,
    has_asked: bool,
    end: Arc<End>,
}

/// Shared by a pass and whoever waits for its end.
#[derive(Debug, Default)]
struct End {
    /// Its place is somebody else's.
    is_evicted: AtomicBool,
    told: Notify,
}

/// A place. Dropping it gives it back.
#[derive(Debug)]
pub(crate) struct Pass {
    gate: Gate,
    source: Option<IpAddr>,
    end: Arc<End>,
    place: Mutex<Place>,
}

/// What keeps a pass from giving way.
#[derive(Debug)]
struct Place {
    /// Its number among those that wait; 0: it doesn't.
    waits_as: u64,
    /// Questions under way.
    turns: usize,
    is_kept: bool,
}

impl Gate {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            state: Arc::default(),
        }
    }

    /// A place, perhaps another's. `None`: everybody who has one is busy.
    pub(crate) fn enter(&self, source: Option<IpAddr>) -> Option<Pass> {
        let source = source.map(|it| it.to_canonical());
        let mut state = self.state();
        let of_one = source.and_then(|it| state.sources.get(&it).copied());
        if of_one.unwrap_or_default() >= self.limits.most_of_one {
            state.evict(|it| it.source == source)?;
        }
        if state.taken >= self.limits.most || state.waiting.len() >= self.limits.most_waiting {
            state.evict(|_| true)?;
        }
        let end = Arc::<End>::default();
        state.taken += 1;
        if let Some(source) = source {
            *state.sources.entry(source).or_default() += 1;
        }
        let number = state.wait(source, false, &end);
        Some(Pass {
            gate: self.clone(),
            source,
            end,
            place: Mutex::new(Place {
                waits_as: number,
                turns: 0,
                is_kept: false,
            }),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn wait(&mut self, source: Option<IpAddr>, has_asked: bool, end: &Arc<End>) -> u64 {
        self.last += 1;
        let waiting = Waiting {
            source,
            has_asked,
            end: end.clone(),
        };
        self.waiting.insert(self.last, waiting);
        self.last
    }

    /// `None`: nobody may be.
    fn evict(&mut self, among: impl Fn(&Waiting) -> bool) -> Option<()> {
        let first = |has_asked: bool| {
            let candidates = || {
                let all = self.waiting.iter();
                all.filter(|(_, it)| it.has_asked == has_asked && among(it))
            };
            let mut counts: HashMap<Option<IpAddr>, usize> = HashMap::new();
            for (_, it) in candidates() {
                *counts.entry(it.source).or_default() += 1;
            }
            let most = |source| Reverse(counts.get(source).copied().unwrap_or_default());
            candidates()
                .min_by_key(|(number, it)| (most(&it.source), **number))
                .map(|(number, _)| *number)
        };
        let number = first(false).or_else(|| first(true))?;
        let evicted = self.waiting.remove(&number)?;
        self.give_back(evicted.source);
        evicted.end.is_evicted.store(true, Ordering::Release);
        evicted.end.told.notify_one();
        Some(())
    }

    fn give_back(&mut self, source: Option<IpAddr>) {
        self.taken = self.taken.saturating_sub(1);
        let Some(source) = source else { return };
        if let Some(count) = self.sources.get_mut(&source) {
            *count -= 1;
            if *count == 0 {
                self.sources.remove(&source);
            }
        }
    }
}

impl Pass {
    /// Whose it is; a unix socket's is nobody's.
    pub(crate) const fn source(&self) -> Option<IpAddr> {
        self.source
    }

    /// From now on it need not give way.
    pub(crate) fn keep(&self) {
        let mut state = self.gate.state();
        let mut place = self.place();
        place.is_kept = true;
        state.waiting.remove(&place.waits_as);
        place.waits_as = 0;
    }

    /// It need not give way until the answer is there; of several, the last.
    pub(crate) fn begin(self: &Arc<Self>) -> Turn {
        let mut state = self.gate.state();
        let mut place = self.place();
        place.turns += 1;
        state.waiting.remove(&place.waits_as);
        place.waits_as = 0;
        Turn(self.clone())
    }

    /// Waits for its end: it has to give way, or was given back.
    pub(crate) fn ended(&self) -> impl Future<Output = ()> + Send + 'static {
        let end = self.end.clone();
        async move { end.told.notified().await }
    }

    fn place(&self) -> MutexGuard<'_, Place> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let mut state = self.gate.state();
        if !self.end.is_evicted.load(Ordering::Acquire) {
            state.waiting.remove(&self.place().waits_as);
            state.give_back(self.source);
        }
        self.end.told.notify_one();
    }
}

/// A question under way.
#[derive(Debug)]
pub(crate) struct Turn(Arc<Pass>);

impl Drop for Turn {
    fn drop(&mut self) {
        let pass = &self.0;
        let mut state = pass.gate.state();
        let mut place = pass.place();
        place.turns -= 1;
        let is_idle = place.turns == 0 && !place.is_kept;
        if is_idle && !pass.end.is_evicted.load(Ordering::Acquire) {
            place.waits_as = state.wait(pass.source, true, &pass.end);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn gate(most: usize, most_of_one: usize) -> Gate {
        Gate::new(Limits {
            most,
            most_of_one,
            most_waiting: most,
        })
    }

    fn from(gate: &Gate, last: u8) -> Option<Arc<Pass>> {
        let source = IpAddr::from([10, 0, 0, last]);
        gate.enter(Some(source)).map(Arc::new)
    }

    fn has_ended(pass: &Pass) -> bool {
        pass.ended().now_or_never().is_some()
    }

    #[test]
    fn whoever_has_asked_nothing_for_longest_gives_way() {
        let gate = gate(3, 3);
        let asked = from(&gate, 1).unwrap();
        drop(asked.begin());
        let (second, third) = (from(&gate, 2).unwrap(), from(&gate, 3).unwrap());
        let fourth = from(&gate, 4).unwrap();
        assert!(has_ended(&second) && !has_ended(&asked) && !has_ended(&third));
        // Who was told to go has no place to give back.
        drop((second, third, fourth));
        let _two = [from(&gate, 5).unwrap(), from(&gate, 6).unwrap()];
        assert!(!has_ended(&asked));
        let _three = from(&gate, 7).unwrap();
        assert!(!has_ended(&asked), "others have asked nothing");
    }

    #[test]
    fn whoever_is_being_answered_stays_and_then_gives_way_last() {
        let gate = gate(2, 2);
        let (one, other) = (from(&gate, 1).unwrap(), from(&gate, 2).unwrap());
        let turns = (one.begin(), other.begin());
        assert!(from(&gate, 3).is_none(), "everybody is busy");
        drop(turns.0);
        let third = from(&gate, 3).unwrap();
        assert!(has_ended(&one) && !has_ended(&other));
        third.keep();
        assert!(from(&gate, 4).is_none());
        drop(third);
        assert!(from(&gate, 4).is_some());
    }

    #[test]
    fn of_several_questions_the_last_answer_counts() {
        let gate = gate(1, 1);
        let busy = from(&gate, 1).unwrap();
        let turns = (busy.begin(), busy.begin());
        drop(turns.0);
        assert!(from(&gate, 2).is_none());
        drop(turns.1);
        assert!(from(&gate, 2).is_some() && has_ended(&busy));
    }

    #[test]
    fn an_address_that_floods_pushes_out_itself_alone() {
        let gate = gate(4, 3);
        let quiet = from(&gate, 1).unwrap();
        let mut flood: Vec<_> = (0..3).map(|_| from(&gate, 2).unwrap()).collect();
        for _ in 0..10 {
            flood.push(from(&gate, 2).unwrap());
        }
        let late = from(&gate, 3).unwrap();
        flood.push(from(&gate, 2).unwrap());
        assert!(!has_ended(&quiet) && !has_ended(&late));
        assert_eq!(flood.iter().filter(|it| !has_ended(it)).count(), 2);
    }

    #[test]
    fn an_address_has_its_places_and_no_more() {
        let gate = gate(10, 2);
        let held = [from(&gate, 1).unwrap(), from(&gate, 1).unwrap()];
        held.iter().for_each(|it| it.keep());
        assert!(from(&gate, 1).is_none());
        assert!(from(&gate, 2).is_some());
        drop(held);
        assert!(from(&gate, 1).is_some());
    }
}

//! Whose question the API server is asked next.
//!
//! Part of `review`. Anybody who reaches the port can send what looks like a
//! token, so that turns are shared by address: of one there are at most `OF_ONE`
//! in the line, and the line is served in order. Who floods waits for itself;
//! everybody else waits for no more than a few of each address.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

/// Of one replica's questions; an API server has others to serve.
pub(super) const AT_ONCE: usize = 32;
/// Of one address. A node that hides its pods behind one has a few hundred
/// proxies, and a question takes milliseconds.
pub(super) const OF_ONE: usize = AT_ONCE / 4;

type Source = Option<IpAddr>;

pub(super) struct Turns {
    line: Semaphore,
    /// Of addresses that ask now.
    shares: Mutex<HashMap<Source, Arc<Semaphore>>>,
}

/// Dropping it lets the next one ask.
pub(super) struct Turn<'a> {
    _of_line: SemaphorePermit<'a>,
    _share: Share<'a>,
}

/// A source that asks or waits.
struct Share<'a> {
    turns: &'a Turns,
    source: Source,
    permit: Option<OwnedSemaphorePermit>,
}

impl Turns {
    pub(super) fn new() -> Self {
        Self {
            line: Semaphore::new(AT_ONCE),
            shares: Mutex::default(),
        }
    }

    /// `None`: there are none any more.
    pub(super) async fn take(&self, source: Source) -> Option<Turn<'_>> {
        let share = self.shares().entry(source).or_insert_with(of_one).clone();
        // Before any wait: who gives up leaves nothing behind.
        let mut mine = Share {
            turns: self,
            source,
            permit: None,
        };
        mine.permit = Some(share.acquire_owned().await.ok()?);
        let of_line = self.line.acquire().await.ok()?;
        Some(Turn {
            _of_line: of_line,
            _share: mine,
        })
    }

    fn shares(&self) -> MutexGuard<'_, HashMap<Source, Arc<Semaphore>>> {
        self.shares.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn of_one() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(OF_ONE))
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        self.permit = None;
        let mut shares = self.turns.shares();
        // Taken under this lock alone: nobody else has it, nobody else will.
        if shares
            .get(&self.source)
            .is_some_and(|it| Arc::strong_count(it) == 1)
        {
            shares.remove(&self.source);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt, future::join_all};

    use super::*;

    fn from(last: u8) -> Source {
        Some([10, 0, 0, last].into())
    }

    #[tokio::test]
    async fn an_address_that_floods_waits_for_itself_alone() {
        let turns = Turns::new();
        let flood = (0..OF_ONE).map(|_| turns.take(from(1)));
        let mut held: Vec<_> = join_all(flood).await;
        let mut late = Box::pin(turns.take(from(1)));
        assert!(late.as_mut().now_or_never().is_none());
        assert!(turns.take(from(2)).now_or_never().is_some());
        held.pop();
        assert!(late.as_mut().now_or_never().is_some());
    }

    #[tokio::test]
    async fn there_is_one_line_for_all() {
        let turns = Turns::new();
        let most = u8::try_from(AT_ONCE).unwrap();
        let mut held = join_all((0..most).map(|it| turns.take(from(it)))).await;
        let mut late = Box::pin(turns.take(from(most)));
        assert!(late.as_mut().now_or_never().is_none());
        held.pop();
        assert!(late.as_mut().now_or_never().is_some());
    }

    #[tokio::test]
    async fn nothing_is_kept_of_who_has_asked_or_given_up() {
        let turns = Turns::new();
        let held = join_all((0..OF_ONE).map(|_| turns.take(from(1)))).await;
        let mut late = Box::pin(turns.take(from(1)));
        assert!(late.as_mut().now_or_never().is_none());
        drop(held);
        assert_eq!(turns.shares().len(), 1);
        drop(late);
        assert_eq!(turns.shares().len(), 0);
        drop(turns.take(from(2)).await);
        assert_eq!(turns.shares().len(), 0);
    }
}

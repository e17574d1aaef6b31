//! How long to wait before what died is started again.
//!
//! Longer each time, so that what can't live doesn't keep a machine busy; from
//! the beginning again once it has lived for a while.

use std::time::Duration;

use tokio::time::Instant;

const FIRST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(10);
/// Who lived so long did not die of its start.
const STEADY: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(crate) struct Restart {
    started: Instant,
    next: Duration,
}

impl Restart {
    /// Of what is being started for the first time.
    pub(crate) fn new() -> Self {
        Self {
            started: Instant::now(),
            next: FIRST,
        }
    }

    /// How long to wait, now that it died or could not be started.
    pub(crate) fn pause(&mut self) -> Duration {
        if self.started.elapsed() >= STEADY {
            self.next = FIRST;
        }
        let pause = self.next;
        self.next = (pause * 2).min(LONGEST);
        self.started = Instant::now() + pause;
        pause
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn pauses_grow_until_it_has_lived_for_a_while() {
        let mut restart = Restart::new();
        let pauses: Vec<_> = (0..8).map(|_| restart.pause().as_millis()).collect();
        assert_eq!(pauses, [200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
        // It is started at the end of the pause, not at its beginning.
        advance(STEADY).await;
        assert_eq!(restart.pause(), LONGEST);
        advance(LONGEST + STEADY).await;
        assert_eq!(restart.pause(), FIRST);
    }
}

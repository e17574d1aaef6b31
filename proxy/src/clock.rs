//! Wall-clock time as a value that tests can replace.
//!
//! Ground. Everything that waits uses tokio's clock; only certificates, tokens
//! and log lines need to know the date.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

/// Tells the date. A fixed one moves with tokio's clock, so that certificates
/// expire under a paused clock.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) enum Wall {
    #[default]
    System,
    #[cfg_attr(not(test), allow(dead_code, reason = "only tests set the date"))]
    Fixed { at: Duration, since: Instant },
}

impl Wall {
    /// Time since the Unix epoch; zero when the system's date is before it.
    pub(crate) fn now(&self) -> Duration {
        match self {
            #[allow(clippy::disallowed_methods, reason = "this is the one place that asks")]
            Self::System => SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default(),
            Self::Fixed { at, since } => *at + since.elapsed(),
        }
    }

    #[cfg(test)]
    /// A clock for tests that now shows `at` and follows tokio's clock from there.
    pub(crate) fn fixed(at: Duration) -> Self {
        Self::Fixed {
            at,
            since: Instant::now(),
        }
    }
}

/// The moment from which cells that workers share count their milliseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Epoch(Instant);

impl Epoch {
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    /// Milliseconds since the start, at least 1: 0 is left to mean "never".
    pub(crate) fn milliseconds(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.0).as_millis();
        u64::try_from(since).unwrap_or(u64::MAX).max(1)
    }
}

//! Wall-clock time as a value that tests can replace.
//!
//! Ground. Everything that waits uses tokio's clock; only certificates, tokens
//! and reports need to know the date.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

/// Tells the date. A fixed one moves with tokio's clock, so that certificates
/// expire under a paused clock.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) enum Wall {
    #[default]
    System,
    #[allow(dead_code, reason = "the seam for tests")]
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

    /// A clock for tests that now shows `at` and follows tokio's clock from there.
    #[allow(dead_code, reason = "the seam for tests")]
    pub(crate) fn fixed(at: Duration) -> Self {
        Self::Fixed {
            at,
            since: Instant::now(),
        }
    }

    /// Whole seconds since the Unix epoch.
    pub(crate) fn seconds(&self) -> u64 {
        self.now().as_secs()
    }
}

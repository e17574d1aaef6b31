//! Bounded waiting for something that a test can only look at.
//!
//! For what sends no event: a port of another program, a file, a counter of a
//! proxy. Never waits longer than it must, and never in vain without saying
//! what for.

use std::{thread, time::Duration};

use tokio::time::Instant;

/// No wait of a test is longer; generous, since machines are loaded.
pub const PATIENCE: Duration = Duration::from_secs(20);

const PAUSE: Duration = Duration::from_millis(3);

/// Looks until there is something.
///
/// # Panics
/// After [`PATIENCE`], naming `what`.
#[track_caller]
pub fn until<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    within(PATIENCE, look).unwrap_or_else(|| panic!("waited {PATIENCE:?} in vain for {what}"))
}

/// Times a round until one is within `limit`: a loaded machine makes any single
/// one late, what is late each time is late by itself.
///
/// # Panics
/// When none of five is.
#[track_caller]
pub fn prompt(limit: Duration, mut round: impl FnMut() -> Duration) {
    let mut times = Vec::new();
    while times.len() < 5 {
        times.push(round());
        if times.last().is_some_and(|it| *it < limit) {
            return;
        }
    }
    panic!("never within {limit:?}: {times:?}");
}

/// Looks until there is something, or the time is over.
pub fn within<T>(patience: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + patience;
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if Instant::now() >= end {
            return None;
        }
        thread::park_timeout(PAUSE);
    }
}

//! Counts against limits, and the retry budget.
//!
//! Called by `upstream::queue` (limits) and `http::exchange` (budget). Waiting
//! is not here: see `upstream::queue`.
//!
//! Pure over the cells that workers share: `now` is an argument, no lock, no
//! wait. Limits are exact over workers. The budget never grants more than it
//! has, and under a race may refuse one that it had.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::discovery::Backend;

/// Counts one more unless `limit` are there. Sequentially consistent: the
/// queue's proof against lost wake-ups needs one order of both its counters.
pub(crate) fn take(counter: &AtomicU32, limit: Option<u32>) -> bool {
    let limit = limit.unwrap_or(u32::MAX);
    let more = |count: u32| (count < limit).then(|| count + 1);
    counter
        .fetch_update(Ordering::SeqCst, Ordering::SeqCst, more)
        .is_ok()
}

/// Counts a request (not its retries) towards the retry budget.
pub(crate) fn deposit(backend: &Backend, now_ms: u64) {
    add(&backend.cells.budget.requests, now_ms / 1000);
}

/// Takes one retry from the budget; false when it is spent.
pub(crate) fn withdraw(backend: &Backend, now_ms: u64) -> bool {
    let (second, budget) = (now_ms / 1000, &backend.cells.budget);
    // Counted before it is asked, so that two workers can't both take the last.
    add(&budget.retries, second);
    let is_granted = sum(&budget.retries, second) <= granted(backend, second);
    if !is_granted {
        subtract(&budget.retries, second);
    }
    is_granted
}

/// Retries that the budget still grants.
pub(crate) fn remaining(backend: &Backend, now_ms: u64) -> u32 {
    let second = now_ms / 1000;
    let left = granted(backend, second).saturating_sub(sum(&backend.cells.budget.retries, second));
    u32::try_from(left).unwrap_or(u32::MAX)
}

/// The window in seconds, the running one included; one cell each.
const WINDOW: u64 = 10;

fn granted(backend: &Backend, second: u64) -> u64 {
    let retries = &backend.policy.retries;
    let requests = sum(&backend.cells.budget.requests, second);
    requests * u64::from(retries.budget_percent) / 100
        + u64::from(retries.budget_minimum_per_second) * WINDOW
}

type Cells = [AtomicU64; WINDOW as usize];

fn cell(cells: &Cells, second: u64) -> Option<&AtomicU64> {
    cells.get(usize::try_from(second % WINDOW).ok()?)
}

/// Starts the cell anew when it is of an earlier round. A worker whose clock
/// lags counts in the newer second: nothing is lost.
fn add(cells: &Cells, second: u64) {
    let next = |word: u64| {
        let (of, count) = unpack(word);
        Some(if of >= second {
            pack(of, count.saturating_add(1))
        } else {
            pack(second, 1)
        })
    };
    let _ = cell(cells, second)
        .map(|cell| cell.fetch_update(Ordering::AcqRel, Ordering::Acquire, next));
}

/// Undoes an `add` of the same second, unless the cell has begun another.
fn subtract(cells: &Cells, second: u64) {
    let next = |word: u64| {
        let (of, count) = unpack(word);
        (of == second && count > 0).then(|| pack(of, count - 1))
    };
    let _ = cell(cells, second)
        .map(|cell| cell.fetch_update(Ordering::AcqRel, Ordering::Acquire, next));
}

fn sum(cells: &Cells, second: u64) -> u64 {
    let of_window = |cell: &AtomicU64| {
        let (of, count) = unpack(cell.load(Ordering::Acquire));
        if of + WINDOW > second {
            u64::from(count)
        } else {
            0
        }
    };
    cells.iter().map(of_window).sum()
}

/// 136 years of seconds.
fn pack(second: u64, count: u32) -> u64 {
    second << 32 | u64::from(count)
}

fn unpack(word: u64) -> (u64, u32) {
    (word >> 32, word as u32)
}

#[cfg(test)]
mod tests;

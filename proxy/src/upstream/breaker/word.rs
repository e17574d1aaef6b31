//! An endpoint's state in one word: how it is packed, and how long ejections last.
//!
//! `breaker` decides; nothing here changes a cell but `replace`, and that only
//! when the word is still the one that was read.

use std::{sync::atomic::Ordering, time::Duration};

use crate::{
    discovery::{CircuitBreaking, EndpointCells},
    upstream::breaker::State,
};

/// Of the ejection after so many in a row.
pub(super) fn duration(rule: &CircuitBreaking, ejections: u32) -> u64 {
    let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let grown = milliseconds(rule.base_ejection).saturating_mul(1 << ejections.min(40));
    grown
        .min(milliseconds(rule.max_ejection))
        .min(Word::LATEST_MS / 2)
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Phase {
    In,
    Out,
    Probing,
}

/// The cell's contents.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Word {
    pub(super) phase: Phase,
    /// 6 bits: in a row; the next one lasts longer.
    pub(super) ejections: u32,
    /// 16 bits: in a row.
    pub(super) failures: u32,
    /// 40 bits: when an ejection ends, or since when it is in again.
    pub(super) time_ms: u64,
}

impl Word {
    pub(super) const MOST_FAILURES: u32 = (1 << 16) - 1;
    pub(super) const MOST_EJECTIONS: u32 = (1 << 6) - 1;
    /// 34 years.
    pub(super) const LATEST_MS: u64 = (1 << 40) - 1;
    pub(super) const PROBING: u64 = 1 << 62;

    pub(super) fn state(self) -> State {
        match self.phase {
            Phase::In => State::In {
                failures: self.failures,
            },
            Phase::Out => State::Ejected {
                until_ms: self.time_ms,
            },
            Phase::Probing => State::Probing,
        }
    }

    pub(super) fn is_due(self, now_ms: u64) -> bool {
        self.phase == Phase::Out && self.time_ms <= now_ms
    }

    pub(super) fn ejected(self, rule: &CircuitBreaking, now_ms: u64) -> Self {
        Self {
            phase: Phase::Out,
            ejections: (self.ejections + 1).min(Self::MOST_EJECTIONS),
            failures: 0,
            time_ms: now_ms.saturating_add(duration(rule, self.ejections)),
        }
    }

    pub(super) fn pack(self) -> u64 {
        let phase = match self.phase {
            Phase::In => 0,
            Phase::Out => EndpointCells::OUT,
            Phase::Probing => EndpointCells::OUT | Self::PROBING,
        };
        phase
            | u64::from(self.ejections) << 56
            | u64::from(self.failures) << 40
            | self.time_ms.min(Self::LATEST_MS)
    }

    pub(super) fn unpack(bits: u64) -> Self {
        Self {
            phase: match (bits & EndpointCells::OUT != 0, bits & Self::PROBING != 0) {
                (false, _) => Phase::In,
                (true, false) => Phase::Out,
                (true, true) => Phase::Probing,
            },
            ejections: (bits >> 56) as u32 & Self::MOST_EJECTIONS,
            failures: (bits >> 40) as u32 & Self::MOST_FAILURES,
            time_ms: bits & Self::LATEST_MS,
        }
    }
}

pub(super) fn read(cells: &EndpointCells) -> Word {
    Word::unpack(cells.breaker.load(Ordering::Acquire))
}

pub(super) fn replace(cells: &EndpointCells, from: Word, to: Word) -> bool {
    cells
        .breaker
        .compare_exchange(from.pack(), to.pack(), Ordering::AcqRel, Ordering::Acquire)
        .is_ok()
}

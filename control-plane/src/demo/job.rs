//! What the demo asks of a caller in a pod, and what that reports: one JSON
//! object per line, over the standard streams.
//!
//! Between `demo::caller`, which asks, and `demo::service::caller`, which
//! calls. Plain data.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Ask {
    Start(Job),
    /// What is in flight is finished and counted.
    Stop(u64),
}

/// Calls that somebody makes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Job {
    pub(crate) id: u64,
    pub(crate) target: Target,
    /// So many at once, each over a connection of its own.
    pub(crate) lanes: u32,
    /// In all; `None`: until stopped.
    pub(crate) requests: Option<u64>,
    /// Of all lanes; `None`: as fast as answers come.
    pub(crate) per_second: Option<u32>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Target {
    Get(String),
    Put {
        url: String,
        body: String,
    },
    /// The gRPC call `shop.Payment/Charge`.
    Charge(String),
}

/// Counts since the job's start; one report a second, and one at its end.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) id: u64,
    pub(crate) ended: bool,
    /// By HTTP status, or by the name of the gRPC one.
    pub(crate) answers: BTreeMap<String, u64>,
    /// Calls without an answer, by what happened.
    pub(crate) errors: BTreeMap<String, u64>,
    /// By the pod that answered, as it says itself.
    pub(crate) served_by: BTreeMap<String, u64>,
    /// Calls that ended within the last second.
    pub(crate) last_second: u64,
    pub(crate) slowest_milliseconds: u64,
    pub(crate) last: Option<Answer>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Answer {
    pub(crate) status: String,
    pub(crate) served_by: Option<String>,
    /// RFC 9209: why the mesh answered instead of the application.
    pub(crate) proxy_status: Option<String>,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn is_ok(&self) -> bool {
        is_ok(&self.status)
    }
}

impl Report {
    pub(crate) fn calls(&self) -> u64 {
        self.answers.values().sum::<u64>() + self.errors.values().sum::<u64>()
    }

    /// Answers that say no, and calls without one.
    pub(crate) fn failures(&self) -> u64 {
        let bad = self.answers.iter().filter(|(status, _)| !is_ok(status));
        bad.map(|(_, count)| count).sum::<u64>() + self.errors.values().sum::<u64>()
    }

    pub(crate) fn served_by(&self, pod: &str) -> u64 {
        self.served_by.get(pod).copied().unwrap_or_default()
    }

    /// What failed, in words: `503: 5, closed: 1`.
    pub(crate) fn failed_of(&self) -> String {
        let bad = self.answers.iter().filter(|(status, _)| !is_ok(status));
        let parts: Vec<String> = bad
            .chain(&self.errors)
            .map(|(what, count)| format!("{what}: {count}"))
            .collect();
        parts.join(", ")
    }
}

fn is_ok(status: &str) -> bool {
    status == "OK" || status.starts_with('2')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_refusals_and_calls_without_an_answer() {
        let count = |of: &[(&str, u64)]| of.iter().map(|(a, b)| ((*a).to_owned(), *b)).collect();
        let report = Report {
            answers: count(&[("200", 7), ("OK", 2), ("503", 3), ("UNAVAILABLE", 1)]),
            errors: count(&[("timeout", 2)]),
            ..Report::default()
        };
        assert_eq!((report.calls(), report.failures()), (15, 6));
        assert_eq!(report.failed_of(), "503: 3, UNAVAILABLE: 1, timeout: 2");
    }
}

//! Renders one line of the access log. `docs/access-log.md` documents the fields.
//!
//! Called by `record` when a line is wanted, after everything was counted.
//! Text that came in the request is bounded in length and escaped as JSON.

use std::time::Duration;

use serde::Serialize;

use super::{Head, Kind, Record};
use crate::outcome::Outcome;

/// Most bytes of each part of the request that a line keeps.
const MOST: usize = 256;

/// Copies of what the request said.
#[derive(Debug)]
pub(super) struct Text {
    method: Box<[u8]>,
    path: Box<[u8]>,
    authority: Box<[u8]>,
}

impl Text {
    pub(super) fn new(head: &Head<'_>) -> Self {
        let bounded = |text: &[u8]| text.get(..MOST).unwrap_or(text).into();
        Self {
            method: bounded(head.method),
            path: bounded(head.path),
            authority: bounded(head.authority),
        }
    }
}

#[derive(Serialize)]
struct Line<'a> {
    time: String,
    target: &'static str,
    kind: &'static str,
    side: &'static str,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    fault: Option<Fault>,
    #[serde(skip_serializing_if = "Option::is_none")]
    method: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    authority: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    grpc_status: Option<u8>,
    received_bytes: u64,
    sent_bytes: u64,
    duration_us: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_byte_us: Option<u64>,
    from: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    peer: Option<&'a str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    service: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    port: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    route: Option<String>,
    #[serde(skip_serializing_if = "str::is_empty")]
    backend: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    endpoint: Option<Endpoint<'a>>,
    attempts: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    not_retried: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    policy: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<&'a str>,
}

#[derive(Serialize)]
struct Fault {
    side: &'static str,
    reason: &'static str,
}

#[derive(Serialize)]
struct Endpoint<'a> {
    namespace: &'a str,
    pod: &'a str,
    address: String,
}

/// Does an operator want to see it where only errors are logged?
pub(super) fn is_error(record: &Record) -> bool {
    match record.outcome() {
        Outcome::Faulted(_)
        | Outcome::PeerFaulted(_)
        | Outcome::CallerLeft
        | Outcome::BrokenOff => true,
        Outcome::Carried => false,
        Outcome::Answered => {
            record.status.is_some_and(|status| status >= 500)
                || record.grpc_status.is_some_and(is_grpc_failure)
        }
    }
}

/// UNKNOWN, DEADLINE_EXCEEDED, INTERNAL, UNAVAILABLE and DATA_LOSS: the
/// server's fault by gRPC's status code guide, as 5xx is in HTTP.
fn is_grpc_failure(status: u8) -> bool {
    matches!(status, 2 | 4 | 13 | 14 | 15)
}

pub(super) fn render(record: &Record, now: Duration, took: Duration) -> Vec<u8> {
    let connection = &record.connection.0;
    let peer = connection.peer.borrow();
    let labels = record.series.as_ref().map(|series| series.labels());
    let text = |part: fn(&Text) -> &[u8]| {
        let text = record.text.as_deref()?;
        Some(String::from_utf8_lossy(part(text)).into_owned())
    };
    let line = Line {
        time: rfc3339(now),
        target: "access",
        kind: match record.kind {
            Kind::Http => "request",
            Kind::Opaque => "connection",
        },
        side: connection.side.as_str(),
        outcome: record.outcome().as_str(),
        fault: record.outcome().fault().map(|fault| Fault {
            side: fault.side.as_str(),
            reason: fault.reason.as_str(),
        }),
        method: text(|text| &text.method),
        path: text(|text| &text.path),
        authority: text(|text| &text.authority),
        status: record.status,
        grpc_status: record.grpc_status,
        received_bytes: record.received,
        sent_bytes: record.sent,
        duration_us: microseconds(took),
        first_byte_us: record.first_byte.map(microseconds),
        from: connection.from.to_string(),
        to: connection.to.map(|to| to.to_string()),
        peer: peer
            .as_ref()
            .and_then(|peer| peer.identity())
            .map(|identity| identity.as_str()),
        service: labels.map_or("", |labels| labels.service()),
        port: labels.map_or("", |labels| labels.port()),
        route: record
            .rule
            .as_ref()
            .map(|rule| format!("{}#{}", rule.route, rule.index)),
        backend: labels.map_or("", |labels| labels.backend()),
        endpoint: record.endpoint.as_ref().map(|endpoint| Endpoint {
            namespace: &endpoint.namespace,
            pod: &endpoint.pod,
            address: endpoint.address.to_string(),
        }),
        attempts: record.attempts,
        not_retried: record.not_retried.map(|why| why.as_str()),
        policy: record.policy.as_deref(),
        trace_id: record.trace.as_ref().map(|trace| trace.as_str()),
    };
    let mut bytes = serde_json::to_vec(&line).unwrap_or_default();
    bytes.push(b'\n');
    bytes
}

fn microseconds(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// RFC 3339 in UTC with milliseconds. Days to a date by Howard Hinnant's
/// `civil_from_days`: the only calendar that a log line needs is no reason
/// for a date library.
fn rfc3339(since_epoch: Duration) -> String {
    let seconds = since_epoch.as_secs();
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    let millisecond = since_epoch.subsec_millis();
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millisecond:03}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_is_written_as_rfc_3339() {
        let at = |seconds: u64| rfc3339(Duration::from_millis(seconds * 1000 + 7));
        assert_eq!(at(0), "1970-01-01T00:00:00.007Z");
        assert_eq!(at(951_782_400), "2000-02-29T00:00:00.007Z");
        assert_eq!(at(1_709_251_199), "2024-02-29T23:59:59.007Z");
        assert_eq!(at(4_107_542_400), "2100-03-01T00:00:00.007Z");
    }
}

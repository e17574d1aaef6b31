//! Writes every traffic series in Prometheus' form, at a scrape.
//!
//! The table of families says what a `Series` holds and how each counter is
//! named. Counters by one more label are left out while they are zero, so
//! that a destination costs a few dozen lines and not hundreds.

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering},
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, NoLabelSet},
    metrics::MetricType,
};

use super::{GRPC, RESULTS, Series, Traffic};
use crate::{
    outcome::{NotRetried, Reason, Retried},
    telemetry::{Area, metric::Durations},
};

pub(super) fn describe(area: &mut Area<'_>) {
    for family in &FAMILIES {
        area.describe(family.name, family.help, family.kind);
    }
}

/// One metric of every series.
struct Family {
    name: &'static str,
    help: &'static str,
    kind: MetricType,
    of: fn(&Series) -> Values<'_>,
}

enum Values<'a> {
    /// By one more label; zeros are left out.
    By(
        &'static str,
        &'a [AtomicU64],
        &'a dyn Fn(usize) -> &'static str,
    ),
    One(&'a AtomicU64),
    Durations(&'a Durations),
}

const FAMILIES: [Family; 11] = [
    Family {
        name: "requests",
        help: "Requests that ended, by result: status class of the application's answer, or what came instead",
        kind: MetricType::Counter,
        of: |series| {
            Values::By("result", &series.requests.0, &|at| {
                RESULTS.get(at).copied().unwrap_or_default()
            })
        },
    },
    Family {
        name: "request_duration_seconds",
        help: "Time from the end of a request's head to the end of its answer",
        kind: MetricType::Histogram,
        of: |series| Values::Durations(&series.duration),
    },
    Family {
        name: "connections",
        help: "Opaque connections that ended, by result",
        kind: MetricType::Counter,
        of: |series| {
            Values::By("result", &series.connections.0, &|at| {
                RESULTS.get(at).copied().unwrap_or_default()
            })
        },
    },
    Family {
        name: "grpc",
        help: "gRPC calls that ended, by status",
        kind: MetricType::Counter,
        of: |series| {
            Values::By("grpc_status", &series.grpc.0, &|at| {
                GRPC.get(at).copied().unwrap_or_default()
            })
        },
    },
    Family {
        name: "received_bytes",
        help: "Body and opaque bytes from the caller",
        kind: MetricType::Counter,
        of: |series| Values::One(&series.received),
    },
    Family {
        name: "sent_bytes",
        help: "Body and opaque bytes to the caller",
        kind: MetricType::Counter,
        of: |series| Values::One(&series.sent),
    },
    Family {
        name: "attempts",
        help: "Times that a request or connection was sent to an endpoint",
        kind: MetricType::Counter,
        of: |series| Values::One(&series.attempts),
    },
    Family {
        name: "retries",
        help: "Attempts made again, by what the one before failed of",
        kind: MetricType::Counter,
        of: |series| {
            Values::By("reason", &series.retries.0, &|at| {
                Retried::TEXTS.get(at).copied().unwrap_or_default()
            })
        },
    },
    Family {
        name: "not_retried",
        help: "Failed attempts that were not made again, by why",
        kind: MetricType::Counter,
        of: |series| {
            Values::By("reason", &series.not_retried.0, &|at| {
                NotRetried::TEXTS.get(at).copied().unwrap_or_default()
            })
        },
    },
    Family {
        name: "faults",
        help: "Requests and connections that this proxy answered itself, by reason",
        kind: MetricType::Counter,
        of: |series| Values::By("reason", &series.faults.0, &fault),
    },
    Family {
        name: "peer_faults",
        help: "Requests and connections that the peer's proxy answered itself, by reason",
        kind: MetricType::Counter,
        of: |series| Values::By("reason", &series.peer_faults.0, &fault),
    },
];

fn fault(at: usize) -> &'static str {
    Reason::ALL.get(at).map_or("", |reason| reason.as_str())
}

impl Collector for Traffic {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let all = self.current();
        for family in &FAMILIES {
            let mut metric =
                encoder.encode_descriptor(family.name, family.help, None, family.kind)?;
            for series in &all {
                let mut labels = series.labels.pairs();
                match (family.of)(series) {
                    Values::One(cell) => {
                        let count = cell.load(Ordering::Relaxed);
                        metric
                            .encode_family(&labels)?
                            .encode_counter::<NoLabelSet, _, u64>(&count, None)?;
                    }
                    Values::By(label, cells, text) => {
                        for (at, cell) in cells.iter().enumerate() {
                            let count = cell.load(Ordering::Relaxed);
                            if count == 0 {
                                continue;
                            }
                            labels.push((label, text(at)));
                            metric
                                .encode_family(&labels)?
                                .encode_counter::<NoLabelSet, _, u64>(&count, None)?;
                            labels.pop();
                        }
                    }
                    Values::Durations(durations) if durations.count() > 0 => {
                        durations.encode(metric.encode_family(&labels)?)?;
                    }
                    Values::Durations(_) => {}
                }
            }
        }
        Ok(())
    }
}

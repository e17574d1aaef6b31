//! Kinds of metric whose counting side is one atomic addition.
//!
//! prometheus-client's `Family` and `Histogram` take a lock for each
//! observation, which rule 16 forbids on the path. These have a closed label
//! set or fixed bounds instead, so they need none.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use prometheus_client::{
    encoding::{EncodeMetric, MetricEncoder, NoLabelSet},
    metrics::MetricType,
};

/// A counter with one label that has a closed list of values.
#[derive(Clone, Debug)]
pub(crate) struct Tally(Arc<Cells>);

#[derive(Debug)]
struct Cells {
    label: &'static str,
    values: &'static [&'static str],
    counts: Box<[AtomicU64]>,
}

impl Tally {
    pub(crate) fn new(label: &'static str, values: &'static [&'static str]) -> Self {
        let counts = values.iter().map(|_| AtomicU64::new(0)).collect();
        Self(Arc::new(Cells {
            label,
            values,
            counts,
        }))
    }

    /// Counts one of `value`; one that isn't of the list is a bug and counts nothing.
    pub(crate) fn inc(&self, value: &str) {
        if let Some(count) = self.cell(value) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn cell(&self, value: &str) -> Option<&AtomicU64> {
        let at = self.0.values.iter().position(|known| *known == value);
        debug_assert!(at.is_some(), "{value} is not a value of {}", self.0.label);
        self.0.counts.get(at?)
    }
}

impl EncodeMetric for Tally {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), fmt::Error> {
        for (value, count) in self.0.values.iter().zip(&self.0.counts) {
            let labels = [(self.0.label, *value)];
            let count = count.load(Ordering::Relaxed);
            encoder
                .encode_family(&labels)?
                .encode_counter::<NoLabelSet, _, u64>(&count, None)?;
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Counter
    }
}

/// Upper bounds of `Durations`, in microseconds; the last bucket has none.
const BOUNDS: [u64; 14] = [
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000, 5_000_000, 10_000_000,
];

/// A histogram of durations from 0.5 ms to 10 s.
#[derive(Debug, Default)]
pub(crate) struct Durations {
    buckets: [AtomicU64; BOUNDS.len() + 1],
    microseconds: AtomicU64,
}

impl Durations {
    pub(crate) fn observe(&self, took: Duration) {
        let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS
            .iter()
            .position(|bound| took <= *bound)
            .unwrap_or(BOUNDS.len());
        if let Some(bucket) = self.buckets.get(bucket) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        self.microseconds.fetch_add(took, Ordering::Relaxed);
    }

    pub(crate) fn count(&self) -> u64 {
        self.buckets
            .iter()
            .map(|bucket| bucket.load(Ordering::Relaxed))
            .sum()
    }

    pub(crate) fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), fmt::Error> {
        let bounds = BOUNDS.iter().map(|bound| seconds(*bound)).chain([f64::MAX]);
        let counts = self
            .buckets
            .iter()
            .map(|bucket| bucket.load(Ordering::Relaxed));
        let buckets: Vec<(f64, u64)> = bounds.zip(counts).collect();
        let total = buckets.iter().map(|(_, count)| count).sum();
        let sum = seconds(self.microseconds.load(Ordering::Relaxed));
        encoder.encode_histogram::<NoLabelSet>(sum, total, &buckets, None)
    }
}

fn seconds(microseconds: u64) -> f64 {
    Duration::from_micros(microseconds).as_secs_f64()
}

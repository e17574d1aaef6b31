//! What is known of each watch, under `weft_source_`: how many objects, and how
//! long nothing was heard.
//!
//! Written by `reflect`, registered in `app`, read at a scrape and by readiness.
//! Labels are the rows of the table.

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::Registry,
};
use tokio::time::Instant;

use super::kinds::WATCHED;

#[derive(Clone, Debug)]
pub(crate) struct Metrics(Arc<[Health]>);

/// Of one watch.
#[derive(Debug)]
pub(super) struct Health {
    label: &'static str,
    /// `None`: the API server has no such kind, or was not asked yet.
    heard: Mutex<Option<Instant>>,
    is_whole: AtomicBool,
    objects: AtomicU64,
    refused: AtomicU64,
    reads: AtomicU64,
    failures: AtomicU64,
}

impl Health {
    const fn new(label: &'static str) -> Self {
        Self {
            label,
            heard: Mutex::new(None),
            is_whole: AtomicBool::new(false),
            objects: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            reads: AtomicU64::new(0),
            failures: AtomicU64::new(0),
        }
    }

    pub(super) fn hear(&self) {
        self.set_heard(Some(Instant::now()));
    }

    pub(super) fn absent(&self) {
        self.set_heard(None);
    }

    fn set_heard(&self, heard: Option<Instant>) {
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner) = heard;
    }

    fn heard(&self) -> Option<Instant> {
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_whole(&self) {
        self.is_whole.store(true, Ordering::Relaxed);
    }

    pub(super) fn read(&self) {
        self.reads.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn fail(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count(&self, objects: usize, refused: usize) {
        self.objects.store(objects as u64, Ordering::Relaxed);
        self.refused.store(refused as u64, Ordering::Relaxed);
    }
}

impl Metrics {
    pub(crate) fn new() -> Self {
        Self(WATCHED.iter().map(|it| Health::new(it.label)).collect())
    }

    /// What has not been read once.
    pub(crate) fn waiting(&self) -> Vec<&'static str> {
        let all = self.0.iter();
        all.filter(|it| !it.is_whole.load(Ordering::Relaxed))
            .map(|it| it.label)
            .collect()
    }

    pub(crate) fn register(&self, registry: &mut Registry) {
        let source = registry.sub_registry_with_prefix("weft_source");
        source.register_collector(Box::new(self.clone()));
    }

    /// As if something had been heard of everything: documents list what appears.
    pub(crate) fn hear_all(&self) {
        self.0.iter().for_each(Health::hear);
    }

    pub(super) fn of(&self, at: usize) -> &Health {
        &self.0[at]
    }

    fn encode_all(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        (name, help, kind): (&str, &str, MetricType),
        value: impl Fn(&Health) -> Option<Box<dyn EncodeMetric>>,
    ) -> fmt::Result {
        let mut metric = encoder.encode_descriptor(name, help, None, kind)?;
        for health in self.0.iter() {
            if let Some(value) = value(health) {
                value.encode(metric.encode_family(&[("kind", health.label)])?)?;
            }
        }
        Ok(())
    }
}

impl Collector for Metrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let gauge = |value: &AtomicU64| -> Option<Box<dyn EncodeMetric>> {
            Some(Box::new(ConstGauge::new(value.load(Ordering::Relaxed))))
        };
        let counter = |value: &AtomicU64| -> Option<Box<dyn EncodeMetric>> {
            Some(Box::new(ConstCounter::new(value.load(Ordering::Relaxed))))
        };
        let encoder = &mut encoder;
        let help = "Objects that the cluster has, by kind";
        let about = ("objects", help, MetricType::Gauge);
        self.encode_all(encoder, about, |it| gauge(&it.objects))?;
        let help = "Objects that can't be taken as they are; their last good state holds";
        let about = ("refused_objects", help, MetricType::Gauge);
        self.encode_all(encoder, about, |it| gauge(&it.refused))?;
        let help = "Since the API server was last heard of this kind, bookmarks included";
        let about = ("silent_seconds", help, MetricType::Gauge);
        self.encode_all(encoder, about, |it| {
            let silent = it.heard()?.elapsed().as_secs_f64();
            Some(Box::new(ConstGauge::new(silent)))
        })?;
        let help = "Times that all objects of a kind were read";
        let about = ("reads", help, MetricType::Counter);
        self.encode_all(encoder, about, |it| counter(&it.reads))?;
        let help = "Watches that failed or went silent";
        let about = ("failures", help, MetricType::Counter);
        self.encode_all(encoder, about, |it| counter(&it.failures))
    }
}

//! What `admission` counts, under `weft_admission_`.
//!
//! Registered in `app`. Labels are enums: nothing that a pod says.

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder},
    metrics::{counter::Counter, family::Family, histogram::Histogram},
    registry::Registry,
};

#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    reviews: Family<Reviewed, Counter>,
    seconds: Histogram,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct Reviewed {
    verdict: Verdict,
}

/// How a review ended.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Verdict {
    /// The pod got its proxy.
    Injected,
    /// The pod, or a kind that is none of ours, went on as it came.
    Left,
    /// A policy holds.
    Valid,
    Refused,
    /// No answer could be given: no review, or no root yet.
    Failed,
}

impl Verdict {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Injected => "injected",
            Self::Left => "left",
            Self::Valid => "valid",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }
}

impl EncodeLabelValue for Verdict {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        EncodeLabelValue::encode(&self.as_str(), encoder)
    }
}

/// Seconds; 20 ms is what a pod may wait.
const SECONDS: [f64; 8] = [0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.25, 1.0];

impl Metrics {
    pub(crate) fn new() -> Self {
        Self {
            reviews: Family::default(),
            seconds: Histogram::new(SECONDS),
        }
    }

    pub(crate) fn register(&self, registry: &mut Registry) {
        let admission = registry.sub_registry_with_prefix("weft_admission");
        admission.register(
            "reviews",
            "Objects that the API server asked about",
            self.reviews.clone(),
        );
        admission.register(
            "review_seconds",
            "From a question's last byte to its answer",
            self.seconds.clone(),
        );
    }

    pub(crate) fn count(&self, verdict: Verdict, seconds: f64) {
        self.reviews.get_or_create(&Reviewed { verdict }).inc();
        self.seconds.observe(seconds);
    }
}

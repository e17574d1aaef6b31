//! Sets up what the process says about itself: log lines and the registry of metrics.
//!
//! Ground. `app` calls it once. `metric` holds the kinds of metric that
//! prometheus-client lacks: without a lock on the counting side. Knows no
//! metric by name: modules declare theirs.

pub(crate) mod metric;

use std::{fmt, io};

use prometheus_client::{
    encoding::text,
    metrics::MetricType,
    registry::{Metric, Registry as Inner},
};
use tracing_subscriber::{EnvFilter, layer::SubscriberExt as _, util::SubscriberInitExt as _};

/// Form of the log lines on standard error.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Format {
    Text,
    Json,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum SetUpError {
    #[error("log filter is not of the form level or target=level: {0}")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    #[error("a log subscriber is already installed")]
    Installed(#[from] tracing_subscriber::util::TryInitError),
}

/// Installs the log subscriber of this process.
///
/// # Errors
/// When `filter` can't be parsed or another subscriber stands already.
pub(crate) fn install(filter: &str, format: Format) -> Result<(), SetUpError> {
    let filter = EnvFilter::builder().parse(filter)?;
    let registry = tracing_subscriber::registry().with(filter);
    let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr);
    match format {
        Format::Text => registry.with(lines.with_ansi(false)).try_init()?,
        Format::Json => registry.with(lines.json().flatten_event(true)).try_init()?,
    }
    Ok(())
}

/// What `docs/metrics.md` says of one metric.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Described {
    /// Whole name, with prefix, unit and `_total`.
    pub(crate) name: String,
    pub(crate) kind: &'static str,
    pub(crate) help: String,
}

/// Every metric of the process. Filled in `app`, then only read.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    inner: Inner,
    described: Vec<Described>,
}

impl Registry {
    pub(crate) fn new() -> Self {
        Self {
            inner: Inner::with_prefix("weft"),
            described: Vec::new(),
        }
    }

    /// Metrics named `weft_<area>_…`.
    pub(crate) fn area(&mut self, area: &'static str) -> Area<'_> {
        Area {
            area,
            registry: self,
        }
    }

    /// Prometheus' text form.
    ///
    /// # Errors
    /// When a metric can't be written, which is a bug of that metric.
    pub(crate) fn encode(&self) -> Result<String, fmt::Error> {
        let mut page = String::new();
        text::encode(&mut page, &self.inner)?;
        Ok(page)
    }

    pub(crate) fn described(&self) -> &[Described] {
        &self.described
    }
}

/// Registers the metrics of one module.
#[derive(Debug)]
pub(crate) struct Area<'a> {
    area: &'static str,
    registry: &'a mut Registry,
}

impl Area<'_> {
    /// Registers `metric` as `weft_<area>_<name>` (counters get their `_total`)
    /// and hands it back.
    pub(crate) fn register<M: Metric + Clone>(
        &mut self,
        name: &'static str,
        help: &'static str,
        metric: M,
    ) -> M {
        self.describe(name, help, metric.metric_type());
        let area = self.registry.inner.sub_registry_with_prefix(self.area);
        area.register(name, help, metric.clone());
        metric
    }

    /// Describes a metric that a collector of this area writes by itself.
    pub(crate) fn describe(&mut self, name: &str, help: &str, kind: MetricType) {
        let (kind, suffix) = match kind {
            MetricType::Counter => ("counter", "_total"),
            MetricType::Gauge => ("gauge", ""),
            MetricType::Histogram => ("histogram", ""),
            _ => ("untyped", ""),
        };
        let name = format!("weft_{}_{name}{suffix}", self.area);
        self.registry.described.push(Described {
            name,
            kind,
            help: help.to_owned(),
        });
    }

    pub(crate) fn collector(
        &mut self,
        collector: Box<dyn prometheus_client::collector::Collector>,
    ) {
        self.registry
            .inner
            .sub_registry_with_prefix(self.area)
            .register_collector(collector);
    }
}

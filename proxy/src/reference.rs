//! What documents are held against: every knob, fault and metric, as text.
//!
//! For the tests in `tests/architecture` alone; nothing of the proxy calls it.

use std::{io, sync::Arc, time::Duration};

use crate::{
    clock::{Epoch, Wall},
    config, drain,
    outcome::{Reason, Retryable, Side},
    record,
    telemetry::Registry,
};

/// A knob: name, form, default, help, why that default.
#[derive(Clone, Copy, Debug)]
pub struct Knob {
    pub name: &'static str,
    pub form: &'static str,
    /// `None`: it must be set.
    pub default: Option<&'static str>,
    pub help: &'static str,
    pub why: &'static str,
}

#[must_use]
pub fn knobs() -> Vec<Knob> {
    let text = |knob: &config::Knob| Knob {
        name: knob.name,
        form: knob.kind.as_str(),
        default: knob.default,
        help: knob.help,
        why: knob.why,
    };
    config::ALL.iter().map(text).collect()
}

/// A fault and its answers.
#[derive(Clone, Debug)]
pub struct Fault {
    pub name: &'static str,
    pub http_status: u16,
    pub grpc_status: u8,
    pub proxy_error: &'static str,
    pub retried: &'static str,
    pub help: &'static str,
    /// Whole `proxy-status` value, as the caller's proxy writes it.
    pub proxy_status: String,
}

#[must_use]
pub fn faults() -> Vec<Fault> {
    let text = |reason: &Reason| Fault {
        name: reason.as_str(),
        http_status: reason.http_status(),
        grpc_status: reason.grpc_status(),
        proxy_error: reason.proxy_error(),
        retried: match reason.retryable() {
            Retryable::Unsent => "elsewhere",
            Retryable::ByPolicy => "by policy",
            Retryable::Never => "no",
        },
        help: reason.help(),
        proxy_status: reason.at(Side::Outbound).proxy_status(),
    };
    Reason::ALL.iter().map(text).collect()
}

/// A metric: whole name, type, help.
#[derive(Clone, Debug)]
pub struct Metric {
    pub name: String,
    pub kind: &'static str,
    pub help: String,
}

/// # Errors
/// When the system gives no thread for the access log.
pub fn metrics() -> io::Result<Vec<Metric>> {
    let mut registry = Registry::new();
    let config = record::Config {
        series: 1,
        series_idle: Duration::ZERO,
    };
    let log = record::AccessLog::start(&mut registry, record::Mode::Off, 1, io::sink())?;
    let _shared = record::Shared::new(
        &mut registry,
        &config,
        log,
        Wall::System,
        drain::channel().1,
    );
    record::observe(
        &mut registry,
        Box::new(Arc::default),
        Arc::default(),
        Epoch::start(),
    );
    let text = |of: &crate::telemetry::Described| Metric {
        name: of.name.clone(),
        kind: of.kind,
        help: of.help.clone(),
    };
    Ok(registry.described().iter().map(text).collect())
}

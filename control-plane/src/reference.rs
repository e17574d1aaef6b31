//! What documents are held against: every knob and metric, as text.
//!
//! For the tests in `tests/architecture` alone; nothing of the control plane
//! calls it.

use clap::CommandFactory;
use prometheus_client::registry::Registry;

use crate::{
    cluster,
    config::Config,
    serve::metrics::{Metrics, Reason},
};

/// A knob of `weft-control-plane`.
#[derive(Clone, Debug)]
pub struct Knob {
    pub option: String,
    pub variable: String,
    /// `None`: its help says what holds without it.
    pub default: Option<String>,
    pub help: String,
}

#[must_use]
pub fn knobs() -> Vec<Knob> {
    let command = Config::command();
    let knobs = command
        .get_arguments()
        .filter(|it| it.get_env().is_some())
        .map(|it| {
            let defaults = it.get_default_values().first();
            Knob {
                option: format!("--{}", it.get_long().unwrap_or_default()),
                variable: it
                    .get_env()
                    .map(|it| it.to_string_lossy().into_owned())
                    .unwrap_or_default(),
                default: defaults.map(|it| it.to_string_lossy().into_owned()),
                help: it.get_help().map(ToString::to_string).unwrap_or_default(),
            }
        });
    knobs.collect()
}

/// A metric of `weft-control-plane`.
#[derive(Clone, Debug)]
pub struct Metric {
    /// Whole name, with prefix, unit and `_total`.
    pub name: String,
    pub kind: String,
    pub help: String,
}

/// # Errors
/// When the text form can't be written.
pub fn metrics() -> Result<Vec<Metric>, std::fmt::Error> {
    let metrics = Metrics::new();
    // A family shows itself with its first event.
    metrics.refuse(Reason::TooMany);
    metrics.end(Reason::Left);
    metrics.refuse_certificate(Reason::Token);
    let mut registry = Registry::default();
    metrics.register(&mut registry);
    cluster::metrics::Metrics::default().register(&mut registry);
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry)?;
    let kinds = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let metric = |(name, kind): (&str, &str)| {
        let help = text.lines().find_map(|line| {
            line.strip_prefix("# HELP ")?
                .strip_prefix(name)?
                .strip_prefix(' ')
        });
        let suffix = if kind == "counter" { "_total" } else { "" };
        Metric {
            name: format!("{name}{suffix}"),
            kind: kind.to_owned(),
            help: help.unwrap_or_default().trim_end_matches('.').to_owned(),
        }
    };
    Ok(kinds.map(metric).collect())
}

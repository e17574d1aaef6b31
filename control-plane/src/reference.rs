//! What documents are held against: every knob and metric, as text.
//!
//! For the tests in `tests/architecture` alone; nothing of the control plane
//! calls it.

use clap::CommandFactory;
use prometheus_client::registry::Registry;

use crate::{
    admission::{
        self,
        annotations::{self, Form, Use},
    },
    cluster,
    config::Config,
    serve::metrics::{Metrics, Reason},
    sources::{kubernetes, manifest::definition},
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
    let reviews = admission::metrics::Metrics::new();
    reviews.count(admission::metrics::Verdict::Injected, 0.0);
    reviews.register(&mut registry);
    let in_cluster = cluster::metrics::Metrics::default();
    in_cluster.tell_unmeshed(std::iter::once(("shop".to_owned(), 1)));
    in_cluster.register(&mut registry);
    let source = kubernetes::metrics::Metrics::new();
    source.hear_all();
    source.register(&mut registry);
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

/// The CustomResourceDefinitions, by the name of their file, as YAML.
///
/// # Errors
/// When one can't be written.
pub fn definitions() -> Result<Vec<(&'static str, String)>, serde_saphyr::ser_error::Error> {
    let all = definition::all();
    let yaml = all
        .into_iter()
        .map(|(name, it)| Ok((name, serde_saphyr::to_string(&it)?)));
    yaml.collect()
}

/// An annotation of pods.
#[derive(Clone, Debug)]
pub struct Annotation {
    pub name: &'static str,
    /// What its value is.
    pub form: String,
    pub help: &'static str,
    /// The knob of the proxy that it sets.
    pub knob: Option<&'static str>,
    /// Nobody else writes it.
    pub is_written_by_the_mesh: bool,
    takes: Form,
}

impl Annotation {
    /// Whether admission takes `value`.
    #[must_use]
    pub fn takes(&self, value: &str) -> bool {
        self.takes.takes(value)
    }
}

#[must_use]
pub fn annotations() -> Vec<Annotation> {
    let all = annotations::ALL.iter().map(|it| Annotation {
        name: it.name,
        form: it.form.describe(),
        help: it.help,
        knob: match it.used {
            Use::Knob(name) => Some(name),
            _ => None,
        },
        is_written_by_the_mesh: it.used == Use::Written,
        takes: it.form,
    });
    all.collect()
}

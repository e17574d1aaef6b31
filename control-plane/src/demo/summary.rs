//! The end of the demo, as JSON: what each step saw, and whether all was well.
//!
//! An interface: fields are only added.

use std::{collections::BTreeMap, time::Duration};

use serde::Serialize;
use serde_json::{Map, Value};

use super::{finding::Finding, shop::Shop, steps::Step};

#[derive(Debug, Serialize)]
pub(crate) struct Summary {
    pub(crate) ok: bool,
    pub(crate) seconds: f64,
    /// Who ran it; 0 is root.
    user: u32,
    /// What each service really is.
    programs: BTreeMap<&'static str, String>,
    steps: Vec<Outcome>,
    pub(crate) stopped_by_signal: bool,
    /// What remains of it, if anything does.
    #[serde(skip_serializing_if = "Option::is_none")]
    not_closed: Option<String>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Outcome {
    pub(crate) name: &'static str,
    pub(crate) ok: bool,
    pub(crate) seconds: f64,
    pub(crate) told: String,
    pub(crate) wrong: Vec<String>,
    measured: Map<String, Value>,
}

impl Summary {
    pub(crate) fn new(shop: &Shop) -> Self {
        Self {
            ok: false,
            seconds: 0.0,
            user: nix::unistd::getuid().as_raw(),
            programs: shop.programs(),
            steps: Vec::new(),
            stopped_by_signal: false,
            not_closed: None,
        }
    }

    pub(crate) fn add(
        &mut self,
        step: Step,
        took: Duration,
        found: anyhow::Result<Finding>,
    ) -> &Outcome {
        let found = found.unwrap_or_else(|error| Finding {
            wrong: vec![format!("{error:#}")],
            ..Finding::default()
        });
        self.steps.push(Outcome {
            name: step.name(),
            ok: found.is_ok(),
            seconds: round(took),
            told: found.told,
            wrong: found.wrong,
            measured: found.measured,
        });
        self.steps.last().expect("just pushed")
    }

    /// Every step was shown.
    pub(crate) fn is_whole(&self) -> bool {
        self.steps.len() == Step::ALL.len()
    }

    pub(crate) fn finish(&mut self, took: Duration, closed: anyhow::Result<()>) {
        self.seconds = round(took);
        self.not_closed = closed.err().map(|error| format!("{error:#}"));
        self.ok =
            self.is_whole() && self.steps.iter().all(|step| step.ok) && self.not_closed.is_none();
    }
}

/// One line for each step, so that the whole fits on a screen.
pub(crate) fn text(summary: &Summary) -> serde_json::Result<String> {
    let Value::Object(fields) = serde_json::to_value(summary)? else {
        return serde_json::to_string_pretty(summary);
    };
    let mut lines = Vec::new();
    for (name, value) in &fields {
        let value = match value.as_array().filter(|it| !it.is_empty()) {
            Some(parts) => {
                let parts: Vec<String> = parts.iter().map(|it| format!("    {it}")).collect();
                format!("[\n{}\n  ]", parts.join(",\n"))
            }
            None => value.to_string(),
        };
        lines.push(format!("  {}: {value}", Value::from(name.as_str())));
    }
    Ok(format!("{{\n{}\n}}\n", lines.join(",\n")))
}

/// Milliseconds are enough.
pub(crate) fn round(of: Duration) -> f64 {
    (of.as_secs_f64() * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_json_with_a_line_for_each_step() {
        let mut summary = Summary {
            ok: true,
            seconds: 1.5,
            user: 0,
            programs: BTreeMap::from([("front", "nginx".to_owned())]),
            steps: Vec::new(),
            stopped_by_signal: false,
            not_closed: None,
        };
        summary.add(Step::Canary, Duration::ZERO, Ok(Finding::default()));
        summary.add(
            Step::Access,
            Duration::ZERO,
            Err(anyhow::anyhow!("no guest")),
        );
        let text = text(&summary).unwrap();
        let read: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(read, serde_json::to_value(&summary).unwrap());
        assert_eq!(read["steps"][1]["wrong"][0], "no guest");
        let lines = text.lines().filter(|line| line.contains("\"wrong\""));
        assert_eq!(lines.count(), 2, "{text}");
        summary.finish(Duration::ZERO, Ok(()));
        assert!(!summary.ok);
    }
}

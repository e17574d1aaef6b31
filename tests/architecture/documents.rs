//! Documents against the code: what is named exists, and what exists is named.
//!
//! Tables between `<!-- generated: … -->` and `<!-- end -->` are made from the
//! code; `WEFT_REGENERATE=1 cargo test -p weft-tests --test architecture`
//! writes them again.

use std::{collections::BTreeSet, fmt::Write as _, fs};

use weft_control_plane::reference as control_plane;
use weft_proxy::reference;

use crate::{layers, source};

/// Every document that people read.
fn documents() -> Vec<String> {
    let tracked = source::tracked();
    let documents: Vec<_> = tracked
        .into_iter()
        .filter(|path| path.ends_with(".md"))
        .collect();
    assert!(
        documents.iter().any(|path| path == "README.md"),
        "README.md is gone"
    );
    documents
}

pub(crate) fn should_write() -> bool {
    #[allow(
        clippy::disallowed_methods,
        reason = "a switch of this test, not a knob"
    )]
    std::env::var("WEFT_REGENERATE").is_ok()
}

/// Compares the table named `name` in `path` with `fresh`, or writes it.
pub(crate) fn hold(path: &str, name: &str, fresh: &str) {
    let text = source::read(path);
    let begin = format!("<!-- generated: {name} -->\n");
    let parts = text.split_once(&begin).and_then(|(before, rest)| {
        rest.split_once("<!-- end -->")
            .map(|(kept, after)| (before, kept, after))
    });
    let Some((before, kept, after)) = parts else {
        panic!(
            "{path} has no table between {} and <!-- end -->",
            begin.trim()
        );
    };
    if kept != fresh && should_write() {
        let text = format!("{before}{begin}{fresh}<!-- end -->{after}");
        fs::write(source::root().join(path), text).expect("the document can be written");
        return;
    }
    assert!(
        kept == fresh,
        "{path}: the table {name:?} differs from the code. Write it again by\n  WEFT_REGENERATE=1 cargo test -p \
         weft-tests --test architecture\nand commit the result."
    );
}

#[test]
fn the_table_of_knobs_is_the_code() {
    let mut table =
        "| Knob | Form | Default | What it does | Why this default |\n|---|---|---|---|---|\n"
            .to_owned();
    for knob in reference::knobs() {
        let default = match knob.default {
            None => "*must be set*".to_owned(),
            Some("") => "*empty*".to_owned(),
            Some(default) => format!("`{default}`"),
        };
        let (name, form, help, why) = (knob.name, knob.form, knob.help, knob.why);
        writeln!(table, "| `{name}` | {form} | {default} | {help} | {why} |")
            .expect("a string takes text");
    }
    hold("docs/configuration.md", "proxy knobs", &table);
}

#[test]
fn the_table_of_the_control_planes_knobs_is_the_code() {
    let mut table =
        "| Option | Variable | Default | What it does |\n|---|---|---|---|\n".to_owned();
    for knob in control_plane::knobs() {
        let default = knob
            .default
            .map_or_else(|| "none".to_owned(), |it| format!("`{it}`"));
        let (option, variable, help) = (knob.option, knob.variable, knob.help);
        writeln!(table, "| `{option}` | `{variable}` | {default} | {help} |")
            .expect("a string takes text");
    }
    hold("docs/configuration.md", "control plane knobs", &table);
}

#[test]
fn the_table_of_the_control_planes_metrics_is_the_code() {
    let mut table = "| Metric | Type | What it says |\n|---|---|---|\n".to_owned();
    let mut metrics = control_plane::metrics().expect("metrics register");
    metrics.sort_by(|one, other| one.name.cmp(&other.name));
    for metric in metrics {
        let (name, kind, help) = (metric.name, metric.kind, metric.help);
        writeln!(table, "| `{name}` | {kind} | {help} |").expect("a string takes text");
    }
    hold("docs/metrics.md", "control plane metrics", &table);
}

#[test]
fn the_table_of_faults_is_the_code() {
    let mut table = "| Fault | HTTP | gRPC | `proxy-status` error | Tried again | What happened |\n|---|---|---|---|---|---|\n".to_owned();
    for fault in reference::faults() {
        writeln!(
            table,
            "| [`{0}`](troubleshooting.md#{0}) | {1} | {2} | `{3}` | {4} | {5} |",
            fault.name,
            fault.http_status,
            fault.grpc_status,
            fault.proxy_error,
            fault.retried,
            fault.help
        )
        .expect("a string takes text");
    }
    hold("docs/faults.md", "faults", &table);
}

#[test]
fn every_fault_has_its_remedy_and_every_remedy_its_fault() {
    let text = source::read("docs/troubleshooting.md");
    let by_fault = text.split_once("\n## By fault\n");
    let (_, by_fault) = by_fault.expect("docs/troubleshooting.md has a part by fault");
    let described: BTreeSet<_> = by_fault
        .lines()
        .filter_map(|line| line.strip_prefix("### "))
        .collect();
    let faults = reference::faults();
    let known: BTreeSet<_> = faults.iter().map(|fault| fault.name).collect();
    let missing: Vec<_> = known.difference(&described).collect();
    let unknown: Vec<_> = described.difference(&known).collect();
    assert!(
        missing.is_empty(),
        "docs/troubleshooting.md has no `### …` section for {missing:?}: say what an operator does"
    );
    let mute: Vec<_> = by_fault
        .split("\n### ")
        .skip(1)
        .filter(|it| !it.contains("**See it:**"))
        .filter_map(|it| it.lines().next())
        .collect();
    assert!(
        mute.is_empty(),
        "docs/troubleshooting.md doesn't say where {mute:?} is seen"
    );
    assert!(
        unknown.is_empty(),
        "docs/troubleshooting.md describes faults that don't exist: {unknown:?}"
    );
}

#[test]
fn the_table_of_metrics_is_the_code() {
    let mut table = "| Metric | Type | What it says |\n|---|---|---|\n".to_owned();
    let mut metrics = reference::metrics().expect("metrics register");
    metrics.sort_by(|one, other| one.name.cmp(&other.name));
    for metric in metrics {
        writeln!(
            table,
            "| `{}` | {} | {} |",
            metric.name, metric.kind, metric.help
        )
        .expect("a string takes text");
    }
    hold("docs/metrics.md", "proxy metrics", &table);
}

#[test]
fn metrics_follow_the_naming_rule() {
    for metric in reference::metrics().expect("metrics register") {
        let name = &metric.name;
        assert!(
            name.starts_with("weft_") && name.split('_').count() >= 3,
            "{name} is not weft_<area>_<noun>"
        );
        let is_plain = name
            .chars()
            .all(|letter| letter.is_ascii_lowercase() || letter == '_');
        assert!(is_plain, "{name} has more than lower-case letters and _");
        assert_eq!(
            metric.kind == "counter",
            name.ends_with("_total"),
            "{name}: counters end in _total, others don't"
        );
    }
}

#[test]
fn the_table_of_layers_is_quoted() {
    let tables = layers::tables();
    for (package, table) in &tables {
        let mut text = "| Layer | Modules | Duty | Must never |\n|---|---|---|---|\n".to_owned();
        for layer in &table.layer {
            let modules: Vec<_> = layer
                .modules
                .iter()
                .map(|module| format!("`{module}`"))
                .collect();
            writeln!(
                text,
                "| {} | {} | {} | {} |",
                layer.name,
                modules.join(" "),
                layer.duty,
                layer.never
            )
            .expect("a string takes text");
        }
        hold("ARCHITECTURE.md", &format!("{package} layers"), &text);
    }
}

/// What stands between back-quotes, code blocks included word by word.
fn quoted(text: &str) -> Vec<&str> {
    text.split('`')
        .skip(1)
        .step_by(2)
        .flat_map(str::split_whitespace)
        .collect()
}

/// Folders at the root: what begins with one of them is a path.
fn folders() -> BTreeSet<String> {
    let paths = source::tracked();
    paths
        .iter()
        .filter_map(|path| path.split_once('/'))
        .map(|(folder, _)| folder.to_owned())
        .collect()
}

#[test]
fn every_path_in_a_document_exists() {
    let folders = folders();
    let mut wrong = Vec::new();
    for document in documents() {
        let text = source::read(&document);
        for word in quoted(&text).into_iter().chain(links(&text)) {
            let path = word
                .trim_end_matches(['.', ',', ':', ';', ')'])
                .trim_start_matches("./");
            let is_path = path
                .split_once('/')
                .is_some_and(|(folder, rest)| folders.contains(folder) && !rest.is_empty());
            // Patterns such as docs/*.md name no one file.
            if is_path
                && !path.contains(['*', '<', '{', '…'])
                && !source::root().join(path).exists()
            {
                wrong.push(format!("{document} names {path}"));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "paths that don't exist:\n  {}",
        wrong.join("\n  ")
    );
}

/// Targets of links between documents, as they stand.
fn links(text: &str) -> Vec<&str> {
    let parts = text
        .split("](")
        .skip(1)
        .filter_map(|part| part.split(')').next());
    parts
        .filter_map(|target| target.split('#').next())
        .collect()
}

#[test]
fn every_link_between_documents_leads_somewhere() {
    let mut wrong = Vec::new();
    for document in documents() {
        let folder = document.rsplit_once('/').map_or("", |(folder, _)| folder);
        let text = source::read(&document);
        for link in links(&text)
            .into_iter()
            .filter(|link| !link.is_empty() && !link.contains("://"))
        {
            if !source::root().join(folder).join(link).exists() {
                wrong.push(format!("{document} links to {link}"));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "links to nothing:\n  {}",
        wrong.join("\n  ")
    );
}

/// Names of the form `WEFT_…` in `text`.
fn knobs_in(text: &str) -> BTreeSet<&str> {
    let is_part =
        |letter: char| letter.is_ascii_uppercase() || letter.is_ascii_digit() || letter == '_';
    text.split(|letter| !is_part(letter))
        .filter(|word| word.starts_with("WEFT_") && word.len() > 5)
        .collect()
}

#[test]
fn every_knob_in_a_document_exists() {
    let known: BTreeSet<_> = reference::knobs()
        .into_iter()
        .map(|knob| knob.name)
        .collect();
    // Knobs of other programs are literals in their sources.
    let others: String = ["control-plane/src", "proxy/src"]
        .iter()
        .flat_map(|folder| source::production(folder))
        .map(|file| file.text)
        .collect();
    let mut wrong = Vec::new();
    for document in documents() {
        let text = source::read(&document);
        for knob in knobs_in(&text) {
            let is_switch_of_tests = knob == "WEFT_REGENERATE";
            if !known.contains(knob)
                && !others.contains(&format!("\"{knob}\""))
                && !is_switch_of_tests
            {
                wrong.push(format!("{document} names {knob}"));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "knobs that don't exist:\n  {}",
        wrong.join("\n  ")
    );
}

/// Is `word` a name under which Prometheus knows `metric`?
fn is_of(metric: &reference::Metric, word: &str) -> bool {
    let suffix = word.strip_prefix(metric.name.as_str());
    match metric.kind {
        "histogram" => matches!(suffix, Some("" | "_bucket" | "_sum" | "_count")),
        _ => suffix == Some(""),
    }
}

#[test]
fn every_metric_in_a_document_exists() {
    let metrics = reference::metrics().expect("metrics register");
    let of_control_plane = control_plane::metrics().expect("metrics register");
    let areas: BTreeSet<_> = metrics
        .iter()
        .filter_map(|metric| metric.name.split('_').nth(1))
        .collect();
    let mut wrong = Vec::new();
    for document in documents() {
        let text = source::read(&document);
        for word in text.split(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '_')) {
            let Some(area) = word
                .strip_prefix("weft_")
                .and_then(|rest| rest.split_once('_'))
            else {
                continue;
            };
            let is_known = metrics.iter().any(|metric| is_of(metric, word))
                || of_control_plane
                    .iter()
                    .any(|metric| metric.name == word.trim_end_matches("_bucket"));
            if areas.contains(area.0) && !is_known {
                wrong.push(format!("{document} names {word}"));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "metrics that don't exist:\n  {}",
        wrong.join("\n  ")
    );
}

/// Numbers from 15000 to 15099 in `text`: the mesh's ports.
fn ports(text: &str) -> BTreeSet<&str> {
    let words = text.split(|letter: char| !letter.is_ascii_digit());
    words
        .filter(|word| word.len() == 5 && word.starts_with("150"))
        .collect()
}

#[test]
fn the_ports_in_the_documents_are_those_of_the_code() {
    let knobs = reference::knobs();
    let defaults: String = knobs
        .iter()
        .filter_map(|knob| knob.default)
        .collect::<Vec<_>>()
        .join(" ");
    let documented = source::read("docs/ports.md");
    for port in ports(&defaults) {
        assert!(
            ports(&documented).contains(port),
            "docs/ports.md does not name port {port} of the proxy"
        );
    }
    let sources: String = ["proxy/src", "control-plane/src"]
        .iter()
        .flat_map(|folder| source::production(folder))
        .map(|file| file.text)
        .chain([source::read("charts/weft/templates/control-plane.yaml")])
        .collect();
    for document in documents() {
        for port in ports(&source::read(&document)) {
            assert!(
                ports(&sources).contains(port),
                "{document} names port {port}, which no source does"
            );
        }
    }
}

#[test]
fn the_fields_of_the_access_log_are_documented() {
    let text = source::read("proxy/src/record/line.rs");
    let line = text
        .split_once("struct Line<'a> {")
        .and_then(|(_, rest)| rest.split_once("\n}"));
    let (fields, _) = line.expect("record/line.rs defines struct Line");
    let fields: BTreeSet<_> = fields
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .filter_map(|line| line.trim().split_once(':').map(|(name, _)| name))
        .collect();
    let document = source::read("docs/access-log.md");
    let described: BTreeSet<_> = document
        .lines()
        .filter_map(|line| line.strip_prefix("| `"))
        .filter_map(|line| line.split('`').next())
        .collect();
    assert_eq!(
        fields, described,
        "docs/access-log.md and struct Line differ"
    );
}

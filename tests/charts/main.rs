//! The charts: what they render, to the byte, and that every value says what
//! it is for.
//!
//! `WEFT_REGENERATE=1 cargo test -p weft-tests --test charts` writes the golden
//! files again. Helm is what `tests/cluster/build helm3 helm4` built, else that
//! of the path.

#![allow(clippy::unwrap_used, reason = "helpers of tests panic as tests do")]

mod knobs;

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::Value;

/// A name for each golden file, and the values that it shows.
const RENDERINGS: [(&str, &[&str]); 2] = [
    // The definitions have their own test, beside the types that they are made of.
    ("defaults", &["crds.enabled=false"]),
    (
        "everything",
        &[
            "image.tag=1.2.3",
            "image.pullSecrets={registry}",
            "proxy.pullSecrets={registry,mirror}",
            "mesh.ranges={10.0.0.0/8,fd00::/8}",
            "ca.existingSecret=own-ca",
            "controlPlane.replicas=3",
            "controlPlane.podLabels.team=platform",
            "controlPlane.podAnnotations.note=hello",
            "controlPlane.nodeSelector.role=system",
            "controlPlane.tolerations[0].operator=Exists",
            "controlPlane.env[0].name=WEFT_HEARTBEAT",
            "controlPlane.env[0].value=2s",
            "monitoring.podMonitors=true",
            "monitoring.applicationMetrics=true",
            "monitoring.dashboards=true",
            "monitoring.labels.release=prometheus",
            "crds.enabled=false",
        ],
    ),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Each Helm that there is.
fn helms() -> Vec<PathBuf> {
    // The test program lies in TARGET/debug/deps.
    let program = std::env::current_exe().unwrap();
    let built = program.ancestors().nth(3).unwrap().join("tools/cluster");
    let mut found: Vec<_> = ["helm3", "helm4"]
        .iter()
        .map(|name| built.join(name))
        .filter(|it| it.exists())
        .collect();
    if found.is_empty() && Command::new("helm").arg("version").output().is_ok() {
        found.push("helm".into());
    }
    if found.is_empty() {
        let why = "no helm; `tests/cluster/build helm3 helm4` makes it";
        // Past what the test runner captures, as `tests/run.sh` counts it.
        let _unheard = writeln!(io::stderr(), "SKIPPED: {why}");
    }
    found
}

fn template(helm: &Path, values: &[&str]) -> Output {
    let mut command = Command::new(helm);
    command
        .args([
            "template",
            "weft",
            "charts/weft",
            "--namespace",
            "weft-system",
        ])
        .args(["--kube-version", "1.34.0"])
        .current_dir(root());
    for value in values {
        command.args(["--set", value]);
    }
    command.output().unwrap()
}

fn rendered(helm: &Path, values: &[&str]) -> String {
    let output = template(helm, values);
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn should_write() -> bool {
    #[allow(
        clippy::disallowed_methods,
        reason = "a switch of this test, not a knob"
    )]
    std::env::var("WEFT_REGENERATE").is_ok()
}

/// Helm 3 leaves out blank lines that Helm 4 keeps, and each has its own order
/// of kinds that it doesn't know: here documents stand by their templates.
fn comparable(text: &str) -> String {
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    let lines: String = lines.flat_map(|line| [line, "\n"]).collect();
    let mut documents: Vec<_> = lines.split("---\n").filter(|it| !it.is_empty()).collect();
    documents.sort_unstable();
    documents.iter().map(|it| format!("---\n{it}")).collect()
}

#[test]
fn both_helms_render_the_golden_files() {
    for helm in helms() {
        for (name, values) in RENDERINGS {
            let path = root().join(format!("tests/charts/golden/{name}.yaml"));
            let fresh = comparable(&rendered(&helm, values));
            if should_write() {
                fs::write(&path, &fresh).unwrap();
            }
            let kept = fs::read_to_string(&path).unwrap_or_default();
            assert!(
                fresh == kept,
                "{} renders something else than {}: look at the difference that\n  WEFT_REGENERATE=1 cargo test -p \
                 weft-tests --test charts\nmakes, and commit it if it is meant.",
                helm.display(),
                path.display()
            );
            assert!(!fresh.contains("caBundle:"), "the control plane owns it");
        }
    }
}

#[test]
fn both_definitions_are_installed_and_outlive_the_chart() {
    for helm in helms() {
        let all = rendered(&helm, &[]);
        let definitions: Vec<_> = all
            .split("\n---\n")
            .filter(|it| it.contains("\nkind: CustomResourceDefinition\n"))
            .collect();
        assert_eq!(definitions.len(), 2, "{}", helm.display());
        for definition in definitions {
            assert!(
                definition.contains("helm.sh/resource-policy: keep"),
                "{definition}"
            );
        }
    }
}

#[test]
fn a_misspelt_value_is_refused() {
    for helm in helms() {
        for values in [
            "controlPlane.replica=3",
            "mesh.certificateLifetime=tomorrow",
        ] {
            let output = template(&helm, &[values]);
            assert!(!output.status.success(), "{values} passed");
        }
    }
}

#[test]
fn every_value_has_its_description_and_its_comment() {
    let text = fs::read_to_string(root().join("charts/weft/values.yaml")).unwrap();
    let values: Value = serde_saphyr::from_str(&text).unwrap();
    let schema = fs::read_to_string(root().join("charts/weft/values.schema.json")).unwrap();
    let schema: Value = serde_json::from_str(&schema).unwrap();
    let mut leaves = Vec::new();
    compare(&values, &schema, "", &mut leaves);
    for leaf in leaves {
        let name = leaf.rsplit('.').next().unwrap();
        let at = text
            .lines()
            .position(|line| line.trim_start().starts_with(&format!("{name}:")))
            .unwrap();
        let before = text.lines().nth(at - 1).unwrap();
        assert!(
            before.trim_start().starts_with('#'),
            "{leaf} has no comment"
        );
    }
}

/// Values and schema name the same; leaves are what the schema goes no further into.
fn compare(values: &Value, schema: &Value, path: &str, leaves: &mut Vec<String>) {
    assert!(
        schema["description"]
            .as_str()
            .is_some_and(|it| it.ends_with('.') || path.is_empty()),
        "{path} has no description in values.schema.json"
    );
    let Some(properties) = schema["properties"].as_object() else {
        leaves.push(path.to_owned());
        return;
    };
    let values = values.as_object().unwrap();
    let below = |name: &str| [path, name].join(".").trim_start_matches('.').to_owned();
    for (name, value) in values {
        let schema = properties.get(name).unwrap_or(&Value::Null);
        compare(value, schema, &below(name), leaves);
    }
    for name in properties.keys() {
        let of_helm = ["global", "weft-crds"].contains(&name.as_str());
        assert!(
            of_helm || values.contains_key(name),
            "{} is in no values.yaml",
            below(name)
        );
    }
}

#[test]
fn every_metric_of_a_dashboard_exists() {
    let metrics = fs::read_to_string(root().join("docs/metrics.md")).unwrap();
    let mut found = 0;
    for entry in fs::read_dir(root().join("charts/weft/dashboards")).unwrap() {
        let text = fs::read_to_string(entry.unwrap().path()).unwrap();
        serde_json::from_str::<Value>(&text).unwrap();
        for piece in
            text.split(|it: char| !it.is_ascii_lowercase() && it != '_' && !it.is_ascii_digit())
        {
            if !piece.starts_with("weft_") {
                continue;
            }
            let name = piece.trim_end_matches("_bucket");
            assert!(
                metrics.contains(&format!("`{name}`")),
                "{name} is no metric"
            );
            found += 1;
        }
    }
    assert!(found > 5, "the dashboards ask for nothing");
}

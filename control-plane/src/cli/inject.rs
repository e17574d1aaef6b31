//! `weft inject`: gives the workloads of a manifest their proxy, without a
//! cluster, by the function that the webhook calls.
//!
//! Documents that make no pods pass through as they are written. What is
//! refused is told with its line, and then nothing is written at all.

use std::{
    fs,
    io::{self, Read, Write},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::{Context, bail};

use crate::{
    admission::{self, Settings, workload},
    config::Injection,
    sources::manifest::document,
};

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Manifest, `-` for standard input
    #[arg(short, long, value_name = "FILE")]
    filename: PathBuf,
    /// Roots in PEM that the proxies begin with (the control plane's `ca.crt`)
    #[arg(long, value_name = "FILE")]
    trust_bundle: PathBuf,
    /// Trust domain of the mesh
    #[arg(long, default_value = "cluster.local")]
    trust_domain: String,
    #[command(flatten)]
    injection: Injection,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let named = arguments.filename.display().to_string();
    let mut text = String::new();
    let read = match named.as_str() {
        "-" => io::stdin().read_to_string(&mut text).map(drop),
        _ => fs::read_to_string(&arguments.filename).map(|it| text = it),
    };
    read.with_context(|| named.clone())?;
    let bundle = &arguments.trust_bundle;
    let pem = fs::read_to_string(bundle).with_context(|| bundle.display().to_string())?;
    if !pem.contains("-----BEGIN CERTIFICATE-----") {
        bail!("{}: no certificate in PEM", bundle.display());
    }
    let settings = arguments.injection.settings(&arguments.trust_domain, &pem);
    let token = admission::token().context("the system gives no random numbers")?;
    match injected(&text, &settings, &token) {
        Ok(text) => {
            io::stdout()
                .write_all(text.as_bytes())
                .context("standard output")?;
            Ok(ExitCode::SUCCESS)
        }
        Err(refused) => bail!(
            "{}",
            refused
                .iter()
                .map(|(line, why)| format!("{named}:{line}: {why}"))
                .collect::<Vec<_>>()
                .join("\n      ")
        ),
    }
}

/// All documents, or every one that is refused, with its line.
fn injected(text: &str, settings: &Settings, token: &str) -> Result<String, Vec<(u64, String)>> {
    let (mut written, mut refused) = (Vec::new(), Vec::new());
    for raw in document::split(text) {
        match document::parse(&raw) {
            Err((line, refusal)) => refused.push((line, refusal.to_string())),
            Ok(value) => match workload::inject(&value, settings, token) {
                Err(refusal) => {
                    let kind = value["kind"].as_str().unwrap_or("object");
                    let name = value["metadata"]["name"].as_str().unwrap_or_default();
                    refused.push((raw.line, format!("{kind} {name}: {refusal}")));
                }
                Ok(None) => written.push(raw.text.trim_start_matches("---").trim().to_owned()),
                Ok(Some(value)) => match serde_saphyr::to_string(&value) {
                    Ok(yaml) => written.push(yaml.trim().to_owned()),
                    Err(error) => refused.push((raw.line, error.to_string())),
                },
            },
        }
    }
    match refused.is_empty() {
        true => Ok(written.join("\n---\n") + "\n"),
        false => Err(refused),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        injection: Injection,
    }

    fn settings() -> Settings {
        let line = Line::parse_from(["weft"]);
        line.injection.settings("cluster.local", "pem")
    }

    const MANIFEST: &str = "# A shop
apiVersion: v1
kind: Service # stays as it is
metadata: {name: web}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  template:
    spec:
      containers: [{name: app, image: a, env: [{name: A, value: \"yes\"}, {name: B, value: \"010\"}]}]
";

    #[test]
    fn documents_come_out_in_their_order_and_others_as_they_are_written() {
        let text = injected(MANIFEST, &settings(), "t").unwrap();
        let (service, deployment) = text.split_once("\n---\n").unwrap();
        let before = MANIFEST.split_once("\n---\n").unwrap().0;
        assert_eq!(service, before);
        let again: serde_json::Value = serde_saphyr::from_str(deployment).unwrap();
        let pod = &again["spec"]["template"]["spec"];
        assert_eq!(pod["initContainers"][1]["name"], "weft-proxy");
        // Texts that look like something else stay texts.
        assert_eq!(pod["containers"][0]["env"][0]["value"], "yes");
        assert_eq!(pod["containers"][0]["env"][1]["value"], "010");
        assert!(deployment.contains("value: \"yes\"") || deployment.contains("value: 'yes'"));
    }

    #[test]
    fn a_text_that_reads_like_something_else_stays_a_text() {
        for text in [
            "y", "n", "on", "NO", "~", "null", "1e3", "0x10", "1.0", "a: b", "# c", " d ", "- e",
            "",
        ] {
            let quoted = serde_json::to_string(text).unwrap();
            let pod =
                format!("kind: Pod\nspec: {{containers: [{{name: app, image: {quoted}}}]}}\n");
            let written = injected(&pod, &settings(), "t").unwrap();
            let again: serde_json::Value = serde_saphyr::from_str(&written).unwrap();
            assert_eq!(again["spec"]["containers"][0]["image"], text, "{written}");
        }
    }

    #[test]
    fn what_comes_out_goes_in_again_unchanged() {
        let once = injected(MANIFEST, &settings(), "t").unwrap();
        assert_eq!(injected(&once, &settings(), "u"), Ok(once));
    }

    #[test]
    fn every_refusal_is_told_with_its_line() {
        let bad = "---\nkind: Pod\nmetadata: {name: a}\nspec: {securityContext: {runAsUser: 2102}, containers: []}\n";
        let text = format!("{MANIFEST}{bad}{bad}---\na: [");
        let refused = injected(&text, &settings(), "t").unwrap_err();
        let lines: Vec<_> = refused.iter().map(|it| it.0).collect();
        assert_eq!(lines, [13, 17, 22], "{refused:?}");
        assert!(
            refused[0]
                .1
                .starts_with("Pod a: spec.securityContext.runAsUser is 2102")
        );
    }
}

//! What the chart tells the control plane, and what the injector tells
//! proxies: variables that exist, with values that they take.
//!
//! A variable that nobody reads is no error to the program that is given it, so
//! a slip of the pen would only show as a setting without effect.

use std::{collections::BTreeSet, fs};

use clap::Parser as _;
use serde_json::Value;
use weft_control_plane::{config::Config, reference};

use crate::{RENDERINGS, root};

/// Name and value of each variable of a container. What the kubelet would fill
/// in is a name.
fn environment(container: &Value) -> Vec<(String, String)> {
    let variables = container["env"].as_array().unwrap();
    let read = |it: &Value| {
        let name = it["name"].as_str().unwrap().to_owned();
        let value = it["value"].as_str().unwrap_or_else(|| {
            assert!(it["valueFrom"]["fieldRef"].is_object(), "{it}");
            "filled-in"
        });
        (name, value.to_owned())
    };
    variables.iter().map(read).collect()
}

fn control_plane(rendering: &str) -> Value {
    let path = root().join(format!("tests/charts/golden/{rendering}.yaml"));
    let text = fs::read_to_string(path).unwrap();
    let document = text
        .split("---\n")
        .find(|it| it.contains("\nkind: Deployment\n"));
    let deployment: Value = serde_saphyr::from_str(document.unwrap()).unwrap();
    deployment["spec"]["template"]["spec"]["containers"][0].clone()
}

#[test]
fn the_control_plane_takes_every_variable_that_the_chart_sets() {
    let knobs = reference::knobs();
    for (rendering, _) in RENDERINGS {
        let container = control_plane(rendering);
        let mut arguments = vec!["weft-control-plane".to_owned()];
        for (name, value) in environment(&container) {
            let knob = knobs.iter().find(|it| it.variable == name);
            let knob = knob.unwrap_or_else(|| {
                panic!("{name} in {rendering} is no knob of docs/configuration.md")
            });
            arguments.push(format!("{}={value}", knob.option));
        }
        assert!(arguments.len() > 10, "{rendering}: {arguments:?}");
        Config::try_parse_from(&arguments).unwrap_or_else(|error| panic!("{rendering}: {error}"));
    }
}

#[test]
fn what_can_be_said_once_is_said_once() {
    for (rendering, _) in RENDERINGS {
        let all = environment(&control_plane(rendering));
        let names: BTreeSet<_> = all.iter().map(|(name, _)| name).collect();
        assert_eq!(names.len(), all.len(), "{rendering} sets a variable twice");
    }
}

#[test]
fn a_proxy_takes_every_variable_that_the_injector_sets() {
    let knobs = weft_proxy::reference::knobs();
    let cases = root().join("control-plane/src/admission/inject/cases");
    let mut injected = 0;
    for entry in fs::read_dir(cases).unwrap() {
        let path = entry.unwrap().path();
        let case = path.display().to_string();
        if !case.ends_with(".injected.yaml") {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        let pod: Value = serde_saphyr::from_str(&text).unwrap();
        let mut containers = pod["spec"]["initContainers"].as_array().unwrap().iter();
        let proxy = containers.find(|it| it["name"] == "weft-proxy");
        let variables = environment(proxy.unwrap());
        injected += 1;
        for (name, _) in &variables {
            assert!(
                knobs.iter().any(|it| it.name == name),
                "{name} in {case} is no knob of docs/configuration.md"
            );
        }
        let probes = pod["metadata"]["annotations"]["weft.dev/probes"].as_str();
        let config = weft_proxy::config::Config::from_source(|name| match name {
            "WEFT_PROBES" => probes.map(str::to_owned),
            name => {
                let mut given = variables.iter();
                given.find(|it| it.0 == name).map(|it| it.1.clone())
            }
        });
        assert!(config.is_ok(), "{case}: {config:?}");
    }
    assert!(injected > 2, "the cases are elsewhere");
}

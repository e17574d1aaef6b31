use std::{fs, path::Path};

use serde_json::json;

use super::*;
use crate::admission::{Resources, patch};

mod refused;
mod resources;

fn settings() -> Settings {
    Settings {
        image: "weft.dev/proxy:0.1.0".to_owned(),
        pull_policy: "IfNotPresent".to_owned(),
        control_plane: "weft-control-plane.weft-system.svc:15010".to_owned(),
        trust_domain: "cluster.local".to_owned(),
        trust_bundle: "-----BEGIN CERTIFICATE-----\n".to_owned(),
        resources: Resources::default(),
        pull_secrets: Vec::new(),
        application_metrics: false,
    }
}

fn inject(pod: &Value) -> Result<Verdict, Refusal> {
    super::inject(pod, &Namespace::default(), &settings(), "secret")
}

fn injected(pod: &Value) -> Value {
    match inject(pod) {
        Ok(Verdict::Injected { pod, .. }) => *pod,
        other => panic!("{other:?}"),
    }
}

fn yaml(text: &str) -> Value {
    serde_saphyr::from_str(text).unwrap()
}

/// A pod of one container, with `spec` over it.
fn pod(spec: &str) -> Value {
    let mut pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "web-0", "namespace": "shop"},
        "spec": {"containers": [{"name": "app", "image": "example.com/web:1"}]},
    });
    for (field, value) in yaml(spec).as_object().unwrap() {
        pod["spec"][field] = value.clone();
    }
    pod
}

const CASES: [&str; 4] = ["plain", "probes", "guaranteed", "order"];

#[test]
fn pods_come_out_as_the_examples_show() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/admission/inject/cases");
    #[allow(
        clippy::disallowed_methods,
        reason = "a switch of this test, not a knob"
    )]
    let should_write = std::env::var("WEFT_REGENERATE").is_ok();
    for case in CASES {
        let before = yaml(&fs::read_to_string(folder.join(format!("{case}.yaml"))).unwrap());
        let after = injected(&before);
        let path = folder.join(format!("{case}.injected.yaml"));
        if should_write {
            fs::write(&path, serde_saphyr::to_string(&after).unwrap()).unwrap();
        }
        let expected = yaml(&fs::read_to_string(&path).unwrap());
        assert_eq!(
            after, expected,
            "{case}: write it again by WEFT_REGENERATE=1 cargo test -p weft-control-plane, and look at the difference"
        );
    }
}

#[test]
fn a_pod_that_was_here_before_comes_out_the_same() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/admission/inject/cases");
    for case in CASES {
        let before = yaml(&fs::read_to_string(folder.join(format!("{case}.yaml"))).unwrap());
        let once = injected(&before);
        let twice = match super::inject(&once, &Namespace::default(), &settings(), "another") {
            Ok(Verdict::Injected { pod, .. }) => pod,
            other => panic!("{other:?}"),
        };
        assert_eq!(patch::between(&once, &twice), Vec::<Value>::new(), "{case}");
    }
}

#[test]
fn a_scraped_pod_leads_its_scraper_to_the_proxy_where_the_installation_says_so() {
    let mut scraped = pod("{}");
    let said = json!({"prometheus.io/scrape": "true", "prometheus.io/port": "9090"});
    scraped["metadata"]["annotations"] = said;
    let given = |is_opened| {
        let settings = Settings {
            application_metrics: is_opened,
            ..settings()
        };
        match super::inject(&scraped, &Namespace::default(), &settings, "secret") {
            Ok(Verdict::Injected { pod, .. }) => {
                let environment = pod["spec"]["initContainers"][1]["env"].as_array().unwrap();
                let mut all = environment.iter();
                let knob = all.find(|it| it["name"] == "WEFT_APPLICATION_METRICS");
                let port = pod["metadata"]["annotations"]["prometheus.io/port"].clone();
                (knob.map(|it| it["value"].clone()), port)
            }
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(given(false), (None, json!("9090")));
    assert_eq!(given(true), (Some(json!("9090/metrics")), json!("15020")));
}

#[test]
fn what_another_webhook_adds_later_is_brought_in_order() {
    let mut pod = injected(&pod("{}"));
    let own = pod["spec"]["initContainers"].as_array_mut().unwrap();
    own.insert(0, json!({"name": "first", "image": "example.com/first:1"}));
    own.push(json!({
        "name": "agent",
        "image": "example.com/agent:1",
        "restartPolicy": "Always",
        "readinessProbe": {"httpGet": {"path": "/", "port": 8200}},
    }));
    let again = injected(&pod);
    let names = again["spec"]["initContainers"].as_array().unwrap().iter();
    let names: Vec<_> = names.map(|it| it["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["weft-redirect", "weft-proxy", "first", "agent"]);
    let probe = &again["spec"]["initContainers"][3]["readinessProbe"]["httpGet"];
    assert_eq!(probe["path"], "/probe/agent/readiness");
    let proxy = &again["spec"]["initContainers"][1];
    let has_probes = |it: &Value| it["name"] == "WEFT_PROBES";
    assert!(proxy["env"].as_array().unwrap().iter().any(has_probes));
}

#[test]
fn pods_that_no_proxy_can_serve_are_left_alone() {
    for (spec, labels, why) in [
        ("{}", json!({"weft.dev/inject": "disabled"}), Why::Disabled),
        ("{hostNetwork: true}", json!({}), Why::HostNetwork),
        ("{os: {name: windows}}", json!({}), Why::Windows),
        (
            "{nodeSelector: {kubernetes.io/os: windows}}",
            json!({}),
            Why::Windows,
        ),
    ] {
        let mut pod = pod(spec);
        pod["metadata"]["labels"] = labels;
        assert_eq!(inject(&pod), Ok(Verdict::Left(why)), "{spec}");
    }
    let mut mirror = pod("{}");
    mirror["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": "x"});
    assert_eq!(inject(&mirror), Ok(Verdict::Left(Why::Mirror)));
}

#[test]
fn a_pod_with_a_dns_of_its_own_is_told_of_it() {
    let verdict = inject(&pod(
        "{dnsPolicy: None, dnsConfig: {nameservers: [192.0.2.1]}}",
    ));
    let Ok(Verdict::Injected { warnings, .. }) = verdict else {
        panic!("{verdict:?}");
    };
    assert!(
        warnings[0].starts_with("spec.dnsPolicy is None"),
        "{warnings:?}"
    );
}

#[test]
fn a_value_is_never_expanded_by_the_kubelet() {
    let mut settings = settings();
    settings.trust_domain = "a$(POD)b".to_owned();
    let verdict = super::inject(&pod("{}"), &Namespace::default(), &settings, "secret");
    let Ok(Verdict::Injected { pod, .. }) = verdict else {
        panic!("{verdict:?}");
    };
    assert!(pod.to_string().contains("a$$(POD)b"));
}

#[test]
fn secrets_of_the_registry_stand_beside_the_pods_own() {
    let mut settings = settings();
    settings.pull_secrets = vec!["mesh".to_owned(), "own".to_owned()];
    let mut pod = pod("{imagePullSecrets: [{name: own}]}");
    for (annotation, expected) in [
        (None, json!([{"name": "own"}, {"name": "mesh"}])),
        (
            Some("a, b"),
            json!([{"name": "own"}, {"name": "a"}, {"name": "b"}]),
        ),
    ] {
        if let Some(names) = annotation {
            pod["metadata"]["annotations"] = json!({"weft.dev/proxy-pull-secrets": names});
        }
        for _again in 0..2 {
            let verdict = super::inject(&pod, &Namespace::default(), &settings, "secret");
            let Ok(Verdict::Injected { pod: after, .. }) = verdict else {
                panic!("{verdict:?}");
            };
            assert_eq!(after["spec"]["imagePullSecrets"], expected);
        }
    }
}

//! What an operator asks from outside: `weft status`, `weft explain`, `weft check`,
//! through the API server, with the rights that the documents name.

use std::time::Duration;

use serde_json::{Value, json};
use weft_tests::wait;

use crate::{
    echo,
    kubernetes::{Said, kubectl, kubectl_with, run},
    mesh::SYSTEM,
    namespace::Namespace,
};

/// Whoever holds the Lease looks every 30 s, and tells of it in the second look.
const LOOKS: Duration = Duration::from_secs(120);

fn weft(args: &[&str]) -> Said {
    run("weft", args, "")
}

fn told(args: &[&str]) -> Value {
    let said = weft(&[args, &["--output", "json"]].concat());
    serde_json::from_str(&said.out).unwrap_or_else(|error| panic!("{error}: {said:?}"))
}

#[test]
fn every_replica_answers_who_is_connected_and_what_would_become_of_a_request() {
    let asked = Namespace::meshed("asked");
    asked.apply(&format!(
        "{}---\n{}",
        echo::workload("web", 1),
        echo::workload("cart", 1)
    ));
    asked.ready("deployment/web");
    asked.ready("deployment/cart");
    let web = format!("asked/{}", asked.pod("app=web"));
    let status = told(&["status"]);
    let replicas = status["replicas"].as_array().unwrap();
    assert!(replicas.len() >= 2, "{replicas:?}");
    for replica in replicas {
        assert_eq!(replica["error"], "", "{replica}");
    }
    let proxies = status["proxies"].as_array().unwrap();
    let found = proxies.iter().find(|it| it["pod"] == *web);
    let found = found.unwrap_or_else(|| panic!("{web} in {status}"));
    let left = found["certificate_expires_seconds"].as_i64().unwrap();
    assert!(left > 3600, "{found}");

    let explained = weft(&["explain", "--from", &web, "--to", "http://cart.asked/"]).text();
    assert!(explained.contains("service asked/cart:80"), "{explained}");
    assert!(explained.contains("ready    asked/cart-"), "{explained}");

    let working = told(&["check", "--before-uninstall"]);
    let mut pods = working.as_array().unwrap().iter();
    let found = pods.find(|it| it["pod"] == *web);
    let found = found.unwrap_or_else(|| panic!("{web} in {working}"));
    assert!(found["until"].is_string(), "{found}");
}

#[test]
fn a_pod_that_is_older_than_its_label_is_found_told_and_forgotten_with_its_restart() {
    let late = Namespace::plain("late-label");
    late.apply(&echo::workload("web", 1));
    late.ready("deployment/web");
    let pod = late.pod("app=web");
    kubectl(&[
        "label",
        "namespace",
        "late-label",
        "weft.dev/inject=enabled",
    ])
    .text();
    let object = format!("Pod late-label/{pod}");
    let is_found = || {
        let found = told(&["check"]);
        let all = found["findings"].as_array().unwrap();
        all.iter()
            .any(|it| it["what"] == "unmeshed" && it["object"] == *object)
    };
    wait::within(LOOKS, || is_found().then_some(())).expect("check doesn't find the pod");
    assert!(!weft(&["check"]).ok, "an error has an exit code");
    let events = || {
        let of_pod = format!("regarding.name={pod}");
        let list = ["get", "events.events.k8s.io", "--field-selector", &of_pod];
        late.kubectl(&list).out.contains("NotInMesh").then_some(())
    };
    wait::within(LOOKS, events).expect("no event tells of the pod");

    late.kubectl(&["rollout", "restart", "deployment/web"])
        .text();
    late.ready("deployment/web");
    wait::within(LOOKS, || (!is_found()).then_some(())).expect("check still finds the old pod");
}

/// The Role that docs/troubleshooting.md gives to who looks.
fn documented_role() -> &'static str {
    let text = include_str!("../../docs/troubleshooting.md");
    let block = text
        .split("```")
        .find_map(|it| it.strip_prefix("yaml\n"))
        .filter(|it| it.contains("kind: Role"));
    block.expect("docs/troubleshooting.md has a Role")
}

#[test]
fn who_may_not_forward_a_port_is_told_nothing_and_the_documented_role_is_enough() {
    let _asker = Namespace::plain("asker");
    kubectl(&[
        "--namespace",
        "asker",
        "create",
        "serviceaccount",
        "operator",
    ])
    .text();
    let token = kubectl(&["--namespace", "asker", "create", "token", "operator"]).text();
    let config = kubectl(&["config", "view", "--raw", "--minify", "--output=json"]).text();
    let mut config: Value = serde_json::from_str(&config).unwrap();
    config["users"][0]["user"] = json!({"token": token.trim()});
    let directory = std::env::temp_dir().join(format!("weft-asker-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let path = directory.join("kubeconfig");
    std::fs::write(&path, config.to_string()).unwrap();
    let kubeconfig = path.to_str().unwrap();
    let status = || weft(&["status", "--kubeconfig", kubeconfig]);

    let refused = status();
    assert!(!refused.ok && refused.out.is_empty(), "{refused:?}");
    assert!(refused.err.contains("forbidden"), "{refused:?}");
    kubectl_with(&["apply", "--filename", "-"], documented_role()).text();
    let role = "--role=look-at-the-mesh";
    let account = "--serviceaccount=asker:operator";
    let bind = [
        "--namespace",
        SYSTEM,
        "create",
        "rolebinding",
        "asker",
        role,
        account,
    ];
    kubectl(&bind).text();
    let answer = wait::until("the rights", || {
        let said = status();
        said.ok.then_some(said.out)
    });
    assert!(answer.starts_with("mesh cluster.local"), "{answer}");
    kubectl(&[
        "--namespace",
        SYSTEM,
        "delete",
        "rolebinding/asker",
        "role/look-at-the-mesh",
    ])
    .text();
    std::fs::remove_dir_all(&directory).ok();
}

//! One `helm install` with no values, and what it gives within a minute.

use std::time::Duration;

use tokio::time::Instant;
use weft_tests::wait;

use crate::{
    echo,
    kubernetes::{kubectl, run},
    mesh::{SYSTEM, helm, mesh, wait_for_control_plane},
    namespace::Namespace,
    wire::Capture,
};

#[test]
fn from_helm_install_to_the_first_request_over_mtls_takes_less_than_a_minute() {
    let installed_in = mesh().installed_in;
    let began = Instant::now();
    let shop = Namespace::meshed("first-request");
    shop.apply(&format!(
        "{}---\n{}",
        echo::workload("web", 1),
        echo::workload("cart", 1)
    ));
    shop.ready("deployment/web");
    shop.ready("deployment/cart");
    shop.call("deployment/web", &["http://cart/"]).assert_ok();
    let took = installed_in + began.elapsed();
    let cart = shop.pod("app=cart");
    let accepted = shop.metric(&cart, "weft_tls_accepted_handshakes_total", &[]);
    assert!(accepted > 0.0, "the request came without mutual TLS");
    eprintln!("install {installed_in:?}, install to first request {took:?}");
    assert!(took < Duration::from_secs(60), "{took:?}");
}

#[test]
fn on_the_wire_a_request_is_ciphertext_and_without_the_mesh_it_is_not() {
    for (namespace, expected) in [
        (Namespace::plain("wire-plain"), true),
        (Namespace::meshed("wire-meshed"), false),
    ] {
        namespace.apply(&format!(
            "{}---\n{}",
            echo::workload("web", 1),
            echo::workload("cart", 1)
        ));
        namespace.ready("deployment/web");
        namespace.ready("deployment/cart");
        let cart = namespace.pod("app=cart");
        let node = namespace.get(&format!("pod/{cart}"), "{.spec.nodeName}");
        let address = namespace.get(&format!("pod/{cart}"), "{.status.podIP}");
        let Some(capture) = Capture::start(&node, &address) else {
            eprintln!("SKIPPED: a capture needs a node of ours");
            return;
        };
        // Without a mesh a Service may be unknown to its node for a moment.
        wait::until("the request", || {
            let marked = ["http://cart/", "--header=marker: seen-on-the-wire"];
            let answer = namespace.call("deployment/web", &marked);
            (answer.status() == Some(200)).then_some(())
        });
        let seen = capture.end("seen-on-the-wire");
        assert!(seen.packets > 0, "nothing was captured");
        assert_eq!(seen.found, expected, "{}: {seen:?}", namespace.name);
    }
}

#[test]
fn an_upgrade_that_changes_nothing_keeps_the_webhooks_certificate() {
    mesh();
    let bundle = || {
        let path = "--output=jsonpath={.webhooks[0].clientConfig.caBundle}";
        kubectl(&["get", "mutatingwebhookconfiguration", "weft-injector", path]).text()
    };
    let before = bundle();
    assert!(
        !before.is_empty(),
        "the control plane has written no caBundle"
    );
    for program in ["helm3", "helm4"] {
        helm(program, &["upgrade"]).text();
        wait_for_control_plane();
        assert_eq!(bundle(), before, "after an upgrade by {program}");
    }
}

#[test]
fn the_control_plane_asks_for_nothing_that_its_roles_refuse() {
    mesh();
    let refused = kubectl(&[
        "--namespace",
        SYSTEM,
        "logs",
        "--selector=app.kubernetes.io/component=control-plane",
        "--tail=-1",
    ])
    .text()
    .lines()
    .filter(|line| line.contains("forbidden"))
    .map(str::to_owned)
    .collect::<Vec<_>>();
    assert!(refused.is_empty(), "{refused:#?}");
}

#[test]
fn helm_test_sees_a_pod_get_its_certificate() {
    mesh();
    let test = ["test", "weft", "--namespace", SYSTEM, "--timeout=240s"];
    let said = run("helm4", &test, "").text();
    let phase = said.lines().find_map(|it| it.strip_prefix("Phase:"));
    assert_eq!(phase.map(str::trim), Some("Succeeded"), "{said}");
    // It cleans up behind itself.
    let left = ["--namespace", SYSTEM, "get", "pod/weft-test-certify"];
    assert!(!kubectl(&left).ok);
}

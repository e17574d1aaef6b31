//! What breaks for longer: a node, the control plane, the whole installation.
//! Run by `tests/cluster/run --include-ignored`.

use std::{process::Command, time::Duration};

use weft_tests::wait;

use crate::{
    echo,
    kubernetes::{kubectl, on_node, run},
    load::Load,
    mesh::{SYSTEM, helm, wait_for_control_plane},
    namespace::Namespace,
};

const CONTROL_PLANE: &str = "deployment/weft-control-plane";

fn scale_control_plane(replicas: usize) {
    let replicas = format!("--replicas={replicas}");
    kubectl(&["--namespace", SYSTEM, "scale", CONTROL_PLANE, &replicas]).text();
}

#[test]
#[ignore = "long: the control plane is away for three minutes"]
fn without_a_control_plane_traffic_goes_on_and_no_pod_starts_outside_of_the_mesh() {
    let shop = Namespace::meshed("outage");
    shop.apply(&echo::workload("cart", 2));
    shop.ready("deployment/cart");
    let load = Load::start(&shop, 180);
    scale_control_plane(0);
    kubectl(&[
        "--namespace",
        SYSTEM,
        "wait",
        "--for=delete",
        "pod",
        "--selector=app.kubernetes.io/component=control-plane",
        "--timeout=90s",
    ])
    .text();
    shop.apply(&echo::deployment("late", 1));
    let refusal = wait::until("the refusal to be told", || {
        let told = shop.get(
            "deployment/late",
            "{.status.conditions[?(@.type==\"ReplicaFailure\")].message}",
        );
        (!told.is_empty()).then_some(told)
    });
    assert!(
        refusal.contains("weft"),
        "the refusal names nobody: {refusal}"
    );
    load.assert_lost_nothing();
    scale_control_plane(2);
    wait_for_control_plane();
    // The ReplicaSet's controller tries again after up to 5 minutes.
    let said = shop.kubectl(&["rollout", "status", "deployment/late", "--timeout=360s"]);
    assert!(said.ok, "{said:?}");
    let late = shop.pod("app=late");
    let containers = shop.get(&format!("pod/{late}"), "{.spec.initContainers[*].name}");
    assert!(
        containers.contains("weft-proxy"),
        "it runs outside of the mesh: {containers:?}"
    );
}

/// The wire of a node, in the network that joins them.
fn wire(number: &str, state: &str) {
    let name = format!("kveth{number}");
    let said = Command::new("nsenter")
        .args([
            "--net=/run/netns/kfabric",
            "ip",
            "link",
            "set",
            &name,
            state,
        ])
        .status()
        .unwrap();
    assert!(said.success());
}

/// Puts the wire back, whatever happens.
struct Cut<'a>(&'a str);

impl Drop for Cut<'_> {
    fn drop(&mut self) {
        wire(self.0, "up");
    }
}

#[test]
#[ignore = "long: a node is away for a minute"]
fn requests_leave_a_node_that_is_cut_off_and_come_back_with_it() {
    if on_node("node2").is_none() {
        eprintln!("SKIPPED: the wire of somebody else's node");
        return;
    }
    let shop = Namespace::meshed("cut-off");
    let spread = "spec:\n      topologySpreadConstraints: [{maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: DoNotSchedule, labelSelector: {matchLabels: {app: cart}}}]\n      serviceAccountName";
    shop.apply(&format!(
        "{}---\n{}",
        echo::service("cart", ""),
        echo::deployment("cart", 2).replace("spec:\n      serviceAccountName", spread)
    ));
    let pinned = "spec:\n      nodeName: node1\n      serviceAccountName";
    shop.apply(&echo::deployment("web", 1).replace("spec:\n      serviceAccountName", pinned));
    shop.ready("deployment/cart");
    shop.ready("deployment/web");
    let ask = || {
        shop.call(
            "deployment/web",
            &["--count=20", "--timeout=20s", "http://cart/"],
        )
        .0
        .out
    };
    let good = |out: &str| {
        out.lines()
            .filter(|line| line.ends_with("StatusCode=200"))
            .count()
    };
    let cut = Cut("2");
    wire("2", "down");
    wait::within(Duration::from_secs(60), || {
        (good(&ask()) == 20).then_some(())
    })
    .expect("all requests go to the node that is left");
    drop(cut);
    kubectl(&[
        "wait",
        "--for=condition=Ready",
        "node/node2",
        "--timeout=120s",
    ])
    .text();
    shop.ready("deployment/cart");
    wait::within(Duration::from_secs(90), || {
        let out = ask();
        let servers: std::collections::BTreeSet<_> = out
            .lines()
            .filter_map(|line| line.split_once("Hostname=").map(|(_, name)| name))
            .collect();
        (servers.len() == 2).then_some(())
    })
    .expect("the node's endpoint serves again");
}

#[test]
#[ignore = "long, and others need the installation: it is put back"]
fn an_uninstall_leaves_running_pods_as_they_are_and_new_ones_plain() {
    let shop = Namespace::meshed("uninstall");
    shop.apply(&echo::workload("cart", 2));
    shop.ready("deployment/cart");
    let load = Load::start(&shop, 60);
    run(
        "helm4",
        &["uninstall", "weft", "--namespace", SYSTEM, "--wait"],
        "",
    )
    .text();
    let definitions = kubectl(&[
        "get",
        "crd",
        "accesspolicies.weft.dev",
        "backendpolicies.weft.dev",
    ]);
    shop.apply(&echo::deployment("late", 1));
    shop.ready("deployment/late");
    let late = shop.pod("app=late");
    let containers = shop.get(&format!("pod/{late}"), "{.spec.initContainers[*].name}");
    load.assert_lost_nothing();
    helm("helm3", &["install"]).text();
    wait_for_control_plane();
    assert!(
        definitions.ok,
        "an uninstall must keep policies: {definitions:?}"
    );
    assert_eq!(containers, "", "a pod that starts without a mesh is plain");
}

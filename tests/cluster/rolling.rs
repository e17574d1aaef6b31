//! Restarts of everything, under load: the mesh makes no error of its own.

use crate::{
    echo,
    kubernetes::{kubectl, kubectl_for, on_node},
    load::Load,
    mesh::{SYSTEM, helm, wait_for_control_plane},
    namespace::Namespace,
};

fn shop(name: &'static str) -> Namespace {
    let shop = Namespace::meshed(name);
    shop.apply(&echo::workload("cart", 2));
    shop.ready("deployment/cart");
    shop
}

#[test]
fn restarting_the_server_loses_no_request() {
    let shop = shop("rolling-server");
    let load = Load::start(&shop, 40);
    shop.kubectl(&["rollout", "restart", "deployment/cart"])
        .text();
    shop.ready("deployment/cart");
    load.assert_lost_nothing();
}

#[test]
fn restarting_the_client_loses_no_request() {
    let shop = shop("rolling-client");
    // Told to end, it goes on calling for longer than the load does.
    let client = echo::deployment("web", 1)
        .replace("{sleep: {seconds: 3}}", "{sleep: {seconds: 45}}")
        .replace(
            "      serviceAccountName",
            "      terminationGracePeriodSeconds: 60\n      serviceAccountName",
        );
    shop.apply(&client);
    shop.ready("deployment/web");
    let old = format!("pod/{}", shop.pod("app=web"));
    let load = Load::in_pod(&shop, &old, 30);
    shop.kubectl(&["rollout", "restart", "deployment/web"])
        .text();
    shop.ready("deployment/web");
    let told = shop.get(&old, "{.metadata.deletionTimestamp}");
    assert!(!told.is_empty(), "{old} was not told to end");
    assert!(
        load.goes_on(),
        "the load ended before the client was told to"
    );
    load.assert_lost_nothing();
    let is_new = |name: &&str| !old.ends_with(name);
    let pods = shop
        .kubectl(&[
            "get",
            "pods",
            "--selector=app=web",
            "--output=jsonpath={.items[*].metadata.name}",
        ])
        .text();
    let new = pods.split_whitespace().find(is_new).unwrap();
    Load::in_pod(&shop, &format!("pod/{new}"), 5).assert_lost_nothing();
}

/// Lets pods onto a node again, whatever happens.
struct Cordoned(String);

impl Drop for Cordoned {
    fn drop(&mut self) {
        kubectl(&["uncordon", &self.0]);
    }
}

#[test]
fn draining_a_node_loses_no_request() {
    let shop = Namespace::meshed("drained");
    let spread = "spec:\n      topologySpreadConstraints: [{maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: DoNotSchedule, labelSelector: {matchLabels: {app: cart}}}]\n      serviceAccountName";
    shop.apply(&format!(
        "{}---\n{}",
        echo::service("cart", ""),
        echo::deployment("cart", 2).replace("spec:\n      serviceAccountName", spread)
    ));
    shop.ready("deployment/cart");
    let nodes = shop
        .kubectl(&[
            "get",
            "pods",
            "--selector=app=cart",
            "--output=jsonpath={.items[*].spec.nodeName}",
        ])
        .text();
    let Some((stays, drained)) = nodes.split_once(' ') else {
        panic!("not two pods: {nodes}");
    };
    assert_ne!(stays, drained, "both pods run on one node");
    if on_node(drained).is_none() {
        eprintln!("SKIPPED: somebody else's node would be drained");
        return;
    }
    let pinned = format!("spec:\n      nodeName: {stays}\n      serviceAccountName");
    shop.apply(&echo::deployment("web", 1).replace("spec:\n      serviceAccountName", &pinned));
    shop.ready("deployment/web");
    let load = Load::in_pod(&shop, "deployment/web", 60);
    let cordoned = Cordoned(drained.to_owned());
    let drain = [
        "drain",
        drained,
        "--ignore-daemonsets",
        "--delete-emptydir-data",
        "--force",
        "--timeout=120s",
    ];
    kubectl_for(150, &drain).text();
    assert!(load.goes_on(), "the load ended before the node was empty");
    drop(cordoned);
    // What was evicted, of the mesh and of others.
    shop.ready("deployment/cart");
    wait_for_control_plane();
    load.assert_lost_nothing();
}

#[test]
fn restarting_the_control_plane_loses_no_request() {
    let shop = shop("rolling-control-plane");
    let load = Load::start(&shop, 40);
    kubectl(&[
        "--namespace",
        SYSTEM,
        "rollout",
        "restart",
        "deployment/weft-control-plane",
    ])
    .text();
    wait_for_control_plane();
    load.assert_lost_nothing();
}

#[test]
fn upgrade_and_rollback_of_the_chart_lose_no_request() {
    let shop = shop("rolling-chart");
    let load = Load::start(&shop, 60);
    helm(
        "helm4",
        &[
            "upgrade",
            "--set",
            "controlPlane.podAnnotations.test=upgrade",
        ],
    )
    .text();
    wait_for_control_plane();
    crate::kubernetes::run("helm4", &["rollback", "weft", "--namespace", SYSTEM], "").text();
    wait_for_control_plane();
    load.assert_lost_nothing();
}

//! Restarts of everything, under load: the mesh makes no error of its own.

use crate::{
    echo,
    kubernetes::kubectl,
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

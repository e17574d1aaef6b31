//! The mesh's root, exchanged while requests go on. Run by
//! `tests/cluster/run --include-ignored`.

use std::time::Duration;

use weft_tests::wait;

use crate::{
    echo,
    kubernetes::kubectl,
    load::Load,
    mesh::{SYSTEM, helm, mesh, wait_for_control_plane},
    namespace::Namespace,
};

/// As an operator asks, from the image that has the CLI.
#[track_caller]
fn weft_ca(verb: &str) -> String {
    kubectl(&[
        "--namespace",
        SYSTEM,
        "exec",
        "deployment/weft-control-plane",
        "--",
        "/usr/local/bin/weft",
        "ca",
        verb,
        "--namespace",
        SYSTEM,
    ])
    .text()
}

fn secret(name: &str, path: &str) -> String {
    let path = format!("--output=jsonpath={path}");
    kubectl(&["--namespace", SYSTEM, "get", "secret", name, &path]).text()
}

/// Certificates of a minute for what starts from now on; the chart's default
/// again at the end.
struct ShortLived;

impl ShortLived {
    fn begin() -> Self {
        mesh();
        helm(
            "helm4",
            &["upgrade", "--set", "mesh.certificateLifetime=60s"],
        )
        .text();
        wait_for_control_plane();
        Self
    }
}

impl Drop for ShortLived {
    fn drop(&mut self) {
        helm("helm4", &["upgrade"]);
        if !std::thread::panicking() {
            wait_for_control_plane();
        }
    }
}

#[test]
#[ignore = "long: the root is exchanged, and a certificate's lifetime has to pass"]
fn exchanging_the_root_loses_no_request() {
    let _short = ShortLived::begin();
    let shop = Namespace::meshed("root-rotation");
    shop.apply(&echo::workload("cart", 2));
    shop.ready("deployment/cart");
    let before = secret("weft-ca", "{.data.tls\\.crt}");
    let load = Load::start(&shop, 240);
    weft_ca("rotate");
    let mut said = String::new();
    let done = wait::within(Duration::from_secs(220), || {
        let now = weft_ca("status");
        if now != said {
            eprintln!("{}", now.trim_end());
            said = now;
        }
        said.starts_with("done").then_some(())
    });
    assert!(done.is_some(), "the rotation stands still: {said}");
    let after = secret("weft-ca", "{.data.tls\\.crt}");
    assert_ne!(before, after, "the same root signs as before");
    assert_eq!(after, secret("weft-ca", "{.data.ca\\.crt}"));
    let roots = secret("weft-ca", "{.metadata.annotations.weft\\.dev/roots}");
    assert_eq!(roots.matches("BEGIN").count(), 1, "{roots}");
    let pods = shop
        .kubectl(&[
            "get",
            "pods",
            "--selector=app=cart",
            "--output=jsonpath={.items[*].metadata.name}",
        ])
        .text();
    for pod in pods.split_whitespace() {
        wait::until("the old root to be gone from every proxy", || {
            let trusted = shop.metric(pod, "weft_control_trusted_roots", &[]);
            (trusted == 1.0).then_some(())
        });
    }
    load.assert_lost_nothing();
    // Who starts now goes on from there.
    wait::until("what has settled to be kept", || {
        let kept = secret("weft-ca-settled", "{.data.tls\\.crt}");
        (kept == after).then_some(())
    });
}

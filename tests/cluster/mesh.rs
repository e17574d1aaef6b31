//! The installation that all tests share: the chart with no values, as the
//! README has it.

use std::{sync::OnceLock, time::Duration};

use tokio::time::Instant;
use weft_tests::wait;

use crate::kubernetes::{Said, kubectl, root, run};

pub(crate) const SYSTEM: &str = "weft-system";

/// Of any content, for the webhook to look at.
const POLICY: &str = "apiVersion: weft.dev/v1alpha1
kind: AccessPolicy
metadata: {name: looked-at, namespace: default}
spec: {targetRefs: [{kind: Namespace, name: default}], mtls: Permissive}
";

static MESH: OnceLock<Mesh> = OnceLock::new();

#[derive(Debug)]
pub(crate) struct Mesh {
    /// From `helm install` until the control plane was ready and its webhook reached.
    pub(crate) installed_in: Duration,
}

/// Installed by whoever asks first.
///
/// # Panics
/// With what the control plane logged, if it isn't ready in time.
pub(crate) fn mesh() -> &'static Mesh {
    MESH.get_or_init(|| {
        let began = Instant::now();
        helm("helm4", &["install"]).text();
        wait_for_control_plane();
        // Nodes learn a moment later where the webhook is.
        wait::until("the webhook", || {
            let said = run(
                "kubectl",
                &["create", "--dry-run=server", "-f", "-"],
                POLICY,
            );
            said.ok.then_some(())
        });
        Mesh {
            installed_in: began.elapsed(),
        }
    })
}

/// `install` or `upgrade` of the chart, with further arguments.
#[track_caller]
pub(crate) fn helm(program: &str, verb: &[&str]) -> Said {
    let chart = root().join("charts/weft");
    let chart = chart.to_str().unwrap();
    let (verb, more) = verb.split_first().unwrap();
    let fixed = [
        *verb,
        "weft",
        chart,
        "--namespace",
        SYSTEM,
        "--create-namespace",
    ];
    run(program, &[&fixed, more].concat(), "")
}

#[track_caller]
pub(crate) fn wait_for_control_plane() {
    let said = kubectl(&[
        "--namespace",
        SYSTEM,
        "rollout",
        "status",
        "deployment/weft-control-plane",
        "--timeout=120s",
    ]);
    if !said.ok {
        let pods = kubectl(&["--namespace", SYSTEM, "get", "pods,events", "--output=wide"]).out;
        let logs = kubectl(&[
            "--namespace",
            SYSTEM,
            "logs",
            "deployment/weft-control-plane",
            "--tail=50",
        ]);
        panic!("{}\n{pods}\n{}{}", said.err, logs.out, logs.err);
    }
}

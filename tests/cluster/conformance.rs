//! The released conformance suite of the Gateway API: its mesh profiles, with
//! every mesh feature.
//!
//! The suite's report leaves tests out that it ran, so that its exit code and
//! its log decide. What it doesn't look at (`Location`, rewritten paths, status)
//! other tests here do.

use std::fs;

use crate::{
    kubernetes::{failures, kubectl, run},
    mesh::mesh,
};

const FEATURES: &str = "Mesh,HTTPRoute,GRPCRoute,MeshClusterIPMatching,MeshConsumerRoute,MeshHTTPRouteRewritePath,\
    MeshHTTPRouteSchemeRedirect,MeshHTTPRouteRedirectPort,MeshHTTPRouteRedirectPath,\
    MeshHTTPRouteBackendRequestHeaderModification,MeshHTTPRouteQueryParamMatching,MeshHTTPRouteNamedRouteRule,\
    HTTPRouteResponseHeaderModification,HTTPRouteParentRefPort,HTTPRoute303RedirectStatusCode,\
    HTTPRoute307RedirectStatusCode,HTTPRoute308RedirectStatusCode";

/// Of suite 1.6.3.
const TESTS: [&str; 22] = [
    "MeshBasic",
    "MeshConsumerRoute",
    "MeshFrontend",
    "MeshFrontendHostname",
    "MeshGRPCRouteWeight",
    "MeshHTTPRoute303Redirect",
    "MeshHTTPRoute307Redirect",
    "MeshHTTPRoute308Redirect",
    "MeshHTTPRouteBackendRequestHeaderModifier",
    "MeshHTTPRouteMatching",
    "MeshHTTPRouteNamedRule",
    "MeshHTTPRouteQueryParamMatching",
    "MeshHTTPRouteRedirectHostAndStatus",
    "MeshHTTPRouteRedirectPath",
    "MeshHTTPRouteRedirectPort",
    "MeshHTTPRouteRequestHeaderModifier",
    "MeshHTTPRouteRewritePath",
    "MeshHTTPRouteSchemeRedirect",
    "MeshHTTPRouteSimpleSameNamespace",
    "MeshHTTPRouteWeight",
    "MeshPorts",
    "MeshTrafficSplit",
];

#[test]
fn the_gateway_apis_mesh_profiles_pass_with_every_feature() {
    conform(1);
}

#[test]
#[ignore = "long: ten runs"]
fn the_gateway_apis_mesh_profiles_pass_ten_times_in_a_row() {
    conform(10);
}

/// Waits until the namespaces of the run before are no more: the suite doesn't.
fn gone() {
    let namespaces = [
        "namespace/gateway-conformance-mesh",
        "namespace/gateway-conformance-mesh-consumer",
    ];
    let wait = [&["wait", "--for=delete", "--timeout=120s"][..], &namespaces].concat();
    kubectl(&wait).text();
}

fn conform(runs: usize) {
    mesh();
    let folder = failures().join("conformance");
    fs::create_dir_all(&folder).unwrap();
    for number in 1..=runs {
        gone();
        let report = folder.join(format!("report-{number}.yaml"));
        let said = run(
            "conformance.test",
            &[
                "-test.run=TestConformance",
                "-test.v",
                "-test.timeout=15m",
                "--conformance-profiles=MESH-HTTP,MESH-GRPC",
                &format!("--supported-features={FEATURES}"),
                "--namespace-labels=weft.dev/inject=enabled",
                "--organization=weft",
                "--project=weft",
                "--url=https://weft.dev",
                "--contact=https://weft.dev",
                &format!("--version={}", env!("CARGO_PKG_VERSION")),
                &format!("--report-output={}", report.display()),
            ],
            "",
        );
        let log = folder.join(format!("run-{number}.log"));
        fs::write(&log, format!("{}{}", said.out, said.err)).unwrap();
        let passed = |test: &&str| {
            said.out
                .contains(&format!("--- PASS: TestConformance/{test} ("))
        };
        let missing: Vec<_> = TESTS.iter().filter(|test| !passed(test)).collect();
        assert!(
            said.ok && missing.is_empty(),
            "run {number}: not passed: {missing:?}; see {}",
            log.display()
        );
    }
}

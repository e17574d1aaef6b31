//! The chart's Roles against what the control plane asked of the API server.
//!
//! By the API server's audit log, which only a cluster of ours has
//! (`tests/cluster/kubernetes`). Last of the suite by its name, so that what the
//! other tests made the control plane do is in it.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;
use weft_tests::wait;

use crate::{
    echo,
    kubernetes::{kubectl, run},
    mesh::SYSTEM,
    namespace::Namespace,
};

/// Verb, group and resource, as a Role or a ClusterRole gives it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Right {
    role: &'static str,
    verb: String,
    group: String,
    resource: String,
}

const CLUSTER: &str = "clusterrole";
const OWN: &str = "role";

/// What even the whole suite may not use.
const RARE: [(&str, &str, &str, &str); 10] = [
    // The source streams its lists where the API server can, and asks for pages where it can't.
    (CLUSTER, "list", "", "namespaces"),
    (CLUSTER, "list", "", "nodes"),
    (CLUSTER, "list", "", "services"),
    (CLUSTER, "list", "discovery.k8s.io", "endpointslices"),
    (CLUSTER, "list", "networking.k8s.io", "servicecidrs"),
    // Told of a pod that has been out of the mesh for a minute: `operators::` waits for one.
    (CLUSTER, "create", "events.k8s.io", "events"),
    // An Event that is told again within minutes.
    (OWN, "patch", "events.k8s.io", "events"),
    // A rotation, which `authority::` makes, and the webhook's key in its last third.
    (OWN, "patch", "", "secrets"),
    (OWN, "update", "", "secrets"),
    // The root that a rotation signs under.
    (OWN, "patch", "coordination.k8s.io", "leases"),
];

/// Has a status each, which the control plane reads and writes.
const POLICIES: &str = "apiVersion: weft.dev/v1alpha1
kind: AccessPolicy
metadata: {name: verbs}
spec: {targetRefs: [{kind: Namespace, name: verbs}], mtls: Permissive}
---
apiVersion: weft.dev/v1alpha1
kind: BackendPolicy
metadata: {name: verbs}
spec: {targetRefs: [{kind: Service, name: cart}], timeouts: {connect: 1s}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: verbs}
spec:
  parentRefs: [{group: '', kind: Service, name: cart, port: 80}]
  rules: [{backendRefs: [{name: cart, port: 80}]}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: verbs}
spec:
  parentRefs: [{group: '', kind: Service, name: cart, port: 7070}]
  rules: [{backendRefs: [{name: cart, port: 7070}]}]
";

/// The API server's log lies beside the kubeconfig of the cluster that it is of.
fn logs() -> Vec<PathBuf> {
    #[allow(
        clippy::disallowed_methods,
        reason = "where tests/cluster/kubernetes says that the cluster is, not a knob"
    )]
    let kubeconfig = std::env::var("KUBECONFIG").unwrap_or_default();
    let folder = Path::new(&kubeconfig).with_file_name("log");
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let is_log = |it: &PathBuf| {
        let name = it
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        name.starts_with("audit") && name.ends_with(".log")
    };
    entries.map(|it| it.path()).filter(is_log).collect()
}

/// What a Role of the chart gives.
fn granted(role: &'static str) -> BTreeSet<Right> {
    let object = [
        "--namespace",
        SYSTEM,
        "get",
        role,
        "weft-control-plane",
        "--output=json",
    ];
    let object: Value = serde_json::from_str(&kubectl(&object).text()).unwrap();
    let mut rights = BTreeSet::new();
    for rule in object["rules"].as_array().unwrap() {
        let words = |name: &str| -> Vec<String> {
            let all = rule[name].as_array().unwrap().iter();
            all.map(|it| it.as_str().unwrap().to_owned()).collect()
        };
        for group in words("apiGroups") {
            for resource in words("resources") {
                for verb in words("verbs") {
                    let (group, resource) = (group.clone(), resource.clone());
                    rights.insert(Right {
                        role,
                        verb,
                        group,
                        resource,
                    });
                }
            }
        }
    }
    rights
}

/// Of one line of the log: whether it was allowed, and what it was about. `None`
/// for what is about no resource.
fn asked(event: &Value) -> Option<(bool, Right)> {
    let object = event["objectRef"].as_object()?;
    let word = |name: &str| object.get(name).and_then(Value::as_str).unwrap_or_default();
    let resource = match word("subresource") {
        "" => word("resource").to_owned(),
        part => format!("{}/{part}", word("resource")),
    };
    let annotation = |name: &str| {
        let name = format!("authorization.k8s.io/{name}");
        event["annotations"][name].as_str().unwrap_or_default()
    };
    let role = match annotation("reason").contains("ClusterRoleBinding") {
        true => CLUSTER,
        false => OWN,
    };
    let right = Right {
        role,
        verb: event["verb"].as_str()?.to_owned(),
        group: word("apiGroup").to_owned(),
        resource,
    };
    Some((annotation("decision") == "allow", right))
}

#[test]
fn the_control_plane_was_refused_nothing_and_uses_each_of_its_rights() {
    let logs = logs();
    if logs.is_empty() {
        eprintln!("SKIPPED: the audit log of somebody else's cluster");
        return;
    }
    let shop = Namespace::meshed("verbs");
    shop.apply(&echo::workload("cart", 1));
    shop.apply(POLICIES);
    shop.ready("deployment/cart");
    for kind in ["accesspolicy", "backendpolicy", "httproute", "grpcroute"] {
        wait::until("a status", || {
            let status = shop.get(&format!("{kind}/verbs"), "{.status}");
            status.contains("Accepted").then_some(())
        });
    }
    // Asks for a certificate in a pod that no watch tells of.
    let test = ["test", "weft", "--namespace", SYSTEM, "--timeout=240s"];
    run("helm4", &test, "").text();

    // An earlier installation lost its rights while it ended.
    let binding = ["get", "clusterrolebinding", "weft-control-plane"];
    let created = "--output=jsonpath={.metadata.creationTimestamp}";
    let created = kubectl(&[&binding[..], &[created]].concat()).text();
    let since = created.trim_end_matches('Z');
    let (mut used, mut refused) = (BTreeSet::new(), BTreeSet::new());
    for line in logs.iter().flat_map(fs::read_to_string) {
        for line in line.lines() {
            // The last may be half written.
            let Ok(event) = serde_json::from_str::<Value>(line) else {
                continue;
            };
            let at = event["requestReceivedTimestamp"].as_str().unwrap();
            match asked(&event) {
                Some((true, right)) => {
                    used.insert(right);
                }
                Some((false, right)) if at > since => {
                    refused.insert(right);
                }
                _ => {}
            }
        }
    }
    assert!(refused.is_empty(), "the chart does not allow {refused:#?}");
    let rare = RARE.map(|(role, verb, group, resource)| Right {
        role,
        verb: verb.to_owned(),
        group: group.to_owned(),
        resource: resource.to_owned(),
    });
    let granted: BTreeSet<_> = granted(CLUSTER).union(&granted(OWN)).cloned().collect();
    let unused: Vec<_> = granted
        .difference(&used)
        .filter(|it| !rare.contains(it))
        .collect();
    assert!(unused.is_empty(), "nobody used {unused:#?}");
    for it in &rare {
        assert!(
            granted.contains(it),
            "{it:?} is given no more: take it from the list"
        );
    }
}

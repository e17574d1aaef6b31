//! Good manifests, field by field.

mod routes;

use std::collections::BTreeMap;

use super::*;
use crate::model::{
    AccessRule, AccessTarget, BackendPolicy, Distribution, EndpointSlice, Hints, LoadBalancing,
    Pod, Probe, ProbeKind, Protocol, Service, ServicePort, SliceEndpoint, TargetPort,
};

/// The only object of a text.
fn only(text: &str) -> Object {
    let documents = read(text).unwrap();
    match documents.as_slice() {
        [
            Document {
                content: Content::Object(object),
                ..
            },
        ] => object.clone(),
        other => panic!("{other:#?}"),
    }
}

fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

#[test]
fn a_service_is_its_addresses_ports_and_selector() {
    let object = only(
        "apiVersion: v1
kind: Service
metadata: {name: cart, namespace: shop, creationTimestamp: '1970-01-01T00:00:02Z'}
spec:
  clusterIP: 10.96.0.1
  clusterIPs: [10.96.0.1, 'fd00::1']
  selector: {app: cart}
  publishNotReadyAddresses: true
  ports:
  - {name: web, port: 80, targetPort: http, appProtocol: kubernetes.io/h2c}
  - {name: dns, port: 53, protocol: UDP}
  - {name: raw, port: 9000, targetPort: 9001}
",
    );
    let expected = Service {
        name: Name::new("shop", "cart"),
        created_milliseconds: 2_000,
        addresses: ["10.96.0.1".parse().unwrap(), "fd00::1".parse().unwrap()].into(),
        selector: labels(&[("app", "cart")]),
        ports: vec![
            ServicePort {
                name: "web".to_owned(),
                port: 80,
                target: TargetPort::Named("http".to_owned()),
                protocol: Protocol::Http2,
            },
            ServicePort {
                name: "raw".to_owned(),
                port: 9000,
                target: TargetPort::Number(9001),
                protocol: Protocol::Detect,
            },
        ],
        publish_not_ready: true,
        affinity_seconds: 0,
        own_node_only: false,
        distribution: Distribution::Anywhere,
    };
    assert_eq!(object, Object::Service(expected));
}

#[test]
fn what_a_service_asks_of_balancing_is_read_and_a_misspelling_refused() {
    let service = |spec: &str| {
        let text = format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: cart, namespace: shop}}\nspec: {{{spec}}}\n"
        );
        match read(&text).unwrap().swap_remove(0).content {
            Content::Object(Object::Service(it)) => {
                Ok((it.own_node_only, it.affinity_seconds, it.distribution))
            }
            Content::Refused { refusal, .. } => Err(refusal),
            other => panic!("a Service and not {other:?}"),
        }
    };
    let asked = |spec: &str| service(spec).unwrap();
    let nothing = (false, 0, Distribution::Anywhere);
    assert_eq!(asked(""), nothing);
    let said = "internalTrafficPolicy: Cluster, sessionAffinity: None, trafficDistribution: Other";
    assert_eq!(asked(said), nothing);
    assert!(asked("internalTrafficPolicy: Local").0);
    assert_eq!(asked("sessionAffinity: ClientIP").1, 10_800);
    let timeout = |seconds: i64| {
        format!(
            "sessionAffinity: ClientIP, sessionAffinityConfig: {{clientIP: {{timeoutSeconds: {seconds}}}}}"
        )
    };
    assert_eq!(asked(&timeout(60)).1, 60);
    for (said, meant) in [
        ("PreferClose", Distribution::SameZone),
        ("PreferSameZone", Distribution::SameZone),
        ("PreferSameNode", Distribution::SameNode),
    ] {
        assert_eq!(asked(&format!("trafficDistribution: {said}")).2, meant);
    }
    for (spec, field) in [
        ("internalTrafficPolicy: local", "spec.internalTrafficPolicy"),
        ("sessionAffinity: Cookie", "spec.sessionAffinity"),
        (
            timeout(0).as_str(),
            "spec.sessionAffinityConfig.clientIP.timeoutSeconds",
        ),
        (
            timeout(86_401).as_str(),
            "spec.sessionAffinityConfig.clientIP.timeoutSeconds",
        ),
    ] {
        assert_eq!(service(spec).unwrap_err().field, field, "{spec}");
    }
}

#[test]
fn app_protocols_mean_what_the_field_says_and_unknown_ones_nothing() {
    for (said, meant) in [
        ("http", Protocol::Http1),
        ("kubernetes.io/ws", Protocol::Http1),
        ("http2", Protocol::Http2),
        ("grpc", Protocol::Http2),
        ("kubernetes.io/h2c", Protocol::Http2),
        ("https", Protocol::Tls),
        ("tls", Protocol::Tls),
        ("kubernetes.io/wss", Protocol::Tls),
        ("tcp", Protocol::Opaque),
        ("mysql", Protocol::Detect),
        ("example.com/own", Protocol::Detect),
    ] {
        let text = format!(
            "{{apiVersion: v1, kind: Service, metadata: {{name: a}}, spec: {{ports: [{{port: 80, appProtocol: {said}}}]}}}}"
        );
        let Object::Service(service) = only(&text) else {
            panic!()
        };
        assert_eq!(service.ports[0].protocol, meant, "{said}");
    }
}

#[test]
fn a_service_without_an_address_of_its_own_has_none() {
    for spec in [
        "{clusterIP: None, ports: [{port: 80}]}",
        "{ports: [{port: 80}]}",
        "{type: ExternalName, externalName: example.com}",
    ] {
        let text =
            format!("{{apiVersion: v1, kind: Service, metadata: {{name: a}}, spec: {spec}}}");
        let Object::Service(service) = only(&text) else {
            panic!()
        };
        assert!(service.addresses.is_empty(), "{spec}");
        assert_eq!(service.name, Name::new("default", "a"));
    }
}

const POD: &str = "apiVersion: v1
kind: Pod
metadata:
  name: cart-0
  namespace: shop
  labels: {app: cart, weft.dev/inject: enabled, topology.kubernetes.io/zone: here}
  annotations: {weft.dev/exclude-inbound-ports: '9000, 9001', weft.dev/weight: '3'}
spec:
  serviceAccountName: cart
  initContainers:
  - {name: migrate, ports: [{name: early, containerPort: 1}]}
  - {name: sidecar, restartPolicy: Always, ports: [{name: side, containerPort: 2}]}
  containers:
  - name: cart
    ports: [{name: http, containerPort: 8080}, {containerPort: 8081}, {containerPort: 53, protocol: UDP}]
    readinessProbe: {httpGet: {port: http, path: /ready}}
    livenessProbe: {tcpSocket: {port: 8081}}
    startupProbe: {grpc: {port: 8082}}
status:
  podIP: 10.0.0.1
  podIPs: [{ip: 10.0.0.1}, {ip: 'fd00::1'}]
";

#[test]
fn a_pod_is_its_identity_addresses_ports_and_what_it_says_of_its_proxy() {
    let probe = |port, kind| Probe { port, kind };
    let expected = Pod {
        name: Name::new("shop", "cart-0"),
        uid: "cart@10.0.0.1,fd00::1".to_owned(),
        labels: labels(&[
            ("app", "cart"),
            ("weft.dev/inject", "enabled"),
            ("topology.kubernetes.io/zone", "here"),
        ])
        .into(),
        service_account: "cart".to_owned(),
        addresses: vec!["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()],
        ports: BTreeMap::from([
            ("http".to_owned(), 8080),
            ("8081".to_owned(), 8081),
            ("side".to_owned(), 2),
        ])
        .into(),
        injected: None,
        asked: Some(true),
        host_network: false,
        ready: true,
        terminating: false,
        finished: false,
        node: String::new(),
        zone: "here".to_owned(),
        weight: 3,
        excluded_ports: [9000, 9001].into(),
        probes: vec![
            probe(8081, ProbeKind::Tcp),
            probe(8080, ProbeKind::Http("/ready".to_owned())),
            probe(8082, ProbeKind::Grpc),
        ]
        .into(),
    };
    assert_eq!(only(POD), Object::Pod(expected));
}

#[test]
fn a_pod_has_a_proxy_for_certain_only_where_somebody_has_given_it_one() {
    let injected = |label: &str| match only(&POD.replace("app: cart", label)) {
        Object::Pod(pod) => pod.injected,
        other => panic!("{other:?}"),
    };
    assert_eq!(injected("weft.dev/injected: 'true'"), Some(true));
    assert_eq!(injected("weft.dev/injected: 'false'"), None);
}

#[test]
fn a_pod_with_another_account_or_address_is_another_one() {
    let uid = |text: &str| match only(text) {
        Object::Pod(pod) => pod.uid,
        other => panic!("{other:?}"),
    };
    let own = uid(POD);
    assert_eq!(uid(&POD.replace("app: cart", "app: other")), own);
    assert_ne!(
        uid(&POD.replace("serviceAccountName: cart", "serviceAccountName: admin")),
        own
    );
    assert_ne!(uid(&POD.replace("10.0.0.1", "10.0.0.2")), own);
    assert_eq!(
        uid(&POD.replace("namespace: shop", "namespace: shop\n  uid: 1-2-3")),
        "1-2-3"
    );
}

#[test]
fn a_pod_is_ready_terminating_or_finished_as_its_status_says() {
    let pod = |status: &str, metadata: &str| {
        let text = format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: a{metadata}}}, spec: {{}}, status: {{podIP: 10.0.0.1, {status}}}}}"
        );
        match only(&text) {
            Object::Pod(pod) => (pod.ready, pod.terminating, pod.addresses.len()),
            other => panic!("{other:?}"),
        }
    };
    let condition = |status: &str| format!("conditions: [{{type: Ready, status: '{status}'}}]");
    assert_eq!(pod("", ""), (true, false, 1));
    assert_eq!(pod(&condition("True"), ""), (true, false, 1));
    assert_eq!(pod(&condition("False"), ""), (false, false, 1));
    assert_eq!(pod("phase: Pending", ""), (false, false, 1));
    assert_eq!(
        pod(
            "phase: Running",
            ", deletionTimestamp: '2026-01-01T00:00:00Z'"
        ),
        (true, true, 1)
    );
    assert_eq!(pod("phase: Succeeded", ""), (false, false, 0));
}

#[test]
fn a_slice_lists_ports_and_endpoints_with_their_conditions() {
    let object = only(
        "apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: cart-abc, namespace: shop, labels: {kubernetes.io/service-name: cart}}
addressType: IPv4
ports: [{name: http, port: 8080}, {name: dns, port: 53, protocol: UDP}]
endpoints:
- {addresses: [10.0.0.1], targetRef: {kind: Pod, name: cart-0}, zone: here, nodeName: node-a, hints: {forZones: [{name: here}, {name: there}], forNodes: [{name: node-a}]}}
- {addresses: [10.0.0.2], conditions: {ready: false, serving: true, terminating: true}}
",
    );
    let expected = EndpointSlice {
        name: Name::new("shop", "cart-abc"),
        service: "cart".to_owned(),
        ports: [("http".to_owned(), 8080)].into(),
        endpoints: vec![
            SliceEndpoint {
                addresses: vec!["10.0.0.1".parse().unwrap()],
                pod: Some("cart-0".to_owned()),
                pod_uid: String::new(),
                ready: true,
                serving: true,
                terminating: false,
                node: "node-a".to_owned(),
                zone: "here".to_owned(),
                hints: Some(Box::new(Hints {
                    nodes: vec!["node-a".to_owned()],
                    zones: vec!["here".to_owned(), "there".to_owned()],
                })),
            },
            SliceEndpoint {
                addresses: vec!["10.0.0.2".parse().unwrap()],
                pod: None,
                pod_uid: String::new(),
                ready: false,
                serving: true,
                terminating: true,
                node: String::new(),
                zone: String::new(),
                hints: None,
            },
        ],
    };
    assert_eq!(object, Object::EndpointSlice(expected));
}

#[test]
fn every_field_of_a_backend_policy_arrives_at_its_place() {
    let object = only(
        "apiVersion: weft.dev/v1alpha1
kind: BackendPolicy
metadata: {name: cart, namespace: shop}
spec:
  targetRefs: [{group: '', kind: Service, name: cart}]
  loadBalancing: {algorithm: RoundRobin}
  circuitBreaking: {consecutiveFailures: 1, baseEjection: 2ms, maxEjection: 3ms, maxEjectedPercent: 4}
  limits: {connections: 5, requests: 6, pending: 7, pendingTimeout: 8ms}
  retries:
    attempts: 9
    retryOn: {statusCodes: [500, 503], grpcStatuses: [UNAVAILABLE, 4]}
    nonIdempotent: true
    perTryTimeout: 10ms
    backoff: {base: 11ms, max: 12ms}
    budget: {percent: 13, minimumPerSecond: 14}
  timeouts: {connect: 15ms, firstByte: 16ms, idle: 17ms, request: 18ms}
",
    );
    let expected = BackendPolicy {
        load_balancing: LoadBalancing::RoundRobin,
        consecutive_failures: 1,
        base_ejection: 2,
        max_ejection: 3,
        max_ejected_percent: 4,
        connections: 5,
        requests: 6,
        pending: 7,
        pending_timeout: 8,
        attempts: 9,
        retry_status_codes: vec![500, 503],
        retry_grpc_statuses: vec![14, 4],
        retry_non_idempotent: true,
        per_try_timeout: 10,
        base_backoff: 11,
        max_backoff: 12,
        budget_percent: 13,
        budget_minimum_per_second: 14,
        connect_timeout: 15,
        first_byte_timeout: 16,
        idle_timeout: 17,
        request_timeout: 18,
    };
    let Object::BackendPolicy(it) = object else {
        panic!()
    };
    assert_eq!((it.targets, it.policy), (vec!["cart".to_owned()], expected));
}

#[test]
fn a_longest_that_nobody_said_follows_its_base() {
    let object = only(
        "{apiVersion: weft.dev/v1alpha1, kind: BackendPolicy, metadata: {name: a}, spec: {targetRefs: [{kind: Service, name: a}], circuitBreaking: {baseEjection: 1h}}}",
    );
    let Object::BackendPolicy(it) = object else {
        panic!()
    };
    let expected = BackendPolicy {
        base_ejection: 3_600_000,
        max_ejection: 3_600_000,
        ..BackendPolicy::default()
    };
    assert_eq!(it.policy, expected);
}

#[test]
fn an_access_policy_is_its_targets_ports_and_rules() {
    let object = only(
        "apiVersion: weft.dev/v1alpha1
kind: AccessPolicy
metadata: {name: cart, namespace: shop}
spec:
  selector: {matchLabels: {app: cart}}
  ports: [8080]
  mtls: Strict
  rules:
  - {action: Deny, from: {namespaces: [dev]}}
  - action: Allow
    from: {identities: ['spiffe://cluster.local/ns/shop/sa/web']}
    to: {methods: [GET], pathPrefixes: [/cart, /a%20b]}
",
    );
    let Object::AccessPolicy(policy) = object else {
        panic!()
    };
    assert_eq!(
        policy.targets,
        [AccessTarget::Selected(labels(&[("app", "cart")]))]
    );
    assert_eq!((policy.ports, policy.strict), ([8080].into(), Some(true)));
    let denied = AccessRule {
        deny: true,
        namespaces: vec!["dev".to_owned()],
        ..AccessRule::default()
    };
    let allowed = AccessRule {
        identities: vec!["spiffe://cluster.local/ns/shop/sa/web".to_owned()],
        methods: vec!["GET".to_owned()],
        path_prefixes: vec!["/cart".to_owned(), "/a%20b".to_owned()],
        ..AccessRule::default()
    };
    assert_eq!(policy.rules, [denied, allowed]);
    let object = only(
        "{apiVersion: weft.dev/v1alpha1, kind: AccessPolicy, metadata: {name: a, namespace: b}, spec: {targetRefs: [{kind: Namespace, name: b}], mtls: Permissive}}",
    );
    let Object::AccessPolicy(policy) = object else {
        panic!()
    };
    assert_eq!(
        (policy.targets, policy.strict),
        (vec![AccessTarget::Namespace], Some(false))
    );
}

#[test]
fn documents_are_split_where_yaml_ends_them_and_count_when_they_say_something() {
    let text = "\u{feff}%YAML 1.2\n---\n# only a comment\n--- # and here\n\
        {apiVersion: v1, kind: Namespace, metadata: {name: a}}\n...\n---\n\n---\n\
        apiVersion: v1\nkind: Namespace\nmetadata:\n  name: b\n  annotations:\n    text: |\n      one\n      ---\n      two\n";
    let documents = read(text).unwrap();
    let found: Vec<_> = documents
        .iter()
        .map(|it| match &it.content {
            Content::Object(object) => (it.index, it.line, object.key().name.name.clone()),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(found, [(0, 4, "a".to_owned()), (1, 9, "b".to_owned())]);
    assert_eq!(read("# nothing\n").unwrap(), []);
}

/// YAML 1.1, which Kubernetes reads: a policy must not mean two things.
#[test]
fn what_kubernetes_reads_as_a_boolean_is_one_here_and_wants_quotes() {
    for said in ["on", "no", "y", "true"] {
        let text = format!(
            "{{apiVersion: v1, kind: Namespace, metadata: {{name: a, labels: {{b: {said}}}}}}}"
        );
        let documents = read(&text).unwrap();
        let Content::Refused { refusal, .. } = &documents[0].content else {
            panic!("{documents:?}")
        };
        assert_eq!(refusal.remedy, "write it in quotes", "{said}");
    }
}

#[test]
fn an_error_in_the_text_names_its_line_in_the_file() {
    let error = read("a: 1\n---\nb: 1\nc: [1,\nd: 2\n").unwrap_err();
    assert_eq!(error.document, 1);
    assert!((3..=6).contains(&error.line), "{error:?}");
}

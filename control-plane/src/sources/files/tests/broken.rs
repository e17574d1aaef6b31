//! Broken manifests: each names file, document, field and remedy.

use super::*;

/// Text, document, field, part of the message, part of the remedy.
type Case = (
    &'static str,
    Option<usize>,
    &'static str,
    &'static str,
    &'static str,
);

const CASES: &[Case] = &[
    // No YAML.
    (
        "kind: [",
        Some(0),
        "",
        "is no YAML",
        "nothing of this file changes",
    ),
    ("a: 1\na: 2\n", Some(0), "", "duplicate", "correct it"),
    (
        "kind: Service\n---\nkind: \"Pod\n",
        Some(1),
        "",
        "is no YAML",
        "correct it",
    ),
    (
        r#"{"kind": "Service""#,
        Some(0),
        "",
        "is no YAML",
        "correct it",
    ),
    // No object.
    (
        "just text\n",
        Some(0),
        "",
        "is no mapping",
        "apiVersion, kind, metadata",
    ),
    (
        "- apiVersion: v1\n",
        Some(0),
        "",
        "is no mapping",
        "apiVersion",
    ),
    (
        "apiVersion: v1\nmetadata: {name: a}\n",
        Some(0),
        "kind",
        "is missing",
        "Service",
    ),
    (
        "kind: Service\nmetadata: {name: a}\n",
        Some(0),
        "apiVersion",
        "is missing",
        "Service",
    ),
    (
        "# note\n---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\n",
        Some(0),
        "kind",
        "Deployment of apps/v1 is not read",
        "keep it elsewhere",
    ),
    (
        "apiVersion: gateway.networking.k8s.io/v1\nkind: GRPCRoute\nmetadata: {name: a}\nspec: {parentRefs: [{group: '', kind: Service, name: a}], rules: [{matches: [{method: {service: a-b}}]}]}\n",
        Some(0),
        "spec.rules[0].matches[0].method.service",
        "a-b",
        "shop.v1.Cart",
    ),
    (
        "apiVersion: gateway.networking.k8s.io/v1\nkind: TCPRoute\nmetadata: {name: a}\n",
        Some(0),
        "kind",
        "TCPRoute",
        "GRPCRoute",
    ),
    (
        "apiVersion: v1\nkind: List\nitems: []\n",
        Some(0),
        "kind",
        "List",
        "document of its own",
    ),
    (
        "apiVersion: gateway.networking.k8s.io/v1beta1\nkind: HTTPRoute\nmetadata: {name: a}\n",
        Some(0),
        "apiVersion",
        "v1beta1",
        "gateway.networking.k8s.io/v1",
    ),
    // Metadata.
    (
        "apiVersion: v1\nkind: Service\nmetadata: {}\nspec: {}\n",
        Some(0),
        "metadata.name",
        "is missing",
        "lower-case",
    ),
    (
        "apiVersion: v1\nkind: Pod\nmetadata: {name: a/b}\nspec: {}\n",
        Some(0),
        "metadata.name",
        "a/b",
        "lower-case",
    ),
    (
        "apiVersion: v1\nkind: Pod\nmetadata: {name: a, namespace: Shop}\nspec: {}\n",
        Some(0),
        "metadata.namespace",
        "Shop",
        "lower-case",
    ),
    (
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: a, labels: {weft.dev/inject: on}}\n",
        Some(0),
        "metadata.labels.weft.dev/inject",
        "invalid type: boolean",
        "in quotes",
    ),
    (
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: a, labels: {weft.dev/inject: 'yes'}}\n",
        Some(0),
        r#"metadata.labels["weft.dev/inject"]"#,
        "yes",
        "enabled or disabled",
    ),
    // Service.
    (
        "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {clusterIP: 10.0.0.300}\n",
        Some(0),
        "spec.clusterIP",
        "10.0.0.300",
        "address",
    ),
    (
        "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {clusterIPs: [10.0.0.1, '::']}\n",
        Some(0),
        "spec.clusterIPs[1]",
        "::",
        "address",
    ),
    (
        "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: [{port: 70000}]}\n",
        Some(0),
        "spec.ports[0].port",
        "70000",
        "1 to 65535",
    ),
    (
        "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: [{port: http}]}\n",
        Some(0),
        "spec.ports[0].port",
        "invalid type",
        "correct",
    ),
    (
        "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: [{name: a, port: 80}, {name: b, port: 80}]}\n",
        Some(0),
        "spec.ports[1].port",
        "second time",
        "once",
    ),
    (
        "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: [{port: 80}, {port: 81}]}\n",
        Some(0),
        "spec.ports[1].name",
        "second time",
        "name of its own",
    ),
    (
        "apiVersion: v1\nkind: Node\nmetadata: {name: a}\nspec: {podCIDRs: [10.0.0.0/16, 10.0.0.0]}\n",
        Some(0),
        "spec.podCIDRs[1]",
        "10.0.0.0",
        "a range",
    ),
    (
        "apiVersion: networking.k8s.io/v1\nkind: ServiceCIDR\nmetadata: {name: a}\nspec: {cidrs: [fd00::/129]}\n",
        Some(0),
        "spec.cidrs[0]",
        "fd00::/129",
        "a range",
    ),
    (
        "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {port: 80}\n",
        Some(0),
        "spec.port",
        "no field",
        "indentation",
    ),
    // EndpointSlice.
    (
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: a}\naddressType: IPv4\nendpoints: []\n",
        Some(0),
        r#"metadata.labels["kubernetes.io/service-name"]"#,
        "is missing",
        "lower-case",
    ),
    (
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: a, labels: {kubernetes.io/service-name: a}}\naddressType: FQDN\nendpoints: []\n",
        Some(0),
        "addressType",
        "FQDN",
        "IPv4 or IPv6",
    ),
    (
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: a, labels: {kubernetes.io/service-name: a}}\naddressType: IPv4\nendpoints: [{addresses: []}]\n",
        Some(0),
        "endpoints[0].addresses",
        "is empty",
        "at least one",
    ),
    // Pod.
    (
        "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {serviceAccountName: a/sa/admin}\n",
        Some(0),
        "spec.serviceAccountName",
        "a/sa/admin",
        "lower-case",
    ),
    (
        "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {}\nstatus: {podIPs: [{ip: nowhere}]}\n",
        Some(0),
        "status.podIPs[0].ip",
        "nowhere",
        "address",
    ),
    (
        "apiVersion: v1\nkind: Pod\nmetadata: {name: a, annotations: {weft.dev/exclude-inbound-ports: '9000 9001'}}\nspec: {}\n",
        Some(0),
        r#"metadata.annotations["weft.dev/exclude-inbound-ports"]"#,
        "9000 9001",
        "commas",
    ),
    (
        "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: [{name: a, readinessProbe: {httpGet: {port: web}}}]}\n",
        Some(0),
        "spec.containers[0].readinessProbe.httpGet.port",
        "web",
        "that is there",
    ),
    (
        "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: [{name: a, prots: []}]}\n",
        Some(0),
        "spec.containers[0].prots",
        "no field",
        "name or its indentation",
    ),
    // HTTPRoute, after its head.
    (
        "rules: [{matches: [{path: {type: RegularExpression, value: '/a('}}]}]",
        Some(0),
        "spec.rules[0].matches[0].path.value",
        "unclosed group",
        "RE2",
    ),
    (
        "rules: [{matches: [{path: {value: a}}]}]",
        Some(0),
        "spec.rules[0].matches[0].path.value",
        "absolute",
        "begin it with /",
    ),
    (
        "rules: [{matches: [{path: {value: /a/../b}}]}]",
        Some(0),
        "spec.rules[0].matches[0].path.value",
        "dot segments",
        "lead to",
    ),
    (
        "rules: [{matches: [{method: get}]}]",
        Some(0),
        "spec.rules[0].matches[0].method",
        "unknown variant",
        "correct",
    ),
    (
        "rules: [{matches: [{queryParams: [{name: a, value: b}, {name: a, value: c}]}]}]",
        Some(0),
        "spec.rules[0].matches[0].queryParams[1].name",
        "second time",
        "once",
    ),
    (
        "rules: [{filters: [{type: ExtensionRef, extensionRef: {group: a, kind: B, name: c}}]}]",
        Some(0),
        "spec.rules[0].filters[0].type",
        "not carried",
        "remove",
    ),
    (
        "rules: [{retry: {codes: [200]}}]",
        Some(0),
        "spec.rules[0].retry.codes[0]",
        "200",
        "400 to 599",
    ),
    (
        "rules: [{timeouts: {request: 1500}}]",
        Some(0),
        "spec.rules[0].timeouts.request",
        "invalid type",
        "in quotes",
    ),
    (
        "rules: [{timeouts: {request: 1.5s}}]",
        Some(0),
        "spec.rules[0].timeouts.request",
        "1.5s",
        "1s500ms",
    ),
    (
        "rules: [{timeouts: {request: 1s, backendRequest: 2s}}]",
        Some(0),
        "spec.rules[0].timeouts.backendRequest",
        "longer",
        "as long",
    ),
    (
        "rules: [{backendRefs: [{name: a, port: 80, weight: -1}]}]",
        Some(0),
        "spec.rules[0].backendRefs[0].weight",
        "-1",
        "0 to 1000000",
    ),
    (
        "rules: [{matches: [{headers: [{name: 'a b', value: c}]}]}]",
        Some(0),
        "spec.rules[0].matches[0].headers[0].name",
        "a b",
        "header's name",
    ),
    // BackendPolicy, after its head.
    (
        "loadBalancing: {algorithm: Random}",
        Some(0),
        "spec.loadBalancing.algorithm",
        "unknown variant `Random`",
        "correct",
    ),
    (
        "loadBalancng: {}",
        Some(0),
        "spec.loadBalancng",
        "unknown field `loadBalancng`",
        "correct",
    ),
    (
        "circuitBreaking: {baseEjection: 1m, maxEjection: 1s}",
        Some(0),
        "spec.circuitBreaking.maxEjection",
        "shorter",
        "as long",
    ),
    (
        "circuitBreaking: {maxEjectedPercent: 101}",
        Some(0),
        "spec.circuitBreaking.maxEjectedPercent",
        "101",
        "0 to 100",
    ),
    (
        "limits: {pending: 5}",
        Some(0),
        "spec.limits.pending",
        "limits nothing",
        "leave it out",
    ),
    (
        "retries: {attempts: 3, retryOn: {}}",
        Some(0),
        "spec.retries.retryOn",
        "no answer",
        "statusCodes",
    ),
    (
        "retries: {attempts: 3, retryOn: {grpcStatuses: [OK]}}",
        Some(0),
        "spec.retries.retryOn.grpcStatuses[0]",
        "OK",
        "UNAVAILABLE",
    ),
    (
        "retries: {attempts: 11, retryOn: {statusCodes: [503]}}",
        Some(0),
        "spec.retries.attempts",
        "11",
        "1 to 10",
    ),
    (
        "timeouts: {connect: 0s}",
        Some(0),
        "spec.timeouts.connect",
        "0",
        "at least 1ms",
    ),
    // AccessPolicy, after its head.
    (
        "mtls: strict",
        Some(0),
        "spec.mtls",
        "unknown variant `strict`",
        "correct",
    ),
    (
        "rules: []",
        Some(0),
        "spec",
        "says nothing",
        "mtls or rules",
    ),
    (
        "rules: [{action: Allow, from: {identities: []}}]",
        Some(0),
        "spec.rules[0].from.identities",
        "is empty",
        "leave it out",
    ),
    (
        "rules: [{action: Allow, from: {}}]",
        Some(0),
        "spec.rules[0].from",
        "is empty",
        "identities or namespaces",
    ),
    (
        "rules: [{action: Allow, from: {identities: [shop/web]}}]",
        Some(0),
        "spec.rules[0].from.identities[0]",
        "shop/web",
        "spiffe://",
    ),
    (
        "rules: [{action: Allow, to: {methods: [get]}}]",
        Some(0),
        "spec.rules[0].to.methods[0]",
        "get",
        "GET",
    ),
    (
        "rules: [{action: Allow, to: {pathPrefixes: [/a%2Fb]}}]",
        Some(0),
        "spec.rules[0].to.pathPrefixes[0]",
        "hides a slash",
        "leave it out",
    ),
    (
        "rules: [{action: Allow, to: {pathPrefixes: [/a%2e]}}]",
        Some(0),
        "spec.rules[0].to.pathPrefixes[0]",
        "needs no encoding",
        "character itself",
    ),
    (
        "rules: [{action: Allow, to: {pathPrefixes: [//a]}}]",
        Some(0),
        "spec.rules[0].to.pathPrefixes[0]",
        "empty segment",
        "single",
    ),
    (
        "rules: [{action: Permit}]",
        Some(0),
        "spec.rules[0].action",
        "unknown variant `Permit`",
        "correct",
    ),
    (
        "ports: [0]\n  mtls: Strict",
        Some(0),
        "spec.ports[0]",
        "0",
        "1 to 65535",
    ),
];

fn text_of((text, _, _, message, _): &Case) -> String {
    let head = |version: &str, kind: &str, target: &str| {
        format!(
            "apiVersion: {version}\nkind: {kind}\nmetadata: {{name: a, namespace: shop}}\nspec:\n  {target}\n  {text}\n"
        )
    };
    let first = text.split(':').next().unwrap_or_default();
    match first {
        "loadBalancing" | "loadBalancng" | "circuitBreaking" | "limits" | "retries"
        | "timeouts" => head(
            "weft.dev/v1alpha1",
            "BackendPolicy",
            "targetRefs: [{kind: Service, name: a}]",
        ),
        "mtls" | "ports" => head(
            "weft.dev/v1alpha1",
            "AccessPolicy",
            "selector: {matchLabels: {app: a}}",
        ),
        "rules" if text.contains("action:") || *message == "says nothing" => head(
            "weft.dev/v1alpha1",
            "AccessPolicy",
            "selector: {matchLabels: {app: a}}",
        ),
        "rules" => head(
            "gateway.networking.k8s.io/v1",
            "HTTPRoute",
            "parentRefs: [{group: '', kind: Service, name: a}]",
        ),
        _ => (*text).to_owned(),
    }
}

#[tokio::test]
async fn broken_manifests_name_file_document_field_and_remedy() {
    let mut world = World::with("", |root| {
        for (number, case) in CASES.iter().enumerate() {
            fs::write(root.join(format!("{number:03}.yaml")), text_of(case)).unwrap();
        }
        fs::write(root.join("good.yaml"), service("good")).unwrap();
    });
    let update = world.update().await;
    assert_eq!(told(&update), ["+shop/good"], "others are unaffected");
    let mut wrong = Vec::new();
    for (number, case) in CASES.iter().enumerate() {
        let file = format!("{number:03}.yaml");
        let found: Vec<_> = update
            .problems
            .iter()
            .filter(|it| it.file == file)
            .collect();
        let &(_, document, field, message, remedy) = case;
        let fits = matches!(found.as_slice(), [problem] if problem.document == document
            && problem.line > 0
            && problem.field == field
            && problem.message.contains(message)
            && problem.remedy.contains(remedy));
        if !fits {
            wrong.push(format!("{case:?}\n{}\nfound {found:#?}", text_of(case)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

//! HTTPRoute and GRPCRoute as people write them, through `weft run`, with curl
//! and grpcio: what the pure tables say of each filter holds for programs.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU64, Ordering},
};

use weft_tests::{
    traffic::{Answer, Application, Asked},
    wait,
    world::{self, Pod, World},
};

use crate::programs::python;

const PORT: u16 = 8080;

/// A rule for each filter and match, by its path.
const ROUTE: &str = r#"
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web, namespace: shop}
spec:
  parentRefs: [{group: "", kind: Service, name: web, port: 8080}]
  rules:
  - matches: [{path: {type: PathPrefix, value: /redirect}}]
    filters:
    - type: RequestRedirect
      requestRedirect: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /there}, statusCode: 301}
  - matches: [{path: {type: PathPrefix, value: /secure}}]
    filters:
    - type: RequestRedirect
      requestRedirect: {scheme: https, hostname: example.org, port: 8443, path: {type: ReplaceFullPath, replaceFullPath: /all}}
  - matches: [{path: {type: PathPrefix, value: /rewrite}}]
    filters:
    - type: URLRewrite
      urlRewrite: {hostname: b.example, path: {type: ReplacePrefixMatch, replacePrefixMatch: /}}
    - type: RequestHeaderModifier
      requestHeaderModifier: {set: [{name: X-Set, value: new}], add: [{name: X-Add, value: two}], remove: [X-Remove]}
    - type: ResponseHeaderModifier
      responseHeaderModifier: {set: [{name: X-Answer, value: set}], remove: [X-Secret]}
    backendRefs: [{name: web, port: 8080}]
  - matches: [{path: {type: PathPrefix, value: /backend}}]
    backendRefs:
    - name: web
      port: 8080
      filters:
      - type: RequestHeaderModifier
        requestHeaderModifier: {set: [{name: X-Set, value: of-backend}]}
  - matches: [{path: {type: RegularExpression, value: "/expression/[0-9]+"}}]
    backendRefs: [{name: web, port: 8080}]
  - matches: [{path: {type: PathPrefix, value: /query}, queryParams: [{name: color, value: blue}]}]
    backendRefs: [{name: web, port: 8080}]
  - matches: [{path: {type: PathPrefix, value: /method}, method: DELETE}]
    backendRefs: [{name: web, port: 8080}]
  - matches: [{path: {type: PathPrefix, value: /missing}}]
    backendRefs: [{name: nowhere, port: 8080}]
  - matches: [{path: {type: PathPrefix, value: /mirror}}]
    filters:
    - type: RequestMirror
      requestMirror: {backendRef: {name: copy, port: 8080}}
    backendRefs: [{name: web, port: 8080}]
  - matches: [{path: {type: PathPrefix, value: /cors}}]
    filters:
    - type: CORS
      cors: {allowOrigins: ["https://*.example"], allowMethods: [PUT], maxAge: 60}
    backendRefs: [{name: web, port: 8080}]
  - matches: [{path: {type: PathPrefix, value: /flaky}}]
    retry: {codes: [503], attempts: 1, backoff: 10ms}
    backendRefs: [{name: web, port: 8080}]
  - matches: [{path: {type: PathPrefix, value: /unforgiven}}]
    backendRefs: [{name: web, port: 8080}]
---
"#;

/// Says what it was asked; where it is flaky, every other time that it can't.
fn told(asked: &Asked, fails: &AtomicU64) -> Answer {
    let is_flaky = ["/flaky", "/unforgiven"].contains(&&*asked.path);
    if is_flaky && fails.fetch_add(1, Ordering::SeqCst).is_multiple_of(2) {
        return Answer::status(503, "not now");
    }
    let field = |name| asked.field(name).unwrap_or("-").to_owned();
    let mut answer = Answer::ok(format!(
        "{} {} set={} add={} remove={}\n",
        asked.method,
        asked.path,
        field("x-set"),
        field("x-add"),
        field("x-remove"),
    ));
    answer.fields = vec![("x-secret", "1".to_owned()), ("x-answer", "own".to_owned())];
    answer
}

struct Shop {
    client: Pod,
    copies: Arc<Mutex<Vec<String>>>,
    _applications: [Application; 2],
    _pods: [Pod; 2],
    _world: World,
}

impl Shop {
    fn new() -> Self {
        let services = world::service("shop/web", &[PORT]) + &world::service("shop/copy", &[PORT]);
        let mesh = World::new(&(services + ROUTE));
        let (web, copy) = (mesh.idle("shop/web-0"), mesh.idle("shop/copy-0"));
        let copies: Arc<Mutex<Vec<String>>> = Arc::default();
        let seen = Arc::clone(&copies);
        let fails = AtomicU64::new(0);
        let applications = [
            Application::start(web.listen(PORT), move |asked| told(asked, &fails)),
            Application::start(copy.listen(PORT), move |asked| {
                let copy = format!("{} {} {}", asked.method, asked.path, asked.body);
                seen.lock().unwrap().push(copy);
                Answer::status(500, "nobody hears this")
            }),
        ];
        let client = mesh.idle("shop/client-0");
        let shop = Self {
            client,
            copies,
            _applications: applications,
            _pods: [web, copy],
            _world: mesh,
        };
        wait::until("the route in the caller's proxy", || {
            let answer = shop.curl("--http1.1", &["-H", "X-Set: old"], "/backend");
            answer.contains("set=of-backend").then_some(())
        });
        shop
    }

    /// Status line, fields and body.
    fn curl(&self, version: &str, options: &[&str], path: &str) -> String {
        let url = format!("http://web.shop:{PORT}{path}");
        let common = [
            "curl",
            "--silent",
            "--show-error",
            "--include",
            "--max-time",
            "15",
        ];
        let all = common.iter().chain([&version]).chain(options).copied();
        let text = self.client.output(all.chain([&*url])).success();
        text.replace('\r', "").to_lowercase()
    }
}

/// Every line is there, whole.
#[track_caller]
fn holds(answer: &str, lines: &[&str]) {
    for line in lines {
        let is_there = answer.lines().any(|found| found.trim_end() == *line);
        assert!(is_there, "{line} in:\n{answer}");
    }
}

#[track_caller]
fn status(answer: &str, status: &str) {
    let first = answer.lines().next().unwrap_or_default();
    assert_eq!(first.split(' ').nth(1), Some(status), "{answer}");
}

#[test]
fn every_filter_and_match_of_a_route_holds_for_curl_in_both_versions() {
    if !world::possible() {
        return;
    }
    let shop = Shop::new();
    for version in ["--http1.1", "--http2-prior-knowledge"] {
        eprintln!("{version}");
        let ask = |options: &[&str], path: &str| shop.curl(version, options, path);
        // Scheme, host and port of the request: the service's port is told.
        let moved = ask(&[], "/redirect/a?b=c");
        status(&moved, "301");
        holds(&moved, &["location: http://web.shop:8080/there/a?b=c"]);
        let secure = ask(&[], "/secure/a");
        status(&secure, "302");
        holds(&secure, &["location: https://example.org:8443/all"]);

        let own = ["-H", "X-Set: old", "-H", "X-Remove: 1"];
        let rewritten = ask(&own, "/rewrite/a/b?c=d");
        holds(
            &rewritten,
            &["get /a/b?c=d set=new add=two remove=-", "x-answer: set"],
        );
        assert!(!rewritten.contains("x-secret"), "{rewritten}");
        holds(&ask(&[], "/rewrite"), &["get / set=new add=two remove=-"]);
        let of_backend = ask(&own, "/backend");
        holds(&of_backend, &["get /backend set=of-backend add=- remove=1"]);

        for (path, expected) in [
            ("/expression/12", "200"),
            ("/expression/12a", "404"),
            ("/query?color=blue", "200"),
            ("/query?color=red", "404"),
            ("/method", "404"),
            ("/missing", "500"),
            ("/elsewhere", "404"),
        ] {
            status(&ask(&[], path), expected);
        }
        status(&ask(&["-X", "DELETE"], "/method"), "200");

        // The route's own retry, which no BackendPolicy asks for elsewhere.
        status(&ask(&[], "/flaky"), "200");
        status(&ask(&[], "/unforgiven"), "503");
        status(&ask(&[], "/unforgiven"), "200");

        let across = ["-H", "Origin: https://a.example"];
        let preflight = ["-X", "OPTIONS", "-H", "Access-Control-Request-Method: PUT"];
        let allowed = ask(&[&across[..], &preflight].concat(), "/cors");
        status(&allowed, "204");
        holds(
            &allowed,
            &[
                "access-control-allow-origin: https://a.example",
                "access-control-allow-methods: put",
                "access-control-max-age: 60",
            ],
        );
        let actual = ask(&across, "/cors");
        status(&actual, "200");
        holds(&actual, &["access-control-allow-origin: https://a.example"]);
        let elsewhere = ask(&["-H", "Origin: https://a.evil"], "/cors");
        assert!(!elsewhere.contains("access-control"), "{elsewhere}");
    }
}

#[test]
fn a_mirror_hears_every_request_and_its_500_is_nobodys() {
    if !world::possible() {
        return;
    }
    let shop = Shop::new();
    for version in ["--http1.1", "--http2-prior-knowledge"] {
        status(&shop.curl(version, &[], "/mirror/get?a=b"), "200");
        let body = ["--data-binary", "some body"];
        status(&shop.curl(version, &body, "/mirror/post"), "200");
    }
    let copies = wait::until("all four copies", || {
        let copies = shop.copies.lock().unwrap().clone();
        (copies.len() >= 4).then_some(copies)
    });
    let mut copies = copies;
    copies.sort();
    assert_eq!(
        copies,
        [
            "GET /mirror/get?a=b 0",
            "GET /mirror/get?a=b 0",
            "POST /mirror/post 9",
            "POST /mirror/post 9"
        ]
    );
    let count = |result| {
        let metrics = shop.client.metrics();
        metrics.sum("weft_mirror_requests_total", &[("result", result)])
    };
    wait::until("four copies answered", || {
        (count("answered") >= 4.0).then_some(())
    });
    assert!(count("failed") < 1.0 && count("busy") < 1.0);
    // Larger than what is kept: the caller is answered, the copy left out.
    let large = ["--data-binary", &"x".repeat(65 * 1024)];
    status(&shop.curl("--http1.1", &large, "/mirror/large"), "200");
    wait::until("the copy that was left out", || {
        (count("too-large") >= 1.0).then_some(())
    });
    assert_eq!(shop.copies.lock().unwrap().len(), 4);
}

/// grpcio calls a GRPCRoute: what it takes goes on, what it doesn't is UNIMPLEMENTED.
#[test]
fn a_grpc_route_takes_its_methods_and_refuses_the_others_by_status() {
    if !world::possible() {
        return;
    }
    const GRPC: &str = r#"
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: rpc, namespace: shop}
spec:
  parentRefs: [{group: "", kind: Service, name: rpc, port: 50051}]
  rules:
  - matches: [{method: {service: it.Service, method: Unary}}]
    filters:
    - type: RequestHeaderModifier
      requestHeaderModifier: {set: [{name: x-mine, value: of-route}]}
    backendRefs: [{name: rpc, port: 50051}]
  - matches: [{method: {type: RegularExpression, service: "it[.].*", method: "Miss.*"}}]
    backendRefs: [{name: nowhere, port: 50051}]
---
"#;
    let mesh = World::new(&(world::service("shop/rpc", &[50051]) + GRPC));
    let [interpreter, server] = python("grpc_server.py");
    let _server = mesh.pod("shop/rpc-0").port(50051).run([
        interpreter.as_os_str(),
        server.as_os_str(),
        "50051".as_ref(),
    ]);
    let client = mesh.idle("shop/client-0");
    let [_, call] = python("grpc_call.py");
    let asked = [
        "/it.Service/Unary",
        "/it.Service/Large",
        "/it.Service/Missing",
    ];
    let expected = "/it.Service/Unary b\"cbax-mine='of-route'\"\n\
                    /it.Service/Large UNIMPLEMENTED\n\
                    /it.Service/Missing UNAVAILABLE\n";
    wait::until("the route in the caller's proxy", || {
        let program = [
            interpreter.to_str().unwrap(),
            call.to_str().unwrap(),
            "rpc.shop:50051",
        ];
        let answers = client.output(program.iter().chain(&asked)).success();
        eprintln!("{answers}");
        (answers == expected).then_some(())
    });
}

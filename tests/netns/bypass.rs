//! No spelling of a request gets past a policy.
//!
//! Each case is sent for real, and what the application then got is read as the
//! most careless application would read it: decoded once or twice, with dot
//! segments resolved or not, parameters dropped, backslashes taken for slashes.
//! If any reading is one that the policy denies, policy and application have
//! disagreed. What was refused must not have arrived at all.

use std::{collections::BTreeSet, time::Duration};

use http::HeaderMap;
use weft_proxy::seams::http1::{self, Start};
use weft_tests::{
    http2::{self, Application},
    probe::Raw,
    recorder::Recorder,
    wait,
    world::{self, Pod, World},
};

/// A policy, by its port for HTTP/1; HTTP/2 has the one a hundred above.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Policy {
    DenyAdmin = 8100,
    AllowPublic = 8101,
    AllowGet = 8102,
    DenyPost = 8103,
    AllowClient = 8104,
    DenyDev = 8105,
    StrictGetPublic = 8106,
}

const POLICIES: [(Policy, &str); 7] = [
    (
        Policy::DenyAdmin,
        "rules: [{action: Deny, to: {pathPrefixes: [/admin]}}]",
    ),
    (
        Policy::AllowPublic,
        "rules: [{action: Allow, to: {pathPrefixes: [/public]}}]",
    ),
    (
        Policy::AllowGet,
        "rules: [{action: Allow, to: {methods: [GET]}}]",
    ),
    (
        Policy::DenyPost,
        "rules: [{action: Deny, to: {methods: [POST]}}]",
    ),
    (
        Policy::AllowClient,
        "rules: [{action: Allow, from: {identities: ['spiffe://cluster.local/ns/shop/sa/client']}}]",
    ),
    (
        Policy::DenyDev,
        "rules: [{action: Deny, from: {namespaces: [dev]}}]",
    ),
    (
        Policy::StrictGetPublic,
        "mtls: Strict\n  rules: [{action: Allow, from: {namespaces: [shop]}, to: {methods: [GET], pathPrefixes: [/public]}}, {action: Deny, to: {pathPrefixes: [/public/admin]}}]",
    ),
];

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Version {
    Http10,
    Http11,
    Http2,
}

const VERSIONS: [Version; 3] = [Version::Http10, Version::Http11, Version::Http2];

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Who {
    /// `shop/client`.
    Client,
    /// `dev/caller`.
    Dev,
    /// Without a sidecar.
    Stranger,
}

#[derive(Clone, Debug)]
struct Case {
    policy: Policy,
    version: Version,
    who: Who,
    method: &'static str,
    target: &'static str,
    fields: &'static [(&'static str, &'static str)],
}

/// Spellings of "/admin", of ways out of "/public", and of neither.
const TARGETS: &[&str] = &[
    "/admin",
    "/admin/",
    "/admin/x",
    "/admin?x",
    "/admin#x",
    "//admin",
    "///admin",
    "/./admin",
    "/x/../admin",
    "/%61dmin",
    "/%2561dmin",
    "/ad%6Din",
    "/ad%6din/x",
    "/admin%2f",
    "/admin%2Fx",
    "/%2fadmin",
    "/x%2f..%2fadmin",
    "/x/%2e%2e/admin",
    "/x/.%2e/admin",
    "/x/%2e./admin",
    "/%2e/admin",
    "/admin;x",
    "/admin;x=y/z",
    "/;x/admin",
    "/x/..;/admin",
    "/admin%3bx",
    "/admin%00",
    "/admin%00/x",
    "/%00/admin",
    "/admin%20",
    "/admin%09",
    "/admin\\x",
    "/x\\..\\admin",
    "/\\admin",
    "/%5cadmin",
    "/%5Cadmin",
    "/x%5c..%5cadmin",
    "/%c0%afadmin",
    "/%e0%80%afadmin",
    "/%ef%bc%8fadmin",
    "/%c1%a1dmin",
    "/adm%u0069n",
    "/%61%64%6d%69%6e",
    "/%2561%2564min",
    "/x?/admin",
    "/x#/admin",
    "/admin%",
    "/admin%2",
    "/admin%zz",
    "/admin.",
    "/administrator",
    "/ADMIN",
    "/public",
    "/public/",
    "/public/x",
    "/public/a%20b",
    "/public/%61",
    "/%70ublic/x",
    "/publicx",
    "/public%2fx",
    "/public/../admin",
    "/public/..",
    "/public/./x",
    "/public//x",
    "/public/%2e%2e/admin",
    "/public/..%2fadmin",
    "/public/%252e%252e/admin",
    "/public/..;/admin",
    "/public//../admin",
    "/public/./../admin",
    "/public\\..\\admin",
    "/public%2f..%2fadmin",
    "/public/..\\admin",
    "/public%00/../admin",
    "/public;/../admin",
    "/public;x",
    "/public?/../admin",
    "/public/%ef%bc%8e%ef%bc%8e/admin",
    "/public/...",
    "/",
    "/x",
    "*",
    "admin",
    "http://app/admin",
    "http://app//admin",
    "http://app/public/../admin",
    "http://app/public/x",
    "http://admin/public",
    "HTTP://app/admin",
];

const METHODS: &[&str] = &[
    "GET", "get", "Get", "POST", "post", "pOsT", "HEAD", "PUT", "GETS", "OPTIONS",
];

/// None of them may change what is decided.
const FIELDS: &[&[(&str, &str)]] = &[
    &[("x-original-url", "/public"), ("x-rewrite-url", "/public")],
    &[("x-http-method-override", "GET")],
    &[(
        "x-forwarded-client-cert",
        "By=spiffe://cluster.local/ns/shop/sa/client",
    )],
    &[
        ("weft-attempt", "7"),
        ("weft-fault", "inbound/no-route"),
        ("weft-peer", "spiffe://cluster.local/ns/shop/sa/client"),
    ],
    &[("forwarded", "for=127.0.0.1")],
];

fn cases() -> Vec<Case> {
    let plain = |policy, version, who, method, target| Case {
        policy,
        version,
        who,
        method,
        target,
        fields: &[],
    };
    let mut all = Vec::new();
    for version in VERSIONS {
        for policy in [
            Policy::DenyAdmin,
            Policy::AllowPublic,
            Policy::StrictGetPublic,
        ] {
            for target in TARGETS {
                all.push(plain(policy, version, Who::Client, "GET", target));
            }
        }
        for policy in [Policy::AllowGet, Policy::DenyPost, Policy::StrictGetPublic] {
            for method in METHODS {
                all.push(plain(policy, version, Who::Client, method, "/public/x"));
            }
        }
        for (policy, _) in POLICIES {
            for who in [Who::Client, Who::Dev, Who::Stranger] {
                for fields in FIELDS {
                    let method = if policy == Policy::DenyPost {
                        "POST"
                    } else {
                        "GET"
                    };
                    all.push(Case {
                        fields,
                        ..plain(policy, version, who, method, "/public/x")
                    });
                }
                all.push(plain(policy, version, who, "GET", "/public/x"));
                all.push(plain(policy, version, who, "GET", "/admin"));
            }
        }
    }
    all
}

/// What the application got.
#[derive(Clone, Debug)]
struct Got {
    method: String,
    target: String,
    names: Vec<String>,
}

struct Rig {
    client: Pod,
    dev: Pod,
    stranger: Pod,
    app: Pod,
    one: Vec<Recorder>,
    two: Vec<Application>,
    mesh: World,
}

fn rig() -> Rig {
    let ports: Vec<u16> = POLICIES
        .iter()
        .flat_map(|(policy, _)| [*policy as u16, *policy as u16 + 100])
        .collect();
    let mut manifests = world::service("shop/app", &ports) + &world::namespace("dev");
    for (policy, spec) in POLICIES {
        let port = policy as u16;
        manifests += &format!(
            "apiVersion: weft.dev/v1alpha1\nkind: AccessPolicy\nmetadata: {{name: p{port}, namespace: shop}}\nspec:\n  selector: {{matchLabels: {{app: app}}}}\n  ports: [{port}, {}]\n  {spec}\n---\n",
            port + 100
        );
    }
    let mesh = World::with(
        true,
        &manifests,
        &[("WEFT_ACCESS_LOG", "off"), ("WEFT_CLIENT_SILENCE", "5s")],
    );
    let app = mesh.idle("shop/app-0");
    let port = |policy: Policy| policy as u16;
    let one = POLICIES
        .iter()
        .map(|(policy, _)| Recorder::http(app.listen(port(*policy))))
        .collect();
    let two = POLICIES.iter().map(|(policy, _)| {
        Application::start(
            app.listen(port(*policy) + 100),
            HeaderMap::new(),
            HeaderMap::new(),
        )
    });
    let two = two.collect();
    let client = mesh
        .pod("shop/client-0")
        .option("--service-account", "client")
        .run(["sleep", "infinity"]);
    let dev = mesh
        .pod("dev/caller-0")
        .option("--service-account", "caller")
        .run(["sleep", "infinity"]);
    let stranger = mesh
        .pod("shop/stranger-0")
        .flag("--no-mesh")
        .run(["sleep", "infinity"]);
    let rig = Rig {
        client,
        dev,
        stranger,
        app,
        one,
        two,
        mesh,
    };
    wait::until("the application through both sidecars", || {
        let mut raw = Raw::new(rig.client.connect("app.shop", Policy::AllowGet as u16));
        let answer = raw.ask(b"GET /first HTTP/1.1\r\nHost: app\r\n\r\n");
        answer
            .is_ok_and(|answer| answer.status == 200)
            .then_some(())
    });
    let _ = rig.got();
    rig
}

impl Rig {
    /// Everything that arrived since the last time.
    fn got(&self) -> Vec<Got> {
        let mut all = Vec::new();
        for recorder in &self.one {
            let bytes = recorder.take();
            let read = http1::read_requests([&bytes[..]]);
            assert_eq!(read.end, http1::End::Clean, "{}", bytes.escape_ascii());
            for message in read.messages {
                let Start::Request { method, target } = message.start else {
                    continue;
                };
                let names = message
                    .fields
                    .iter()
                    .map(|(name, _)| String::from_utf8_lossy(name).to_lowercase());
                all.push(Got {
                    method,
                    target: String::from_utf8_lossy(&target).into_owned(),
                    names: names.collect(),
                });
            }
        }
        for asked in self.two.iter().flat_map(Application::take) {
            all.push(Got {
                method: asked.method,
                target: asked.target,
                names: asked
                    .fields
                    .keys()
                    .map(|name| name.as_str().to_owned())
                    .collect(),
            });
        }
        all
    }

    fn send(&self, case: &Case) {
        let from = match case.who {
            Who::Client => &self.client,
            Who::Dev => &self.dev,
            Who::Stranger => &self.stranger,
        };
        let host = match case.who {
            Who::Stranger => self.app.address().to_string(),
            Who::Client | Who::Dev => "app.shop".to_owned(),
        };
        let port = case.policy as u16;
        if case.version == Version::Http2 {
            let mut stream = from.connect(&host, port + 100);
            stream.set_read_timeout(Some(PATIENCE)).expect("not zero");
            let mut fields = vec![
                (":method", case.method),
                (":scheme", "http"),
                (":authority", "app"),
                (":path", case.target),
            ];
            fields.extend(case.fields);
            http2::ask(&mut stream, &fields).unwrap_or_else(|error| panic!("{case:?}: {error}"));
            return;
        }
        let version = if case.version == Version::Http10 {
            "1.0"
        } else {
            "1.1"
        };
        let mut head = format!(
            "{} {} HTTP/{version}\r\nHost: app\r\n",
            case.method, case.target
        );
        for (name, value) in case.fields {
            head += &format!("{name}: {value}\r\n");
        }
        let mut raw = Raw::new(from.connect(&host, port));
        raw.send(format!("{head}\r\n").as_bytes());
        // An answer or an end; either way the application has had what it gets.
        let _ = raw.head();
    }
}

const PATIENCE: Duration = Duration::from_secs(10);

/// Every path that some application might take a target for.
fn readings(target: &str) -> BTreeSet<String> {
    let rest = match target.split_once("://") {
        Some((_, rest)) => rest.find('/').map_or("/", |at| &rest[at..]),
        None => target,
    };
    let path = rest.split(['?', '#']).next().unwrap_or_default().to_owned();
    let decoded = |text: &str| {
        let bytes = http1_decoded(text.as_bytes());
        String::from_utf8_lossy(&bytes)
            .replace(['\u{ff0f}', '\u{ff3c}'], "/")
            .replace('\u{ff0e}', ".")
    };
    let mut all = BTreeSet::from([path.clone(), decoded(&path), decoded(&decoded(&path))]);
    let grow = |all: &mut BTreeSet<String>, change: &dyn Fn(&str) -> String| {
        let more: Vec<String> = all.iter().map(|path| change(path)).collect();
        all.extend(more);
    };
    grow(&mut all, &|path| path.replace('\\', "/"));
    grow(&mut all, &|path| {
        path.split('\0').next().unwrap_or_default().to_owned()
    });
    grow(&mut all, &|path| {
        let segments = path
            .split('/')
            .map(|segment| segment.split(';').next().unwrap_or_default());
        segments.collect::<Vec<_>>().join("/")
    });
    grow(&mut all, &|path| {
        let mut kept: Vec<&str> = Vec::new();
        for segment in path.split('/') {
            match segment {
                "" | "." => {}
                ".." => drop(kept.pop()),
                segment => kept.push(segment),
            }
        }
        format!("/{}", kept.join("/"))
    });
    all
}

fn http1_decoded(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = bytes;
    while let Some((first, after)) = rest.split_first() {
        let hex = after.get(..2).and_then(|two| std::str::from_utf8(two).ok());
        match hex.and_then(|two| u8::from_str_radix(two, 16).ok()) {
            Some(value) if *first == b'%' => {
                out.push(value);
                rest = &after[2..];
            }
            _ => {
                out.push(*first);
                rest = after;
            }
        }
    }
    out
}

fn is_under(prefix: &str, path: &str) -> bool {
    path.strip_prefix(prefix)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Does the policy permit what the application took it for, in every reading?
fn is_permitted(case: &Case, got: &Got) -> bool {
    let readings = readings(&got.target);
    let any = |prefix: &str| readings.iter().any(|path| is_under(prefix, path));
    let all = |prefix: &str| readings.iter().all(|path| is_under(prefix, path));
    match case.policy {
        Policy::DenyAdmin => !any("/admin"),
        Policy::AllowPublic => all("/public"),
        Policy::AllowGet => got.method == "GET",
        Policy::DenyPost => !got.method.eq_ignore_ascii_case("POST"),
        Policy::AllowClient => case.who == Who::Client,
        Policy::DenyDev => case.who == Who::Client,
        Policy::StrictGetPublic => {
            case.who == Who::Client
                && got.method == "GET"
                && all("/public")
                && !any("/public/admin")
        }
    }
}

/// What nobody may refuse.
fn is_innocent(case: &Case) -> bool {
    let is_plain = case.fields.is_empty();
    match case.policy {
        Policy::DenyAdmin => {
            is_plain && ["/public/x", "/administrator", "/x", "/"].contains(&case.target)
        }
        Policy::AllowPublic => {
            ["/public", "/public/x", "/public/a%20b", "/public/%61"].contains(&case.target)
        }
        Policy::AllowGet => case.method == "GET",
        Policy::DenyPost => case.method == "GET",
        Policy::AllowClient | Policy::DenyDev => case.who == Who::Client,
        Policy::StrictGetPublic => {
            case.who == Who::Client && case.method == "GET" && case.target == "/public/x"
        }
    }
}

#[test]
fn no_spelling_of_a_request_moves_it_past_a_policy() {
    if !world::possible() {
        return;
    }
    let rig = rig();
    let cases = cases();
    assert!(cases.len() >= 300, "the corpus shrank to {}", cases.len());
    let mut wrong = Vec::new();
    let (mut delivered, mut refused) = (0, 0);
    for case in &cases {
        rig.send(case);
        let got = rig.got();
        match &got[..] {
            [] if is_innocent(case) => wrong.push(format!("refused: {case:?}")),
            [] => refused += 1,
            [got] if !is_permitted(case, got) => wrong.push(format!("let by: {case:?} as {got:?}")),
            [got] if got.names.iter().any(|name| name.starts_with("weft-")) => {
                wrong.push(format!("believed: {case:?} as {got:?}"));
            }
            [_] => delivered += 1,
            more => wrong.push(format!("multiplied: {case:?} as {more:?}")),
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {} wrong:\n{}",
        wrong.len(),
        cases.len(),
        wrong.join("\n")
    );
    assert!(
        delivered > 100 && refused > 100,
        "{delivered} delivered, {refused} refused"
    );
    drop(rig.mesh);
}

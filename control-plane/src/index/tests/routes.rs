//! Which routes hold where, and what is answered: GEP-1294, clause by clause.

use super::*;
use crate::model::{
    BackendPolicyObject, BackendRef, Broken, ConditionKind, Filter, Match, Mirror, Parent, Reason,
    Reference, Refused, Route, RouteKind, Rule,
};

/// `shop/cart` with ports 80 and 7070, `shop/headless`, `else/next`.
fn shop() -> Vec<Object> {
    let port = |port| ServicePort {
        name: format!("p{port}"),
        port,
        target: TargetPort::Number(port),
        ..ServicePort::default()
    };
    let cart = Service {
        ports: vec![port(80), port(7070)],
        ..service("shop/cart", "10.96.0.1", "cart")
    };
    let headless = Service {
        addresses: BTreeSet::new(),
        ..service("shop/headless", "10.96.0.9", "cart")
    };
    vec![
        Object::Service(cart),
        Object::Service(headless),
        Object::Service(service("else/next", "10.96.0.2", "next")),
    ]
}

fn route(route: &str, parent: &str, port: Option<u16>) -> Route {
    let service = name(parent);
    Route {
        name: name(route),
        generation: 3,
        parents: vec![Parent {
            reference: Reference {
                name: service.name.clone(),
                ..Reference::default()
            },
            service,
            port,
            ..Parent::default()
        }],
        rules: vec![any_request()],
        ..Route::default()
    }
}

fn grpc(it: Route) -> Route {
    Route {
        kind: RouteKind::Grpc,
        ..it
    }
}

fn any_request() -> Rule {
    Rule {
        matches: vec![Match::default()],
        ..Rule::default()
    }
}

fn refused(field: &str) -> Option<Refused> {
    Some(Refused {
        reason: Reason::UnsupportedValue,
        field: field.to_owned(),
        message: "is not carried".to_owned(),
        remedy: "remove it".to_owned(),
    })
}

fn with(routes: impl IntoIterator<Item = Route>) -> Index {
    applied(
        shop()
            .into_iter()
            .chain(routes.into_iter().map(Object::Route)),
    )
}

/// Names of the routes that a caller in `namespace` gets on a port of `shop/cart`.
fn held(index: &Index, port: u16, namespace: &str) -> Vec<String> {
    let service = index.service(&name("shop/cart")).unwrap();
    let port = service.ports.iter().find(|it| it.port == port).unwrap();
    let routes = port.routes_for(&service.name, namespace);
    routes.iter().map(|it| it.key().to_string()).collect()
}

fn condition(index: &Index, of: &Key, kind: ConditionKind) -> Option<(bool, Reason, String)> {
    let verdict = index.verdict(of)?;
    let found = verdict.entries[0]
        .conditions
        .iter()
        .find(|it| it.kind == kind)?;
    Some((found.holds, found.reason, found.message.clone()))
}

fn accepted(index: &Index, of: &Route) -> (bool, Reason, String) {
    condition(index, &of.key(), ConditionKind::Accepted).unwrap()
}

fn resolved(index: &Index, of: &Route) -> (bool, Reason, String) {
    condition(index, &of.key(), ConditionKind::ResolvedRefs).unwrap()
}

/// "parentRef.port unset: all ports; set: only that one".
#[test]
fn a_parents_port_says_where_a_route_holds() {
    let index = with([
        route("shop/all", "shop/cart", None),
        route("shop/one", "shop/cart", Some(80)),
    ]);
    assert_eq!(
        held(&index, 80, "shop"),
        ["HTTPRoute shop/all", "HTTPRoute shop/one"]
    );
    assert_eq!(held(&index, 7070, "shop"), ["HTTPRoute shop/all"]);
}

/// "A route in another namespace is a consumer route: it holds for callers of
/// its namespace alone, and instead of the producer's."
#[test]
fn consumer_routes_replace_producer_routes_in_their_own_namespace() {
    let index = with([
        route("shop/own", "shop/cart", None),
        route("web/theirs", "shop/cart", None),
    ]);
    assert_eq!(held(&index, 80, "web"), ["HTTPRoute web/theirs"]);
    assert_eq!(held(&index, 80, "shop"), ["HTTPRoute shop/own"]);
    assert_eq!(held(&index, 80, "billing"), ["HTTPRoute shop/own"]);
}

/// Precedence ties go to the oldest, then to the first by name.
#[test]
fn several_routes_of_one_service_are_merged_oldest_first() {
    let young = Route {
        created_milliseconds: 9,
        ..route("shop/a", "shop/cart", None)
    };
    let index = with([
        young,
        route("shop/c", "shop/cart", None),
        route("shop/b", "shop/cart", None),
    ]);
    let order = ["HTTPRoute shop/b", "HTTPRoute shop/c", "HTTPRoute shop/a"];
    assert_eq!(held(&index, 80, "shop"), order);
}

/// "GRPCRoute > HTTPRoute [...]; the others are not accepted."
#[test]
fn a_grpc_route_takes_a_port_from_http_routes_and_they_are_told() {
    let http = route("shop/http", "shop/cart", Some(7070));
    let wins = grpc(route("shop/grpc", "shop/cart", Some(7070)));
    let mut index = with([http.clone()]);
    assert!(accepted(&index, &http).0);
    let changes = index.apply(Event::Apply(Object::Route(wins.clone())));
    assert!(changes.contains(&Change::Verdict(http.key())));
    assert_eq!(held(&index, 7070, "shop"), ["GRPCRoute shop/grpc"]);
    let (holds, reason, message) = accepted(&index, &http);
    assert_eq!((holds, reason), (false, Reason::Conflicted));
    assert_eq!(
        message,
        "GRPCRoute shop/grpc holds port 7070 of Service shop/cart"
    );
    assert!(accepted(&index, &wins).0);
    assert_eq!(
        index.problems_of(&http.key())[0].field,
        "spec.parentRefs[0]"
    );
    index.apply(Event::Delete(wins.key()));
    assert!(accepted(&index, &http).0);
    assert_eq!(index.problems_of(&http.key()), []);
}

#[test]
fn a_route_that_loses_one_of_its_ports_holds_on_the_others() {
    let http = route("shop/http", "shop/cart", None);
    let index = with([
        http.clone(),
        grpc(route("shop/grpc", "shop/cart", Some(7070))),
    ]);
    assert_eq!(held(&index, 80, "shop"), ["HTTPRoute shop/http"]);
    assert_eq!(held(&index, 7070, "shop"), ["GRPCRoute shop/grpc"]);
    let (holds, _, message) = accepted(&index, &http);
    assert!(
        holds && message.contains("GRPCRoute shop/grpc holds port 7070"),
        "{message}"
    );
}

/// Producer and consumer routes are never looked at together.
#[test]
fn kinds_of_different_namespaces_do_not_conflict() {
    let http = route("shop/http", "shop/cart", None);
    let theirs = grpc(route("web/grpc", "shop/cart", None));
    let index = with([http.clone(), theirs.clone()]);
    assert!(accepted(&index, &http).0 && accepted(&index, &theirs).0);
    assert_eq!(held(&index, 80, "web"), ["GRPCRoute web/grpc"]);
    assert_eq!(held(&index, 80, "shop"), ["HTTPRoute shop/http"]);
}

/// HTTPRoute and GRPCRoute may have one name.
#[test]
fn routes_of_two_kinds_with_one_name_are_two() {
    let http = route("shop/cart", "shop/cart", Some(80));
    let both = grpc(route("shop/cart", "shop/cart", Some(7070)));
    let mut index = with([http.clone(), both.clone()]);
    assert_eq!(held(&index, 80, "shop"), ["HTTPRoute shop/cart"]);
    assert_eq!(held(&index, 7070, "shop"), ["GRPCRoute shop/cart"]);
    index.apply(Event::Delete(http.key()));
    assert_eq!(index.verdict(&http.key()), None);
    assert_eq!(held(&index, 7070, "shop"), ["GRPCRoute shop/cart"]);
}

/// RouteConditionAccepted, with RouteReasonNoMatchingParent: "headless and
/// ExternalName Services SHOULD NOT be accepted".
#[test]
fn a_parent_that_is_not_there_or_has_no_address_is_not_matched() {
    for (parent, port, message) in [
        ("shop/ghost", None, "there is no Service shop/ghost"),
        ("shop/cart", Some(81), "Service shop/cart has no port 81"),
        (
            "shop/headless",
            None,
            "Service shop/headless has no ClusterIP, and routes match on it",
        ),
    ] {
        let it = route("shop/route", parent, port);
        let index = with([it.clone()]);
        let expected = (false, Reason::NoMatchingParent, message.to_owned());
        assert_eq!(accepted(&index, &it), expected);
        assert!(
            index
                .problems_of(&it.key())
                .iter()
                .any(|it| it.field.starts_with("spec.parentRefs[0]"))
        );
    }
}

#[test]
fn a_parent_that_appears_is_attached_to_and_told() {
    let it = route("shop/route", "shop/late", None);
    let mut index = with([it.clone()]);
    let changes = index.apply(Event::Apply(Object::Service(service(
        "shop/late",
        "10.96.0.3",
        "late",
    ))));
    assert!(changes.contains(&Change::Verdict(it.key())));
    assert_eq!(
        accepted(&index, &it),
        (
            true,
            Reason::Accepted,
            "attached to Service shop/late".to_owned()
        )
    );
}

/// An entry for each parent, with its own answer and the route's generation.
#[test]
fn every_parent_gets_its_own_answer_of_the_generation_that_was_judged() {
    let mut it = route("shop/route", "shop/cart", None);
    it.parents.extend(route("", "shop/ghost", None).parents);
    let mut index = with([it.clone()]);
    let verdict = index.verdict(&it.key()).unwrap();
    let answers: Vec<_> = verdict
        .entries
        .iter()
        .map(|entry| (entry.reference.name.as_str(), entry.conditions[0].holds))
        .collect();
    assert_eq!(answers, [("cart", true), ("ghost", false)]);
    assert_eq!(verdict.generation, 3);
    it.generation = 4;
    let changes = index.apply(Event::Apply(Object::Route(it.clone())));
    assert!(changes.contains(&Change::Verdict(it.key())));
    assert_eq!(index.verdict(&it.key()).unwrap().generation, 4);
}

#[test]
fn a_route_without_a_service_as_parent_is_not_answered() {
    let it = Route {
        parents: Vec::new(),
        ..route("shop/edge", "shop/cart", None)
    };
    assert_eq!(with([it.clone()]).verdict(&it.key()), None);
}

fn to(service: &str, port: u16, weight: u32) -> BackendRef {
    BackendRef {
        backend: backend(service, port),
        weight,
        invalid: None,
        filters: Vec::new(),
    }
}

/// RouteConditionResolvedRefs. "Cross-namespace backends need no
/// ReferenceGrant"; a missing one doesn't poison the rule, whatever its weight.
#[test]
fn references_that_lead_nowhere_are_named_and_the_route_stays_accepted() {
    let strange = BackendRef {
        invalid: Some(Broken {
            reason: Reason::InvalidKind,
            message: "backends of kind Bucket are not known".to_owned(),
        }),
        ..to("shop/bucket", 0, 1)
    };
    let shadow = Filter::Mirror(Mirror {
        backend: backend("shop/shadow", 80),
        invalid: None,
        numerator: 1,
        denominator: 1,
    });
    let mirrored = BackendRef {
        filters: vec![shadow.clone()],
        ..to("else/next", 80, 1)
    };
    let rule = |backends| Rule {
        backends,
        ..any_request()
    };
    let cases = [
        (
            rule(vec![to("else/next", 80, 1)]),
            Reason::ResolvedRefs,
            "every backend exists",
        ),
        (
            rule(vec![to("else/next", 80, 1), to("shop/ghost", 80, 0)]),
            Reason::BackendNotFound,
            "spec.rules[0].backendRefs[1]: there is no Service shop/ghost",
        ),
        (
            rule(vec![to("else/next", 81, 1), to("shop/ghost", 80, 1)]),
            Reason::BackendNotFound,
            "spec.rules[0].backendRefs[0]: Service else/next has no port 81, and 1 more",
        ),
        (
            rule(vec![strange]),
            Reason::InvalidKind,
            "spec.rules[0].backendRefs[0]: backends of kind Bucket are not known",
        ),
        (
            Rule {
                filters: vec![shadow],
                ..any_request()
            },
            Reason::BackendNotFound,
            "spec.rules[0].filters[0].requestMirror.backendRef: there is no Service shop/shadow",
        ),
        (
            rule(vec![mirrored]),
            Reason::BackendNotFound,
            "spec.rules[0].backendRefs[0].filters[0].requestMirror.backendRef: there is no Service shop/shadow",
        ),
    ];
    for (rule, reason, message) in cases {
        let it = Route {
            rules: vec![rule],
            ..route("shop/route", "shop/cart", None)
        };
        let index = with([it.clone()]);
        let holds = reason == Reason::ResolvedRefs;
        assert_eq!(resolved(&index, &it), (holds, reason, message.to_owned()));
        assert!(accepted(&index, &it).0);
        assert_eq!(held(&index, 80, "shop"), ["HTTPRoute shop/route"]);
        assert_eq!(index.problems_of(&it.key()).is_empty(), holds);
    }
}

/// RouteConditionPartiallyInvalid: true alone, "Dropped Rule" first; Accepted
/// stays true while a rule is left.
#[test]
fn a_route_with_a_refused_rule_is_partially_invalid_and_with_none_left_not_accepted() {
    let bad = Rule {
        refused: refused("spec.rules[0].filters[0].type"),
        ..any_request()
    };
    let some = Route {
        rules: vec![bad.clone(), any_request()],
        ..route("shop/some", "shop/cart", None)
    };
    let none = Route {
        rules: vec![bad],
        ..route("shop/none", "shop/cart", None)
    };
    let index = with([some.clone(), none.clone()]);
    assert!(accepted(&index, &some).0);
    let partly = condition(&index, &some.key(), ConditionKind::PartiallyInvalid).unwrap();
    let message = "Dropped Rule: spec.rules[0].filters[0].type is not carried: remove it";
    assert_eq!(partly, (true, Reason::UnsupportedValue, message.to_owned()));
    let (holds, reason, _) = accepted(&index, &none);
    assert_eq!((holds, reason), (false, Reason::UnsupportedValue));
    assert_eq!(
        condition(&index, &none.key(), ConditionKind::PartiallyInvalid),
        None
    );
    assert_eq!(
        index.problems_of(&none.key())[0].field,
        "spec.rules[0].filters[0].type"
    );
}

/// It closes the ports that it names, and takes nothing from routes that can
/// be read.
#[test]
fn a_route_that_cannot_be_read_is_answered_and_gives_way() {
    let unread = Route {
        rules: Vec::new(),
        refused: refused("spec.rules[0].filters[0].type"),
        ..grpc(route("shop/unread", "shop/cart", None))
    };
    let index = with([unread.clone()]);
    assert_eq!(held(&index, 80, "shop"), ["GRPCRoute shop/unread"]);
    let expected = "spec.rules[0].filters[0].type is not carried: remove it";
    assert_eq!(
        accepted(&index, &unread),
        (false, Reason::UnsupportedValue, expected.to_owned())
    );
    let index = with([unread, route("shop/http", "shop/cart", None)]);
    assert_eq!(held(&index, 80, "shop"), ["HTTPRoute shop/http"]);
}

#[test]
fn a_refused_parent_is_answered_and_attaches_to_nothing() {
    let mut it = route("shop/route", "shop/cart", None);
    it.parents[0].refused = refused("spec.parentRefs[0].sectionName");
    let index = with([it.clone()]);
    assert!(!accepted(&index, &it).0);
    assert_eq!(held(&index, 80, "shop"), [""; 0]);
}

/// GEP-713: the oldest policy has the target, and the other is told.
#[test]
fn policies_are_answered_by_ancestor() {
    let policy = |policy: &str, targets: &[&str], created_milliseconds| BackendPolicyObject {
        name: name(policy),
        created_milliseconds,
        generation: 5,
        targets: targets.iter().map(|it| (*it).to_owned()).collect(),
        ..BackendPolicyObject::default()
    };
    let index = applied(shop().into_iter().chain([
        Object::BackendPolicy(policy("shop/old", &["cart", "ghost"], 1)),
        Object::BackendPolicy(policy("shop/new", &["cart"], 2)),
    ]));
    let answers = |of: &str| -> Vec<(String, Option<String>, Reason)> {
        let verdict = index.verdict(&key(Kind::BackendPolicy, of)).unwrap();
        assert_eq!(verdict.generation, 5);
        let entries = verdict.entries.iter();
        entries
            .map(|it| {
                let reference = it.reference.clone();
                (reference.name, reference.namespace, it.conditions[0].reason)
            })
            .collect()
    };
    let of = |name: &str, reason| (name.to_owned(), Some("shop".to_owned()), reason);
    assert_eq!(
        answers("shop/old"),
        [
            of("cart", Reason::Accepted),
            of("ghost", Reason::TargetNotFound)
        ]
    );
    assert_eq!(answers("shop/new"), [of("cart", Reason::Conflicted)]);
}

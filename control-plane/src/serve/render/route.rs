//! Routes in the words of the wire protocol, and in those of older proxies.
//!
//! Part of `render`. A proxy that knows `http-route/v1` alone gets a rule that
//! it can't carry out as one that answers an error. Where it can't even tell
//! which requests a rule matches, any rule of the port might open what that one
//! closed, so there the port matches nothing. Both are told.
//!
//! Pure.

use weft_proto::v1::{self, filter::Kind as To};

use super::Features;
use crate::model::{
    BackendName, BackendRef, Cors, Filter, HeaderModifier, Match, Mirror, PathMatch, PathModifier,
    Redirect, Rewrite, Route, RouteKind, RouteRetry, Rule, TextMatch,
};

/// Those of one port for one caller.
pub(super) fn all(from: &[&Route], features: Features, denied: &mut Vec<String>) -> Vec<v1::Route> {
    if features.has(Features::WHOLE_ROUTE) {
        return from.iter().map(|it| route(it, &rule)).collect();
    }
    let needs = if features.has(Features::HTTP_ROUTE) {
        "http-route/v2"
    } else {
        "http-route/v1"
    };
    let told = |it: &&&Route| format!("{}: needs {needs}", it.key());
    let strange: Vec<&&Route> = from
        .iter()
        .filter(|it| !features.has(Features::HTTP_ROUTE) || !it.rules.iter().all(is_known_match))
        .chain(from.iter().filter(|it| it.kind == RouteKind::Grpc))
        .collect();
    if !strange.is_empty() {
        denied.extend(strange.iter().map(told));
        // Without rules it matches nothing, so that all is refused.
        let closed = |it: &&Route| v1::Route {
            rules: Vec::new(),
            kind: v1::RouteKind::HttpRoute.into(),
            ..route(it, &rule)
        };
        return from.iter().map(closed).collect();
    }
    let lesser = |it: &Rule| match is_known(it) {
        true => rule(it),
        false => refused(it, &format!("the proxy is too old: it needs {needs}")),
    };
    let partly = from.iter().filter(|it| !it.rules.iter().all(is_known));
    denied.extend(partly.map(|it| told(&it)));
    from.iter().map(|it| route(it, &lesser)).collect()
}

/// Path and header matches by equality.
fn is_known_match(rule: &Rule) -> bool {
    rule.matches.iter().all(|it| {
        let exact = |(_, value): &(String, TextMatch)| matches!(value, TextMatch::Exact(_));
        !matches!(it.path, PathMatch::Expression(_))
            && it.headers.iter().all(exact)
            && it.query.is_empty()
            && it.method.is_empty()
    })
}

/// And weights, and timeouts.
fn is_known(rule: &Rule) -> bool {
    rule.refused.is_some()
        || rule.filters.is_empty()
            && rule.retry.is_none()
            && rule.backends.iter().all(|it| it.filters.is_empty())
}

fn route(from: &Route, rule: &dyn Fn(&Rule) -> v1::Rule) -> v1::Route {
    v1::Route {
        namespace: from.name.namespace.clone(),
        name: from.name.name.clone(),
        created_milliseconds: from.created_milliseconds,
        // One of which nobody knows what it matches takes no request.
        rules: from
            .rules
            .iter()
            .filter(|it| !it.matches.is_empty())
            .map(|it| match from.kind {
                RouteKind::Http => rule(it),
                RouteKind::Grpc => without_paths(rule(it)),
            })
            .collect(),
        kind: match from.kind {
            RouteKind::Http => v1::RouteKind::HttpRoute,
            RouteKind::Grpc => v1::RouteKind::GrpcRoute,
        }
        .into(),
    }
}

/// A GRPCRoute has no paths; that each is `/` in the model says nothing.
fn without_paths(mut rule: v1::Rule) -> v1::Rule {
    for it in &mut rule.matches {
        it.path = None;
    }
    rule
}

fn rule(from: &Rule) -> v1::Rule {
    if let Some(it) = &from.refused {
        return refused(from, &format!("{} {}", it.field, it.message));
    }
    v1::Rule {
        name: from.name.clone(),
        matches: from.matches.iter().map(one_match).collect(),
        backends: from.backends.iter().map(backend).collect(),
        request_timeout_milliseconds: from.request_timeout_milliseconds,
        backend_timeout_milliseconds: from.backend_timeout_milliseconds,
        filters: from.filters.iter().map(filter).collect(),
        retry: from.retry.as_ref().map(retry),
    }
}

/// What it matches is an error.
fn refused(from: &Rule, why: &str) -> v1::Rule {
    let nowhere = v1::WeightedBackend {
        weight: 1,
        service: Some(v1::ServiceRef::default()),
        invalid: why.to_owned(),
        ..v1::WeightedBackend::default()
    };
    v1::Rule {
        name: from.name.clone(),
        matches: from.matches.iter().map(one_match).collect(),
        backends: vec![nowhere],
        ..v1::Rule::default()
    }
}

fn one_match(from: &Match) -> v1::Match {
    let header = |(name, value): &(String, TextMatch)| {
        let (value, regular_expression) = text(value);
        v1::HeaderMatch {
            name: name.clone(),
            value,
            regular_expression,
        }
    };
    let query = |(name, value): &(String, TextMatch)| {
        let (value, regular_expression) = text(value);
        v1::QueryMatch {
            name: name.clone(),
            value,
            regular_expression,
        }
    };
    let path = match &from.path {
        PathMatch::Exact(path) => v1::path_match::Kind::Exact(path.clone()),
        PathMatch::Prefix(path) => v1::path_match::Kind::Prefix(path.clone()),
        PathMatch::Expression(path) => v1::path_match::Kind::RegularExpression(path.clone()),
    };
    let grpc = (from.grpc != Default::default()).then(|| v1::GrpcMatch {
        service: from.grpc.service.clone(),
        method: from.grpc.method.clone(),
        regular_expression: from.grpc.expression,
    });
    v1::Match {
        path: Some(v1::PathMatch { kind: Some(path) }),
        headers: from.headers.iter().map(header).collect(),
        query: from.query.iter().map(query).collect(),
        method: from.method.clone(),
        grpc,
    }
}

fn text(from: &TextMatch) -> (String, bool) {
    match from {
        TextMatch::Exact(text) => (text.clone(), false),
        TextMatch::Expression(text) => (text.clone(), true),
    }
}

fn backend(from: &BackendRef) -> v1::WeightedBackend {
    v1::WeightedBackend {
        weight: from.weight,
        service: Some(destination(&from.backend)),
        invalid: why(from.invalid.as_ref()),
        filters: from.filters.iter().map(filter).collect(),
    }
}

fn why(invalid: Option<&crate::model::Broken>) -> String {
    invalid.map(|it| it.message.clone()).unwrap_or_default()
}

fn destination(from: &BackendName) -> v1::ServiceRef {
    v1::ServiceRef {
        namespace: from.service.namespace.clone(),
        name: from.service.name.clone(),
        port: from.port.into(),
    }
}

fn filter(from: &Filter) -> v1::Filter {
    let kind = match from {
        Filter::RequestHeaders(it) => To::RequestHeaders(headers(it)),
        Filter::ResponseHeaders(it) => To::ResponseHeaders(headers(it)),
        Filter::Redirect(it) => To::Redirect(redirect(it)),
        Filter::Rewrite(Rewrite { hostname, path }) => To::Rewrite(v1::Rewrite {
            hostname: hostname.clone(),
            path: path.as_ref().map(modifier),
        }),
        Filter::Mirror(it) => To::Mirror(mirror(it)),
        Filter::Cors(it) => To::Cors(cors(it)),
    };
    v1::Filter { kind: Some(kind) }
}

fn headers(from: &HeaderModifier) -> v1::HeaderModifier {
    let header = |(name, value): &(String, String)| v1::Header {
        name: name.clone(),
        value: value.clone(),
    };
    v1::HeaderModifier {
        set: from.set.iter().map(header).collect(),
        add: from.add.iter().map(header).collect(),
        remove: from.remove.clone(),
    }
}

fn redirect(from: &Redirect) -> v1::Redirect {
    v1::Redirect {
        scheme: from.scheme.clone(),
        hostname: from.hostname.clone(),
        path: from.path.as_ref().map(modifier),
        port: from.port.into(),
        status: from.status.into(),
    }
}

fn modifier(from: &PathModifier) -> v1::PathModifier {
    use v1::path_modifier::Kind;
    let kind = match from {
        PathModifier::Full(path) => Kind::Full(path.clone()),
        PathModifier::Prefix(path) => Kind::Prefix(path.clone()),
    };
    v1::PathModifier { kind: Some(kind) }
}

fn mirror(from: &Mirror) -> v1::Mirror {
    v1::Mirror {
        service: Some(destination(&from.backend)),
        invalid: why(from.invalid.as_ref()),
        numerator: from.numerator,
        denominator: from.denominator,
    }
}

fn cors(from: &Cors) -> v1::Cors {
    v1::Cors {
        allow_origins: from.allow_origins.clone(),
        allow_credentials: from.allow_credentials,
        allow_methods: from.allow_methods.clone(),
        allow_headers: from.allow_headers.clone(),
        expose_headers: from.expose_headers.clone(),
        max_age_seconds: from.max_age_seconds,
    }
}

fn retry(from: &RouteRetry) -> v1::RouteRetry {
    v1::RouteRetry {
        codes: from.codes.iter().copied().map(u32::from).collect(),
        attempts: from.attempts,
        backoff_milliseconds: from.backoff_milliseconds,
    }
}

//! Routes: what selects a request, where it goes, and what changes it.
//!
//! Part of `decode`. A match that can't be read would select more than it
//! should, and a filter that can't be read would change less, so either rejects
//! the resource; `store` resolves what rules name. Expressions are compiled
//! here, once.

use std::{sync::Arc, time::Duration};

use weft_proto::v1;

use super::{
    Invalid,
    filter::{Filter, filters},
    milliseconds,
    service::{Target, target},
};
use crate::discovery::{Expression, GrpcMatch, HeaderMatch, Match, PathMatch, QueryMatch, Text};

#[derive(Debug)]
pub(crate) struct Route {
    /// "namespace/name".
    pub(crate) name: Arc<str>,
    pub(crate) created_milliseconds: i64,
    pub(crate) is_grpc: bool,
    pub(crate) rules: Vec<RouteRule>,
}

#[derive(Clone, Debug)]
pub(crate) struct RouteRule {
    pub(crate) matches: Vec<Match>,
    pub(crate) backends: Vec<Share>,
    pub(crate) filters: Vec<Filter>,
    pub(crate) request_timeout: Option<Duration>,
    pub(crate) backend_timeout: Option<Duration>,
    pub(crate) retry: Option<RouteRetry>,
}

/// One of a rule's backends.
#[derive(Clone, Debug)]
pub(crate) struct Share {
    pub(crate) weight: u32,
    /// Where to, or why not.
    pub(crate) target: Result<Target, Box<str>>,
    pub(crate) filters: Vec<Filter>,
}

/// `HTTPRouteRetry`. What is empty is the BackendPolicy's.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct RouteRetry {
    pub(crate) codes: Vec<u16>,
    pub(crate) attempts: u32,
    pub(crate) backoff: Option<Duration>,
}

pub(super) fn routes(wire: Vec<v1::Route>) -> Result<Vec<Route>, Invalid> {
    let mut routes: Vec<Route> = Vec::with_capacity(wire.len());
    for (at, wire) in wire.into_iter().enumerate() {
        let within = |invalid: Invalid| invalid.within(format_args!("routes[{at}]"));
        let route = route(wire).map_err(within)?;
        // GRPCRouteRule.matches: "Merging MUST not be done between GRPCRoutes
        // and HTTPRoutes."
        if routes
            .first()
            .is_some_and(|first| first.is_grpc != route.is_grpc)
        {
            return Err(within(Invalid::new(
                "kind",
                "another than the first route's",
            )));
        }
        routes.push(route);
    }
    Ok(routes)
}

fn route(wire: v1::Route) -> Result<Route, Invalid> {
    let is_grpc = match v1::RouteKind::try_from(wire.kind) {
        Ok(v1::RouteKind::HttpRoute) => false,
        Ok(v1::RouteKind::GrpcRoute) => true,
        Err(_) => return Err(Invalid::new("kind", "newer than this proxy")),
    };
    Ok(Route {
        name: format!("{}/{}", wire.namespace, wire.name).into(),
        created_milliseconds: wire.created_milliseconds,
        is_grpc,
        rules: each("rules", wire.rules, |wire| rule(wire, is_grpc))?,
    })
}

/// Names the one that is wrong.
pub(super) fn each<W, T>(
    field: &str,
    wire: Vec<W>,
    decode: impl Fn(W) -> Result<T, Invalid>,
) -> Result<Vec<T>, Invalid> {
    let mut all = Vec::with_capacity(wire.len());
    for (at, wire) in wire.into_iter().enumerate() {
        all.push(decode(wire).map_err(|e| e.within(format_args!("{field}[{at}]")))?);
    }
    Ok(all)
}

fn rule(wire: v1::Rule, is_grpc: bool) -> Result<RouteRule, Invalid> {
    let matches = each("matches", wire.matches, |wire| one_match(wire, is_grpc))?;
    let rule = RouteRule {
        backends: each("backends", wire.backends, share)?,
        filters: filters(wire.filters)?,
        request_timeout: milliseconds(wire.request_timeout_milliseconds),
        backend_timeout: milliseconds(wire.backend_timeout_milliseconds),
        retry: wire.retry.as_ref().map(retry).transpose()?,
        matches,
    };
    // HTTPPathModifier.replacePrefixMatch: "only compatible with a PathPrefix".
    let is_prefix = |one: &Match| matches!(one.path, PathMatch::Prefix(_)) && one.grpc.is_none();
    let mut all = rule.backends.iter().flat_map(|share| &share.filters);
    let replaces =
        rule.filters.iter().any(Filter::replaces_prefix) || all.any(Filter::replaces_prefix);
    if replaces && (is_grpc || !rule.matches.iter().all(is_prefix)) {
        let wrong = "replace a prefix, and a match of the rule is none";
        return Err(Invalid::new("filters", wrong));
    }
    Ok(rule)
}

fn one_match(wire: v1::Match, is_grpc: bool) -> Result<Match, Invalid> {
    let path = match wire.path {
        None => PathMatch::default(),
        Some(v1::PathMatch { kind: Some(kind) }) => path(kind)?,
        Some(v1::PathMatch { kind: None }) => {
            return Err(Invalid::new("path", "of a kind newer than this proxy"));
        }
    };
    let has_method = !wire.method.is_empty();
    if has_method && http::Method::from_bytes(wire.method.as_bytes()).is_err() {
        let wrong = format_args!("{:?} is no token", wire.method);
        return Err(Invalid::new("method", wrong));
    }
    let headers = each("headers", wire.headers, |wire| {
        let name = http::HeaderName::from_bytes(wire.name.as_bytes())
            .map_err(|_| Invalid::new("name", format_args!("{:?}", wire.name)))?;
        Ok(HeaderMatch {
            name: name.as_str().into(),
            value: text("value", wire.value, wire.regular_expression)?,
        })
    })?;
    let query = each("query", wire.query, |wire| {
        if wire.name.is_empty() {
            return Err(Invalid::new("name", "empty"));
        }
        Ok(QueryMatch {
            name: wire.name.into(),
            value: text("value", wire.value, wire.regular_expression)?,
        })
    })?;
    let grpc = match (is_grpc, wire.grpc) {
        (false, None) => None,
        (false, Some(_)) => return Err(Invalid::new("grpc", "of an HTTPRoute")),
        (true, wire) => Some(grpc(wire.unwrap_or_default()).map_err(|e| e.within("grpc"))?),
    };
    if is_grpc && (path != PathMatch::default() || has_method || !query.is_empty()) {
        return Err(Invalid::new("path", "or method or query, of a GRPCRoute"));
    }
    Ok(Match {
        path,
        method: has_method.then(|| wire.method.into()),
        headers,
        query,
        grpc,
    })
}

fn grpc(wire: v1::GrpcMatch) -> Result<GrpcMatch, Invalid> {
    let part = |field, value: String| {
        let is_given = !value.is_empty();
        is_given
            .then(|| text(field, value, wire.regular_expression))
            .transpose()
    };
    Ok(GrpcMatch {
        service: part("service", wire.service)?,
        method: part("method", wire.method)?,
    })
}

fn text(field: &str, value: String, is_expression: bool) -> Result<Text, Invalid> {
    Ok(if is_expression {
        Text::Expression(expression(field, &value)?)
    } else {
        Text::Exact(value.into())
    })
}

fn expression(field: &str, text: &str) -> Result<Expression, Invalid> {
    Expression::new(text).map_err(|wrong| Invalid::new(field, format_args!("{text:?}: {wrong}")))
}

fn path(kind: v1::path_match::Kind) -> Result<PathMatch, Invalid> {
    use v1::path_match::Kind;
    let rooted = |text: String| {
        let wrong = || format!("{text:?} does not begin with a slash");
        let is_rooted = text.starts_with('/');
        is_rooted
            .then_some(())
            .ok_or_else(|| Invalid::new("path", wrong()))
            .map(|()| text)
    };
    Ok(match kind {
        Kind::Exact(text) => PathMatch::Exact(rooted(text)?.into()),
        Kind::Prefix(text) => {
            let text = rooted(text)?;
            PathMatch::Prefix(text.strip_suffix('/').unwrap_or(&text).into())
        }
        Kind::RegularExpression(text) => PathMatch::Expression(expression("path", &text)?),
    })
}

fn share(wire: v1::WeightedBackend) -> Result<Share, Invalid> {
    if wire.weight > 1_000_000 {
        return Err(Invalid::new("weight", wire.weight));
    }
    Ok(Share {
        weight: wire.weight,
        target: usable(wire.service, wire.invalid)?,
        filters: filters(wire.filters)?,
    })
}

/// What is named, unless the control plane says why it can't be used.
pub(super) fn usable(
    service: Option<v1::ServiceRef>,
    invalid: String,
) -> Result<Result<Target, Box<str>>, Invalid> {
    if !invalid.is_empty() {
        return Ok(Err(invalid.into()));
    }
    let service = service.ok_or_else(|| Invalid::new("service", "missing"))?;
    let target = target(&service).map_err(|e| e.within("service"))?;
    Ok(Ok(target))
}

fn retry(wire: &v1::RouteRetry) -> Result<RouteRetry, Invalid> {
    let code = |code: &u32| {
        u16::try_from(*code)
            .ok()
            .filter(|code| (400..=599).contains(code))
            .ok_or_else(|| Invalid::new("retry.codes", code))
    };
    Ok(RouteRetry {
        codes: wire.codes.iter().map(code).collect::<Result<_, _>>()?,
        attempts: wire.attempts,
        backoff: milliseconds(wire.backoff_milliseconds),
    })
}

#[cfg(test)]
mod tests;

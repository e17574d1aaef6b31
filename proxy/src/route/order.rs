//! The order of matches, best first, over all routes of a port.
//!
//! Part of `route`; done once for each table. HTTPRouteRule.matches: exact
//! path, longest prefix, method, number of headers, number of query
//! parameters. Expressions stand where the API leaves it to implementations:
//! behind exact paths and before prefixes, the longest first, so that a
//! catch-all rule doesn't hide them. GRPCRouteRule.matches: length of the
//! service, length of the method, number of headers. Then, in both: the oldest
//! route, namespace/name, order in the route.

use std::{cmp::Reverse, sync::Arc};

use crate::{
    discovery::{
        GrpcMatch, HeaderMatch, Match, PathMatch, QueryMatch, RouteTable, Rule, Text,
        WeightedBackend,
    },
    request::path,
};

/// A route that is attached to a service port.
#[derive(Debug)]
pub(crate) struct Attached {
    /// metadata.creationTimestamp.
    pub(crate) created_milliseconds: i64,
    /// A GRPCRoute: without matches it takes gRPC requests alone.
    pub(crate) is_grpc: bool,
    /// Each rule with its matches, any of which selects it; without any, every
    /// request does.
    pub(crate) rules: Vec<(Vec<Match>, Arc<Rule>)>,
}

/// Orders matches by the precedence of the Gateway API.
pub(crate) fn table(routes: Vec<Attached>) -> RouteTable {
    let mut ranked: Vec<(Rank, Match, Arc<Rule>)> = Vec::new();
    for route in routes {
        for (mut matches, rule) in route.rules {
            if matches.is_empty() {
                matches.push(Match {
                    grpc: route.is_grpc.then(GrpcMatch::default),
                    ..Match::default()
                });
            }
            for (at, one) in matches.into_iter().enumerate() {
                let one = normalized(one);
                let rank = Rank {
                    specificity: Specificity::of(&one),
                    created_milliseconds: route.created_milliseconds,
                    route: Arc::clone(&rule.route),
                    rule: rule.index,
                    at,
                };
                ranked.push((rank, one, Arc::clone(&rule)));
            }
        }
    }
    ranked.sort_by(|(one, ..), (other, ..)| one.cmp(other));
    let entries: Vec<(Match, Arc<Rule>)> = ranked
        .into_iter()
        .map(|(_, one, rule)| (one, rule))
        .collect();
    RouteTable {
        has_path_rules: entries
            .iter()
            .any(|(one, rule)| judges_path(one) || edits_path(&rule.backends)),
        entries,
    }
}

fn judges_path(one: &Match) -> bool {
    let grpc = one.grpc.as_ref();
    one.path != PathMatch::default() || grpc.is_some_and(|grpc| *grpc != GrpcMatch::default())
}

fn edits_path(backends: &[WeightedBackend]) -> bool {
    let mut filters = backends.iter().filter_map(|share| share.filters.as_ref());
    filters.any(|filters| filters.path().is_some())
}

/// Smaller is better. The fields' order is that of the specification.
#[derive(PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Rank {
    specificity: Specificity,
    created_milliseconds: i64,
    route: Arc<str>,
    rule: u32,
    at: usize,
}

#[derive(PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Specificity {
    kind: Kind,
    /// Of the path, or of the gRPC service.
    length: Reverse<usize>,
    grpc_method_length: Reverse<usize>,
    has_method: Reverse<bool>,
    headers: Reverse<usize>,
    query: Reverse<usize>,
}

#[derive(PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Kind {
    Exact,
    Expression,
    /// Or, of a GRPCRoute, everything.
    Prefix,
}

impl Specificity {
    fn of(one: &Match) -> Self {
        let (kind, length, grpc_method_length) = match (&one.grpc, &one.path) {
            (Some(grpc), _) => Self::of_grpc(grpc),
            (None, PathMatch::Exact(whole)) => (Kind::Exact, whole.len(), 0),
            (None, PathMatch::Expression(it)) => (Kind::Expression, it.as_str().len(), 0),
            (None, PathMatch::Prefix(prefix)) => (Kind::Prefix, prefix.len(), 0),
        };
        Self {
            kind,
            length: Reverse(length),
            grpc_method_length: Reverse(grpc_method_length),
            has_method: Reverse(one.method.is_some()),
            headers: Reverse(one.headers.len()),
            query: Reverse(one.query.len()),
        }
    }

    fn of_grpc(grpc: &GrpcMatch) -> (Kind, usize, usize) {
        let parts = [&grpc.service, &grpc.method];
        let length = |part: &Option<_>| part.as_ref().map_or(0, Text::len);
        let mut given = parts.iter().filter_map(|part| part.as_ref());
        let kind = if given.clone().any(|part| part.is_expression()) {
            Kind::Expression
        } else if given.next().is_some() {
            Kind::Exact
        } else {
            Kind::Prefix
        };
        (kind, length(&grpc.service), length(&grpc.method))
    }
}

/// Paths in canonical form, so that both sides of the comparison are. One that
/// has none is left: no canonical path equals it, so it never matches. Of
/// equivalent names only the first counts (HTTPRouteMatch.headers, queryParams).
fn normalized(one: Match) -> Match {
    let path = match one.path {
        PathMatch::Exact(whole) => PathMatch::Exact(path::exact(&whole).unwrap_or(whole)),
        PathMatch::Prefix(prefix) if prefix.is_empty() => PathMatch::default(),
        PathMatch::Prefix(prefix) => PathMatch::Prefix(path::prefix(&prefix).unwrap_or(prefix)),
        expression @ PathMatch::Expression(_) => expression,
    };
    let mut headers: Vec<HeaderMatch> = Vec::with_capacity(one.headers.len());
    for mut header in one.headers {
        header.name = header.name.to_ascii_lowercase().into();
        if headers.iter().all(|kept| kept.name != header.name) {
            headers.push(header);
        }
    }
    let mut query: Vec<QueryMatch> = Vec::with_capacity(one.query.len());
    for parameter in one.query {
        if query.iter().all(|kept| kept.name != parameter.name) {
            query.push(parameter);
        }
    }
    Match {
        path,
        headers,
        query,
        ..one
    }
}

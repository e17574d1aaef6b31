//! Whether a match holds for a request.
//!
//! Part of `route`. Allocates only for an expression over a value that isn't
//! in one piece: several lines of a header, or an encoded parameter.

use crate::{
    discovery::{GrpcMatch, HeaderMatch, Match, PathMatch, QueryMatch, Text},
    request::{Request, is_grpc, path, query},
};

/// `path` is the request's, canonical where any match asks for it.
pub(super) fn holds(one: &Match, request: &impl Request, path: &[u8]) -> bool {
    // HTTPRouteMatch.method: case-sensitive.
    let is_method = |method: &str| method == request.method();
    path_holds(&one.path, path)
        && one.method.as_deref().is_none_or(is_method)
        && one.headers.iter().all(|it| header_holds(it, request))
        && one.query.iter().all(|it| query_holds(it, request))
        && one
            .grpc
            .as_ref()
            .is_none_or(|grpc| is_grpc(request) && grpc_holds(grpc, path))
}

fn path_holds(rule: &PathMatch, path: &[u8]) -> bool {
    match rule {
        PathMatch::Exact(whole) => whole.as_bytes() == path,
        // Everything, targets without a path included.
        PathMatch::Prefix(prefix) if prefix.is_empty() => true,
        PathMatch::Prefix(prefix) => path::covers(prefix, path),
        PathMatch::Expression(expression) => expression.is_match(path),
    }
}

/// Several field lines are one value, joined by ", " (RFC 9110 §5.3), to which
/// the Gateway API's HTTPHeaderMatch points: lines "a" and "b" match "a, b" alone.
fn header_holds(rule: &HeaderMatch, request: &impl Request) -> bool {
    match &rule.value {
        Text::Exact(value) => lines_are(value, request.header(&rule.name)),
        Text::Expression(expression) => {
            let mut lines = request.header(&rule.name);
            let Some(first) = lines.next() else {
                return false;
            };
            let Some(second) = lines.next() else {
                return expression.is_match(first);
            };
            let mut joined = [first, b", ", second].concat();
            for line in lines {
                joined.extend_from_slice(b", ");
                joined.extend_from_slice(line);
            }
            expression.is_match(&joined)
        }
    }
}

fn lines_are<'a>(value: &str, lines: impl Iterator<Item = &'a [u8]>) -> bool {
    let mut rest = value.as_bytes();
    let mut is_first = true;
    for line in lines {
        let separator: &[u8] = if is_first { b"" } else { b", " };
        is_first = false;
        match rest
            .strip_prefix(separator)
            .and_then(|rest| rest.strip_prefix(line))
        {
            Some(after) => rest = after,
            None => return false,
        }
    }
    !is_first && rest.is_empty()
}

fn query_holds(rule: &QueryMatch, request: &impl Request) -> bool {
    let query = request.query().unwrap_or_default();
    let Some(raw) = query::first(query, &rule.name) else {
        return false;
    };
    match &rule.value {
        Text::Exact(value) => query::decoded(raw).eq(value.bytes()),
        Text::Expression(expression) if query::is_encoded(raw) => {
            expression.is_match(&query::decoded(raw).collect::<Vec<_>>())
        }
        Text::Expression(expression) => expression.is_match(raw),
    }
}

/// gRPC over HTTP/2, "Path": "/" service "/" method. What has no two parts
/// names no method, which only a match of everything takes.
fn grpc_holds(rule: &GrpcMatch, path: &[u8]) -> bool {
    if *rule == GrpcMatch::default() {
        return true;
    }
    let Some(path) = path.strip_prefix(b"/") else {
        return false;
    };
    let mut parts = path.rsplitn(2, |byte| *byte == b'/');
    let (Some(method), Some(service)) = (parts.next(), parts.next()) else {
        return false;
    };
    let is = |rule: &Option<Text>, part| rule.as_ref().is_none_or(|text| text.holds(part));
    is(&rule.service, service) && is(&rule.method, method)
}

//! Decides which backend serves a request.
//!
//! Called by `outbound`'s plan; the choice of an endpoint comes after, in
//! `upstream::balance`. `control::decode` builds the table.
//!
//! Pure: no clock, no lock, no I/O. The order of matches is the Gateway API's
//! (HTTPRouteRule.matches): exact path, longest prefix, number of headers,
//! oldest route, namespace/name, order in the route. A request with routes and
//! no match is refused, never passed to the default (GEP-1294).

use std::{
    borrow::Cow,
    cmp::Reverse,
    sync::{Arc, atomic::Ordering},
};

use crate::{
    discovery::{Backend, HeaderMatch, Match, PathMatch, RouteTable, Rule, ServicePort},
    outcome::Reason,
    request::{Request, path},
};

/// A route that is attached to a service port.
#[derive(Debug)]
pub(crate) struct Attached {
    /// metadata.creationTimestamp.
    pub(crate) created_milliseconds: i64,
    /// Each rule with its matches, any of which selects it; without any, every
    /// request does.
    pub(crate) rules: Vec<(Vec<Match>, Arc<Rule>)>,
}

/// What `choose` found.
#[derive(Debug)]
pub(crate) struct Choice<'a> {
    pub(crate) backend: &'a Arc<Backend>,
    /// `None`: no route is attached.
    pub(crate) rule: Option<&'a Arc<Rule>>,
    /// To be forwarded instead of the request's own path: the form that was judged.
    pub(crate) path: Option<Box<[u8]>>,
}

/// Orders matches by the precedence of the Gateway API.
pub(crate) fn table(routes: Vec<Attached>) -> RouteTable {
    let mut entries: Vec<(i64, usize, Match, Arc<Rule>)> = Vec::new();
    for route in routes {
        for (mut matches, rule) in route.rules {
            if matches.is_empty() {
                matches.push(Match::default());
            }
            let numbered = matches.into_iter().enumerate();
            entries.extend(numbered.map(|(at, one)| {
                (
                    route.created_milliseconds,
                    at,
                    normalized(one),
                    Arc::clone(&rule),
                )
            }));
        }
    }
    entries.sort_by(
        |(created, at, one, rule), (other_created, other_at, other, other_rule)| {
            let key = |created: i64, at: usize, one: &Match| {
                (rank(&one.path), Reverse(one.headers.len()), created, at)
            };
            let (a, b) = (
                key(*created, *at, one),
                key(*other_created, *other_at, other),
            );
            (a.0, a.1, a.2, &rule.route, rule.index, a.3).cmp(&(
                b.0,
                b.1,
                b.2,
                &other_rule.route,
                other_rule.index,
                b.3,
            ))
        },
    );
    let entries: Vec<(Match, Arc<Rule>)> = entries
        .into_iter()
        .map(|(_, _, one, rule)| (one, rule))
        .collect();
    let has_path_rules = entries
        .iter()
        .any(|(one, _)| one.path != PathMatch::default());
    RouteTable {
        entries,
        has_path_rules,
    }
}

/// Which rule is for a request; no turn of its weights is taken.
#[derive(Debug)]
pub(crate) struct Found<'a> {
    /// `None`: no route is attached.
    pub(crate) rule: Option<&'a Arc<Rule>>,
    /// As `Choice::path`.
    pub(crate) path: Option<Box<[u8]>>,
}

/// The backend of one request. Takes a turn of the rule's weights.
pub(crate) fn choose<'a>(
    port: &'a ServicePort,
    request: &impl Request,
) -> Result<Choice<'a>, Reason> {
    let Found { rule, path } = find(port, request)?;
    let backend = match rule {
        Some(rule) => weighted(rule)?,
        None => &port.default,
    };
    Ok(Choice {
        backend,
        rule,
        path,
    })
}

/// The rule of one request.
pub(crate) fn find<'a>(port: &'a ServicePort, request: &impl Request) -> Result<Found<'a>, Reason> {
    let Some(table) = &port.routes else {
        return Ok(Found {
            rule: None,
            path: None,
        });
    };
    let judged = if table.has_path_rules {
        path::canonical(request.path()).map_err(|path::Ambiguous| Reason::AmbiguousPath)?
    } else {
        Cow::Borrowed(request.path())
    };
    let rule = matching(table, request, &judged).ok_or(Reason::NoRoute)?;
    let path = match judged {
        Cow::Borrowed(_) => None,
        Cow::Owned(form) => Some(form.into_boxed_slice()),
    };
    Ok(Found {
        rule: Some(rule),
        path,
    })
}

fn matching<'a>(
    table: &'a RouteTable,
    request: &impl Request,
    path: &[u8],
) -> Option<&'a Arc<Rule>> {
    let holds = |one: &Match| {
        path_holds(&one.path, path)
            && one
                .headers
                .iter()
                .all(|header| header_holds(header, request))
    };
    table
        .entries
        .iter()
        .find(|(one, _)| holds(one))
        .map(|(_, rule)| rule)
}

/// Exact over the weights' reduced sum, over all workers.
fn weighted(rule: &Rule) -> Result<&Arc<Backend>, Reason> {
    let turn = rule.cells.next.fetch_add(1, Ordering::Relaxed);
    let chosen = rule
        .schedule
        .at(turn)
        .and_then(|index| rule.backends.get(index));
    chosen
        .and_then(|chosen| chosen.backend.as_ref().ok())
        .ok_or(Reason::BackendInvalid)
}

fn path_holds(rule: &PathMatch, path: &[u8]) -> bool {
    match rule {
        PathMatch::Exact(whole) => whole.as_bytes() == path,
        // Everything, targets without a path included.
        PathMatch::Prefix(prefix) if prefix.is_empty() => true,
        PathMatch::Prefix(prefix) => path::covers(prefix, path),
    }
}

/// Several field lines are one value, joined by ", " (RFC 9110 §5.3), to which
/// the Gateway API's HTTPHeaderMatch points: lines "a" and "b" match "a, b" alone.
fn header_holds(rule: &HeaderMatch, request: &impl Request) -> bool {
    let mut rest = rule.value.as_bytes();
    let mut is_first = true;
    for value in request.header(&rule.name) {
        let separator: &[u8] = if is_first { b"" } else { b", " };
        is_first = false;
        match rest
            .strip_prefix(separator)
            .and_then(|rest| rest.strip_prefix(value))
        {
            Some(after) => rest = after,
            None => return false,
        }
    }
    !is_first && rest.is_empty()
}

/// Smaller is better: exact, then by length.
fn rank(path: &PathMatch) -> (bool, Reverse<usize>) {
    match path {
        PathMatch::Exact(whole) => (false, Reverse(whole.len())),
        PathMatch::Prefix(prefix) => (true, Reverse(prefix.len())),
    }
}

/// Paths in canonical form, so that both sides of the comparison are. One that
/// has none is left: no canonical path equals it, so it never matches. Of
/// equivalent header names only the first counts (HTTPRouteMatch.headers).
fn normalized(one: Match) -> Match {
    let path = match one.path {
        PathMatch::Exact(whole) => PathMatch::Exact(path::exact(&whole).unwrap_or(whole)),
        PathMatch::Prefix(prefix) if prefix.is_empty() => PathMatch::default(),
        PathMatch::Prefix(prefix) => PathMatch::Prefix(path::prefix(&prefix).unwrap_or(prefix)),
    };
    let mut headers: Vec<HeaderMatch> = Vec::with_capacity(one.headers.len());
    for header in one.headers {
        let name = header.name.to_ascii_lowercase();
        if headers.iter().all(|kept| *kept.name != *name) {
            headers.push(HeaderMatch {
                name: name.into(),
                value: header.value,
            });
        }
    }
    Match { path, headers }
}

#[cfg(test)]
mod tests;

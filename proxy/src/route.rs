//! Decides which backend serves a request.
//!
//! Called by `outbound`'s plan; the choice of an endpoint comes after, in
//! `upstream::balance`. `control` builds the table with `table`.
//!
//! Pure: no clock, no lock, no I/O; the search allocates nothing unless a path
//! or a value has to be spelled anew. A request with routes and no match is
//! refused, never passed to the default (GEP-1294).

mod matching;
mod order;

use std::{
    borrow::Cow,
    sync::{Arc, atomic::Ordering},
};

use crate::{
    discovery::{Backend, Filters, PathMatch, Rule, ServicePort, WeightedBackend},
    outcome::Reason,
    request::{Request, path},
};

pub(crate) use order::{Attached, table};

/// What `choose` found.
#[derive(Debug)]
pub(crate) struct Choice<'a> {
    pub(crate) backend: &'a Arc<Backend>,
    /// `None`: no route is attached.
    pub(crate) rule: Option<&'a Arc<Rule>>,
    /// `None`: nothing is changed.
    pub(crate) filters: Option<&'a Arc<Filters>>,
    /// To be forwarded instead of the request's own path: the form that was
    /// judged, or what a filter then made of it.
    pub(crate) path: Option<Box<[u8]>>,
}

/// Which rule is for a request; no turn of its weights is taken.
#[derive(Debug)]
pub(crate) struct Found<'a> {
    /// `None`: no route is attached.
    pub(crate) rule: Option<&'a Arc<Rule>>,
    /// The form that was judged, where it isn't the request's own.
    pub(crate) path: Option<Box<[u8]>>,
    /// How much of the path the rule's prefix match took.
    pub(crate) prefix: usize,
}

/// The backend of one request. Takes a turn of the rule's weights.
pub(crate) fn choose<'a>(
    port: &'a ServicePort,
    request: &impl Request,
) -> Result<Choice<'a>, Reason> {
    let Found { rule, path, prefix } = find(port, request)?;
    let Some(rule) = rule else {
        return Ok(Choice {
            backend: &port.default,
            rule,
            filters: None,
            path,
        });
    };
    let share = weighted(rule)?;
    let filters = share.filters.as_ref();
    let edited = filters.and_then(|filters| filters.path()).map(|edit| {
        let judged = path.as_deref().unwrap_or_else(|| request.path());
        edit.apply(judged, prefix)
    });
    Ok(Choice {
        backend: share.backend.as_ref().map_err(|_| Reason::BackendInvalid)?,
        rule: Some(rule),
        filters,
        path: edited.or(path),
    })
}

/// The rule of one request.
pub(crate) fn find<'a>(port: &'a ServicePort, request: &impl Request) -> Result<Found<'a>, Reason> {
    let Some(table) = &port.routes else {
        return Ok(Found {
            rule: None,
            path: None,
            prefix: 0,
        });
    };
    let judged = if table.has_path_rules {
        path::canonical(request.path()).map_err(|path::Ambiguous| Reason::AmbiguousPath)?
    } else {
        Cow::Borrowed(request.path())
    };
    let (matched, rule) = table
        .entries
        .iter()
        .find(|(one, _)| matching::holds(one, request, &judged))
        .ok_or(Reason::NoRoute)?;
    Ok(Found {
        rule: Some(rule),
        path: match judged {
            Cow::Borrowed(_) => None,
            Cow::Owned(form) => Some(form.into_boxed_slice()),
        },
        prefix: match &matched.path {
            PathMatch::Prefix(prefix) => prefix.len(),
            PathMatch::Exact(_) | PathMatch::Expression(_) => 0,
        },
    })
}

/// Exact over the weights' reduced sum, over all workers.
fn weighted(rule: &Rule) -> Result<&WeightedBackend, Reason> {
    let turn = rule.cells.next.fetch_add(1, Ordering::Relaxed);
    rule.schedule
        .at(turn)
        .and_then(|index| rule.backends.get(index))
        .ok_or(Reason::BackendInvalid)
}

#[cfg(test)]
mod tests;

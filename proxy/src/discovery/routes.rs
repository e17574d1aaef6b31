//! Routes of a service port: what selects a request, and where it then goes.
//!
//! Data. `control` builds it and `route` orders it and decides by it. Both
//! kinds of route are one table: a match of a GRPCRoute has `grpc`.

use std::{sync::Arc, time::Duration};

use super::{Backend, Expression, Filters, RuleCells, Schedule, Text};

/// The matches of all rules, best first: the first that holds decides.
/// Built by `route::table`, which orders them.
#[derive(Debug, Default)]
pub(crate) struct RouteTable {
    pub(crate) entries: Vec<(Match, Arc<Rule>)>,
    /// Any match asks for more of a path than "/", or any filter changes it:
    /// paths are then judged and forwarded in canonical form.
    pub(crate) has_path_rules: bool,
}

/// All of its conditions.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct Match {
    pub(crate) path: PathMatch,
    pub(crate) method: Option<Box<str>>,
    pub(crate) headers: Vec<HeaderMatch>,
    pub(crate) query: Vec<QueryMatch>,
    /// Of a GRPCRoute: gRPC requests alone.
    pub(crate) grpc: Option<GrpcMatch>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum PathMatch {
    Exact(Box<str>),
    /// By segments; without its trailing slash, so "/" is "".
    Prefix(Box<str>),
    /// Of the whole path.
    Expression(Expression),
}

impl Default for PathMatch {
    fn default() -> Self {
        Self::Prefix("".into())
    }
}

/// The name is lower-case.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct HeaderMatch {
    pub(crate) name: Box<str>,
    pub(crate) value: Text,
}

/// Of the first parameter of that name, decoded.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct QueryMatch {
    pub(crate) name: Box<str>,
    pub(crate) value: Text,
}

/// Of "/service/method"; `None` is any.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct GrpcMatch {
    pub(crate) service: Option<Text>,
    pub(crate) method: Option<Text>,
}

#[derive(Debug)]
pub(crate) struct Rule {
    /// "namespace/name" of the route, for logs and metrics.
    pub(crate) route: Arc<str>,
    /// Position in its route.
    pub(crate) index: u32,
    /// Never empty: a rule without backends gets the parent's default.
    pub(crate) backends: Vec<WeightedBackend>,
    /// Over the weights of `backends`, in their order.
    pub(crate) schedule: Schedule,
    /// `HTTPRouteTimeouts.request`.
    pub(crate) request_timeout: Option<Duration>,
    /// `HTTPRouteTimeouts.backendRequest`.
    pub(crate) backend_timeout: Option<Duration>,
    pub(crate) cells: Arc<RuleCells>,
}

impl Rule {
    /// Every backend that it may send something to, those of mirrors included.
    pub(crate) fn destinations(&self) -> impl Iterator<Item = &Arc<Backend>> {
        self.backends.iter().flat_map(|share| {
            let filters = share.filters.iter();
            let mirrors = filters.flat_map(|filters| &filters.mirrors);
            let mirrored = mirrors.filter_map(|mirror| mirror.backend.as_ref().ok());
            share.backend.as_ref().ok().into_iter().chain(mirrored)
        })
    }
}

#[derive(Debug)]
pub(crate) struct WeightedBackend {
    pub(crate) weight: u32,
    /// Or why it can't be used: its share is answered `backend-invalid`.
    pub(crate) backend: Result<Arc<Backend>, Box<str>>,
    /// The rule's, then its own. `None`: requests pass as they are.
    pub(crate) filters: Option<Arc<Filters>>,
}

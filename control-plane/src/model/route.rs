//! HTTPRoute and GRPCRoute with parents of kind Service, as sources say them.
//!
//! Sources make them from manifests and have checked every value; `index`
//! attaches them to services. What they refer to may not exist. What a source
//! could not take of a route stays in it as `Refused`, so that it is answered
//! for, and closes rather than opens.

use super::{BackendName, Key, Kind, Name, Reason, Reference};

/// gateway.networking.k8s.io/v1.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Route {
    pub kind: RouteKind,
    pub name: Name,
    /// `metadata.uid`; empty where the source knows none.
    pub uid: String,
    pub created_milliseconds: i64,
    /// `metadata.generation`; 0 where the source knows none.
    pub generation: i64,
    pub parents: Vec<Parent>,
    pub rules: Vec<Rule>,
    /// Why nothing of it could be read. It then has no rules: attached, it
    /// matches nothing.
    pub refused: Option<Refused>,
}

impl Route {
    pub fn key(&self) -> Key {
        Key {
            kind: self.kind.into(),
            name: self.name.clone(),
        }
    }

    /// Everything that it sends requests to, mirrors included.
    pub fn destinations(&self) -> impl Iterator<Item = Destination<'_>> {
        self.rules.iter().flat_map(Rule::destinations)
    }

    /// What of it was refused, from the whole to its parts.
    pub fn refusals(&self) -> impl Iterator<Item = &Refused> {
        let parents = self.parents.iter().filter_map(|it| it.refused.as_ref());
        let rules = self.rules.iter().filter_map(|it| it.refused.as_ref());
        self.refused.iter().chain(parents).chain(rules)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum RouteKind {
    #[default]
    Http,
    Grpc,
}

impl From<RouteKind> for Kind {
    fn from(kind: RouteKind) -> Self {
        match kind {
            RouteKind::Http => Self::HttpRoute,
            RouteKind::Grpc => Self::GrpcRoute,
        }
    }
}

/// Why a source could not take an object or a part of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refused {
    pub reason: Reason,
    /// JSON path in the object.
    pub field: String,
    pub message: String,
    pub remedy: String,
}

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Parent {
    /// Where it stands in `spec.parentRefs`.
    pub position: usize,
    pub service: Name,
    /// `None`: every port.
    pub port: Option<u16>,
    /// As it is written: status repeats it to the letter.
    pub reference: Reference,
    /// Why it attaches to nothing, whatever there is.
    pub refused: Option<Refused>,
}

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Rule {
    pub name: String,
    /// Any of them.
    pub matches: Vec<Match>,
    /// In the order of the route.
    pub filters: Vec<Filter>,
    /// Empty: the parent's own endpoints.
    pub backends: Vec<BackendRef>,
    /// 0 is none.
    pub request_timeout_milliseconds: u64,
    pub backend_timeout_milliseconds: u64,
    pub retry: Option<RouteRetry>,
    /// It can't be carried out: what it matches is an error. Without matches
    /// it is not even known what that is.
    pub refused: Option<Refused>,
}

impl Rule {
    fn destinations(&self) -> impl Iterator<Item = Destination<'_>> {
        let backends = self.backends.iter().map(|it| Destination {
            backend: &it.backend,
            invalid: it.invalid.as_ref(),
        });
        let of_backends = self.backends.iter().flat_map(|it| &it.filters);
        let mirrors = self.filters.iter().chain(of_backends);
        let mirrors = mirrors.filter_map(|it| match it {
            Filter::Mirror(mirror) => Some(Destination {
                backend: &mirror.backend,
                invalid: mirror.invalid.as_ref(),
            }),
            _ => None,
        });
        backends.chain(mirrors)
    }
}

/// Where a rule sends requests, or their copies.
#[derive(Clone, Copy, Debug)]
pub struct Destination<'a> {
    pub backend: &'a BackendName,
    pub invalid: Option<&'a Broken>,
}

/// All of its conditions. Of a GRPCRoute: `grpc` and headers.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Match {
    pub path: PathMatch,
    /// Names in lower case.
    pub headers: Vec<(String, TextMatch)>,
    pub query: Vec<(String, TextMatch)>,
    /// Empty: any.
    pub method: String,
    pub grpc: GrpcMatch,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PathMatch {
    Exact(String),
    Prefix(String),
    Expression(String),
}

impl Default for PathMatch {
    fn default() -> Self {
        Self::Prefix("/".to_owned())
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TextMatch {
    Exact(String),
    /// For the whole text.
    Expression(String),
}

/// An empty part matches any.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct GrpcMatch {
    pub service: String,
    pub method: String,
    /// Both parts are expressions.
    pub expression: bool,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Filter {
    RequestHeaders(HeaderModifier),
    ResponseHeaders(HeaderModifier),
    Redirect(Redirect),
    Rewrite(Rewrite),
    Mirror(Mirror),
    Cors(Cors),
}

/// Set, then add, then remove. Names in lower case.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct HeaderModifier {
    pub set: Vec<(String, String)>,
    pub add: Vec<(String, String)>,
    pub remove: Vec<String>,
}

/// An empty part, or port 0, is the request's own.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Redirect {
    pub scheme: String,
    pub hostname: String,
    pub path: Option<PathModifier>,
    pub port: u16,
    pub status: u16,
}

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Rewrite {
    pub hostname: String,
    pub path: Option<PathModifier>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PathModifier {
    Full(String),
    /// Instead of the prefix that matched.
    Prefix(String),
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mirror {
    pub backend: BackendName,
    pub invalid: Option<Broken>,
    pub numerator: u32,
    /// At least 1.
    pub denominator: u32,
}

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Cors {
    pub allow_origins: Vec<String>,
    pub allow_credentials: bool,
    pub allow_methods: Vec<String>,
    pub allow_headers: Vec<String>,
    pub expose_headers: Vec<String>,
    pub max_age_seconds: u32,
}

/// HTTPRouteRetry of the experimental channel.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RouteRetry {
    pub codes: Vec<u16>,
    /// Beyond the first try.
    pub attempts: u32,
    /// 0: as the BackendPolicy says.
    pub backoff_milliseconds: u64,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BackendRef {
    pub backend: BackendName,
    pub weight: u32,
    /// By itself (a kind that is no Service), as a source says it, or because
    /// it refers to nothing, which the index adds.
    pub invalid: Option<Broken>,
    /// After the rule's own.
    pub filters: Vec<Filter>,
}

/// Why a destination can't be used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Broken {
    pub reason: Reason,
    pub message: String,
}

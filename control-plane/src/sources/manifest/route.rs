//! What HTTPRoute and GRPCRoute have in common: parents, backends, and what
//! happens to what can't be taken.
//!
//! A cluster holds what somebody stored, so there a part that can't be carried
//! is refused by itself and stays in the route as such (`Refused`): it closes,
//! and its author is answered. A file is refused whole, as an API server with
//! our webhook would: its last good state keeps serving (`whole`).
//!
//! The `gateway-api` crate has a copy of each shared type per place where it
//! stands; `same` makes them one. Pure.

use gateway_api::apis::experimental::httproutes::{
    HttpRouteParentRefs, HttpRouteRulesBackendRefs, HttpRouteRulesFilters,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::{Refusal, check, grpc_route, http_route, typed};
use crate::model::{
    BackendName, BackendRef, Broken, Match, Name, Parent, Reason, Reference, Refused, Route,
    RouteKind, Rule,
};

mod cors;
pub(super) mod filters;
pub(super) mod matches;

/// A route that an API server holds, whole as JSON. Never fails: one that can't
/// be read is refused and keeps its parents. `None`: it has no name.
pub(crate) fn of_cluster(kind: RouteKind, object: &Value) -> Option<Route> {
    let read = match kind {
        RouteKind::Http => typed::read_stored(object).and_then(|it| http_route::convert(&it)),
        RouteKind::Grpc => typed::read_stored(object).and_then(|it| grpc_route::convert(&it)),
    };
    match read {
        Ok(route) => Some(route),
        Err(refusal) => refused(kind, object, refusal),
    }
}

fn refused(kind: RouteKind, object: &Value, refusal: Refusal) -> Option<Route> {
    let name = check::named(object)?;
    let metadata: ObjectMeta = parsed(object.get("metadata")?).unwrap_or_default();
    let refs = object.pointer("/spec/parentRefs").and_then(Value::as_array);
    let refs: Vec<HttpRouteParentRefs> = refs
        .into_iter()
        .flatten()
        .map(|it| parsed(it).unwrap_or_default())
        .collect();
    Some(Route {
        refused: Some(refusal.into()),
        ..begun(kind, name, &metadata, &refs)
    })
}

/// Without rules yet.
pub(super) fn begun(
    kind: RouteKind,
    name: Name,
    metadata: &ObjectMeta,
    refs: &[HttpRouteParentRefs],
) -> Route {
    Route {
        kind,
        uid: check::uid(metadata),
        created_milliseconds: check::created(metadata),
        generation: check::generation(metadata),
        parents: parents(&name.namespace, refs),
        rules: Vec::new(),
        refused: None,
        name,
    }
}

/// What happens to what a rule matches, in this namespace and after these rules.
type Carried<R> = fn(&str, &R, Rule, &[Rule]) -> Result<Rule, Refusal>;

/// The rules of a route that has a Service as parent, each refused by itself:
/// one whose matches can't be read matches nothing, one that can't be carried
/// out answers what it matches with an error.
pub(super) fn rules<R, M>(
    route: &mut Route,
    rules: &[R],
    matches: fn(&R) -> Option<&[M]>,
    matched: fn(&M) -> Result<Match, Refusal>,
    carried: Carried<R>,
) {
    if route.parents.is_empty() {
        return;
    }
    for (index, it) in rules.iter().enumerate() {
        let field = format!("spec.rules[{index}]");
        let rule = match all_of(matches(it).unwrap_or_default(), matched) {
            Err(refusal) => refused_rule(None, refusal.below(&field)),
            Ok(matches) => {
                let known = Rule {
                    matches,
                    ..Rule::default()
                };
                let namespace = &route.name.namespace;
                carried(namespace, it, known.clone(), &route.rules)
                    .unwrap_or_else(|refusal| refused_rule(Some(known), refusal.below(&field)))
            }
        };
        route.rules.push(rule);
    }
}

/// Without any, everything matches.
fn all_of<M>(all: &[M], matched: fn(&M) -> Result<Match, Refusal>) -> Result<Vec<Match>, Refusal> {
    let mut matches = Vec::new();
    for (index, one) in all.iter().enumerate() {
        let field = format!("matches[{index}]");
        matches.push(matched(one).map_err(|refusal| refusal.below(&field))?);
    }
    if matches.is_empty() {
        matches.push(Match::default());
    }
    Ok(matches)
}

fn parsed<T: DeserializeOwned>(value: &Value) -> Option<T> {
    T::deserialize(value).ok()
}

/// Nothing of it may be refused.
///
/// # Errors
/// The first refusal.
pub(super) fn whole(route: Route) -> Result<Route, Refusal> {
    let first = route.refusals().next().cloned();
    first.map_or(Ok(route), |refused| Err(refused.into()))
}

/// A type of one place of the API as the type of another.
pub(super) fn same<T: DeserializeOwned>(it: &impl Serialize) -> Result<T, Refusal> {
    let value = serde_json::to_value(it).and_then(serde_json::from_value);
    value.map_err(|error| Refusal::new("", error.to_string(), "correct the field"))
}

/// Those that are Services. Others are somebody else's.
fn parents(namespace: &str, refs: &[HttpRouteParentRefs]) -> Vec<Parent> {
    let ours = |it: &HttpRouteParentRefs| {
        // Without a group it is the Gateway's: a slip of the pen beside this
        // kind, which is told rather than left in silence.
        let group = it.group.as_deref().unwrap_or(GROUP);
        it.kind.as_deref() == Some("Service") && matches!(group, "" | "core" | GROUP)
    };
    let refs = refs.iter().enumerate().filter(|(_, it)| ours(it));
    refs.map(|(position, it)| parent(namespace, position, it))
        .collect()
}

const GROUP: &str = "gateway.networking.k8s.io";

fn parent(namespace: &str, position: usize, it: &HttpRouteParentRefs) -> Parent {
    let refused = checked_parent(namespace, it).err().map(|refusal| {
        let field = format!("spec.parentRefs[{position}]");
        refusal.below(&field).into()
    });
    Parent {
        position,
        service: Name::new(it.namespace.as_deref().unwrap_or(namespace), &it.name),
        port: it.port.and_then(|port| u16::try_from(port).ok()),
        reference: Reference {
            group: it.group.clone(),
            kind: it.kind.clone(),
            namespace: it.namespace.clone(),
            name: it.name.clone(),
            section: it.section_name.clone(),
            port: it.port,
        },
        refused,
    }
}

fn checked_parent(namespace: &str, it: &HttpRouteParentRefs) -> Result<(), Refusal> {
    let checked = || {
        let group = it.group.as_deref().unwrap_or(GROUP);
        if !group.is_empty() {
            let is = check::quoted(group);
            return Err(Refusal::value("group", is, r#""" for a Service"#));
        }
        if it.section_name.is_some() {
            let message = "has no meaning for a Service";
            let remedy = "name the Service's port by its number in port";
            return Err(Refusal::new("sectionName", message, remedy));
        }
        check::label("namespace", it.namespace.as_deref().unwrap_or(namespace))?;
        check::label("name", &it.name)?;
        if let Some(port) = it.port {
            check::port("port", port.into())?;
        }
        Ok(())
    };
    checked().map_err(|refusal| refusal.because(Reason::NoMatchingParent))
}

/// A rule whose matches are known but that can't be carried out: what it
/// matches is an error (HTTPRouteFilter: a filter MUST NOT be skipped). Without
/// matches it takes no request; others may.
fn refused_rule(matches: Option<Rule>, refusal: Refusal) -> Rule {
    Rule {
        refused: Some(refusal.into()),
        ..matches.unwrap_or_default()
    }
}

/// SectionName, which a rule's name is; of two with one name, the first has it.
pub(super) fn rule_name(name: Option<&String>, earlier: &[Rule]) -> Result<String, Refusal> {
    let Some(name) = name else {
        return Ok(String::new());
    };
    check::subdomain("name", name)?;
    match earlier.iter().any(|it| it.name == *name) {
        true => {
            let message = format!("is {name} a second time");
            Err(Refusal::new("name", message, "give each rule its own"))
        }
        false => Ok(name.clone()),
    }
}

/// `one_prefix`: the rule has exactly one match, by prefix.
pub(super) fn backends(
    namespace: &str,
    refs: &[HttpRouteRulesBackendRefs],
    one_prefix: bool,
) -> Result<Vec<BackendRef>, Refusal> {
    let mut backends = Vec::new();
    for (index, it) in refs.iter().enumerate() {
        let field = format!("backendRefs[{index}]");
        let backend = convert_backend(namespace, it, one_prefix);
        backends.push(backend.map_err(|refusal| refusal.below(&field))?);
    }
    Ok(backends)
}

fn convert_backend(
    namespace: &str,
    it: &HttpRouteRulesBackendRefs,
    one_prefix: bool,
) -> Result<BackendRef, Refusal> {
    let weight = it.weight.map_or(Ok(1), |weight| {
        check::within("weight", weight.into(), 0, 1_000_000)
    })?;
    let filters: Vec<HttpRouteRulesFilters> = same(&it.filters.as_deref().unwrap_or_default())?;
    let (backend, invalid) = destination(
        namespace,
        &Target {
            group: it.group.as_deref(),
            kind: it.kind.as_deref(),
            namespace: it.namespace.as_deref(),
            name: &it.name,
            port: it.port,
        },
    )?;
    Ok(BackendRef {
        backend,
        weight,
        invalid,
        filters: filters::convert(namespace, &filters, one_prefix)?,
    })
}

/// BackendObjectReference, which stands in backends and in mirrors.
pub(super) struct Target<'a> {
    pub(super) group: Option<&'a str>,
    pub(super) kind: Option<&'a str>,
    pub(super) namespace: Option<&'a str>,
    pub(super) name: &'a str,
    pub(super) port: Option<i32>,
}

pub(super) fn destination(
    namespace: &str,
    it: &Target<'_>,
) -> Result<(BackendName, Option<Broken>), Refusal> {
    let namespace = it.namespace.unwrap_or(namespace);
    check::label("namespace", namespace)?;
    let port = it
        .port
        .map(|port| check::port("port", port.into()))
        .transpose()?;
    let (group, kind) = (it.group.unwrap_or_default(), it.kind.unwrap_or("Service"));
    // Not the object's end: the share of requests is answered 500 (HTTPBackendRef).
    let message = match (group, kind, port) {
        ("", "Service", Some(_)) => None,
        ("", "Service", None) => Some("a Service as backend needs a port".to_owned()),
        _ => Some(format!("backends of kind {kind} are not known")),
    };
    let backend = BackendName {
        service: Name::new(namespace, it.name),
        port: port.unwrap_or_default(),
    };
    let broken = message.map(|message| Broken {
        reason: Reason::InvalidKind,
        message,
    });
    Ok((backend, broken))
}

impl From<Refusal> for Refused {
    fn from(it: Refusal) -> Self {
        Self {
            reason: it.reason,
            field: it.field,
            message: it.message,
            remedy: it.remedy,
        }
    }
}

impl From<Refused> for Refusal {
    fn from(it: Refused) -> Self {
        Self {
            reason: it.reason,
            field: it.field,
            message: it.message,
            remedy: it.remedy,
        }
    }
}

//! HTTPRoute (gateway.networking.k8s.io/v1) with parents of kind Service.
//!
//! Routes of gateways pass through here too: their parents are left out, and a
//! route without any Service as parent routes nothing in the mesh. What routes
//! by something that proxies don't carry yet is refused whole: half of a route
//! would be another route.

use gateway_api::apis::standard::httproutes::{
    HttpRoute, HttpRouteParentRefs, HttpRouteRules, HttpRouteRulesBackendRefs,
    HttpRouteRulesMatches, HttpRouteRulesMatchesHeadersType, HttpRouteRulesMatchesPathType,
    HttpRouteRulesTimeouts,
};

use super::{Refusal, check};
use crate::model::{self, BackendName, BackendRef, Match, Name, Parent, PathMatch, Rule};

/// # Errors
/// What the route says that can't be, or that isn't carried.
pub(crate) fn convert(it: &HttpRoute) -> Result<model::HttpRoute, Refusal> {
    let name = check::name(&it.metadata)?;
    // `hostnames` mean nothing in a mesh (GEP-1294): the address has decided.
    let mut parents = Vec::new();
    for (index, parent) in it.spec.parent_refs.iter().flatten().enumerate() {
        let field = format!("spec.parentRefs[{index}]");
        let parent =
            convert_parent(&name.namespace, parent).map_err(|refusal| refusal.below(&field))?;
        parents.extend(parent);
    }
    let mut rules = Vec::new();
    if !parents.is_empty() {
        for (index, rule) in it.spec.rules.iter().flatten().enumerate() {
            let field = format!("spec.rules[{index}]");
            let rule =
                convert_rule(&name.namespace, rule).map_err(|refusal| refusal.below(&field))?;
            rules.push(rule);
        }
        if it.spec.rules.is_none() {
            // The CRD's default: everything, to the parent's own endpoints.
            rules.push(Rule {
                matches: vec![Match::default()],
                ..Rule::default()
            });
        }
    }
    Ok(model::HttpRoute {
        created_milliseconds: check::created(&it.metadata),
        name,
        parents,
        rules,
    })
}

fn convert_parent(namespace: &str, it: &HttpRouteParentRefs) -> Result<Option<Parent>, Refusal> {
    let group = it.group.as_deref().unwrap_or("gateway.networking.k8s.io");
    let kind = it.kind.as_deref().unwrap_or("Gateway");
    if kind != "Service" {
        return Ok(None);
    }
    if !group.is_empty() {
        return Err(Refusal::value(
            "group",
            check::quoted(group),
            r#""" for a Service"#,
        ));
    }
    if it.section_name.is_some() {
        let remedy = "name the Service's port by its number in port";
        return Err(Refusal::new(
            "sectionName",
            "has no meaning for a Service",
            remedy,
        ));
    }
    let namespace = it.namespace.as_deref().unwrap_or(namespace);
    check::label("namespace", namespace)?;
    check::label("name", &it.name)?;
    let port = it
        .port
        .map(|port| check::port("port", port.into()))
        .transpose()?;
    Ok(Some(Parent {
        service: Name::new(namespace, &it.name),
        port,
    }))
}

fn convert_rule(namespace: &str, it: &HttpRouteRules) -> Result<Rule, Refusal> {
    if it
        .filters
        .as_ref()
        .is_some_and(|filters| !filters.is_empty())
    {
        return Err(Refusal::unsupported("filters"));
    }
    let mut matches = Vec::new();
    for (index, one) in it.matches.iter().flatten().enumerate() {
        let field = format!("matches[{index}]");
        matches.push(convert_match(one).map_err(|refusal| refusal.below(&field))?);
    }
    if matches.is_empty() {
        matches.push(Match::default());
    }
    let mut backends = Vec::new();
    for (index, backend) in it.backend_refs.iter().flatten().enumerate() {
        let field = format!("backendRefs[{index}]");
        let backend =
            convert_backend(namespace, backend).map_err(|refusal| refusal.below(&field))?;
        backends.push(backend);
    }
    let (request, backend) = match &it.timeouts {
        Some(timeouts) => {
            convert_timeouts(timeouts).map_err(|refusal| refusal.below("timeouts"))?
        }
        None => (0, 0),
    };
    Ok(Rule {
        name: it.name.clone().unwrap_or_default(),
        matches,
        backends,
        request_timeout_milliseconds: request,
        backend_timeout_milliseconds: backend,
    })
}

fn convert_timeouts(it: &HttpRouteRulesTimeouts) -> Result<(u64, u64), Refusal> {
    let of = |field, text: &Option<String>| match text {
        Some(text) => check::duration(field, text, 24),
        None => Ok(0),
    };
    let (request, backend) = (
        of("request", &it.request)?,
        of("backendRequest", &it.backend_request)?,
    );
    match request > 0 && backend > request {
        true => Err(Refusal::new(
            "backendRequest",
            "is longer than request, which holds all of its tries",
            "make it at most as long",
        )),
        false => Ok((request, backend)),
    }
}

fn convert_match(it: &HttpRouteRulesMatches) -> Result<Match, Refusal> {
    if it.method.is_some() {
        return Err(Refusal::unsupported("method"));
    }
    if it
        .query_params
        .as_ref()
        .is_some_and(|params| !params.is_empty())
    {
        return Err(Refusal::unsupported("queryParams"));
    }
    let mut path = PathMatch::default();
    if let Some(one) = &it.path {
        let value = one.value.clone().unwrap_or_else(|| "/".to_owned());
        check::path("path.value", &value)?;
        path = match one.r#type {
            Some(HttpRouteRulesMatchesPathType::Exact) => PathMatch::Exact(value),
            Some(HttpRouteRulesMatchesPathType::RegularExpression) => {
                return Err(Refusal::unsupported("path.type"));
            }
            Some(HttpRouteRulesMatchesPathType::PathPrefix) | None => PathMatch::Prefix(value),
        };
    }
    let mut headers: Vec<(String, String)> = Vec::new();
    for (index, header) in it.headers.iter().flatten().enumerate() {
        let field = format!("headers[{index}]");
        if matches!(
            header.r#type,
            Some(HttpRouteRulesMatchesHeadersType::RegularExpression)
        ) {
            return Err(Refusal::unsupported(&format!("{field}.type")));
        }
        let name = header.name.to_ascii_lowercase();
        if !check::is_token(&name) {
            let is = check::quoted(&header.name);
            return Err(Refusal::value(
                &format!("{field}.name"),
                is,
                "a header's name",
            ));
        }
        if headers.iter().any(|(it, _)| *it == name) {
            let message = format!("is {name} a second time, which the API ignores");
            return Err(Refusal::new(
                &format!("{field}.name"),
                message,
                "match each header once",
            ));
        }
        let is_text = |it: u8| it == b'\t' || (0x20..0x7f).contains(&it) || it >= 0x80;
        if header.value.is_empty()
            || !header.value.bytes().all(is_text)
            || header.value.trim() != header.value
        {
            let is = check::quoted(&header.value);
            return Err(Refusal::value(
                &format!("{field}.value"),
                is,
                "a header's value",
            ));
        }
        headers.push((name, header.value.clone()));
    }
    Ok(Match { path, headers })
}

fn convert_backend(namespace: &str, it: &HttpRouteRulesBackendRefs) -> Result<BackendRef, Refusal> {
    if it
        .filters
        .as_ref()
        .is_some_and(|filters| !filters.is_empty())
    {
        return Err(Refusal::unsupported("filters"));
    }
    let namespace = it.namespace.as_deref().unwrap_or(namespace);
    check::label("namespace", namespace)?;
    let weight = it.weight.map_or(Ok(1), |weight| {
        check::within("weight", weight.into(), 0, 1_000_000)
    })?;
    let port = it
        .port
        .map(|port| check::port("port", port.into()))
        .transpose()?;
    let group = it.group.as_deref().unwrap_or_default();
    let kind = it.kind.as_deref().unwrap_or("Service");
    // Not the object's end: the backend's share is answered 500 (HTTPBackendRef).
    let invalid = match (group, kind, port) {
        ("", "Service", Some(_)) => String::new(),
        ("", "Service", None) => "a Service as backend needs a port".to_owned(),
        _ => format!("backends of kind {kind} are not known"),
    };
    Ok(BackendRef {
        backend: BackendName {
            service: Name::new(namespace, &it.name),
            port: port.unwrap_or_default(),
        },
        weight,
        invalid,
    })
}

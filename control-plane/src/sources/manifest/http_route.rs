//! HTTPRoute (gateway.networking.k8s.io/v1) with parents of kind Service.
//!
//! Read by the types of the experimental channel, of which the standard one is
//! a part. Routes of gateways pass through here too: their parents are left
//! out, and a route without any Service as parent routes nothing in the mesh.
//! What a rule says that can't be carried refuses that rule (`route`).
//!
//! Pure.

use gateway_api::apis::experimental::httproutes::{
    HttpRoute, HttpRouteRules, HttpRouteRulesBackendRefs, HttpRouteRulesMatches,
    HttpRouteRulesMatchesHeadersType, HttpRouteRulesMatchesPath, HttpRouteRulesMatchesPathType,
    HttpRouteRulesMatchesQueryParams, HttpRouteRulesMatchesQueryParamsType, HttpRouteRulesRetry,
    HttpRouteRulesTimeouts,
};

use super::{
    Refusal, check,
    route::{self, filters, matches},
};
use crate::model::{
    Filter, Match, PathMatch, Reason, Route, RouteKind, RouteRetry, Rule, TextMatch,
};

/// # Errors
/// That it has no name.
pub(crate) fn convert(it: &HttpRoute) -> Result<Route, Refusal> {
    let name = check::name(&it.metadata)?;
    // `hostnames` mean nothing in a mesh (GEP-1294): the address has decided.
    let refs = it.spec.parent_refs.as_deref().unwrap_or_default();
    let mut route = route::begun(RouteKind::Http, name, &it.metadata, refs);
    let rules = it.spec.rules.as_deref().unwrap_or_default();
    route::rules(
        &mut route,
        rules,
        |it| it.matches.as_deref(),
        convert_match,
        carried,
    );
    if it.spec.rules.is_none() && !route.parents.is_empty() {
        // The CRD's default: everything, to the parent's own endpoints.
        route.rules.push(Rule {
            matches: vec![Match::default()],
            ..Rule::default()
        });
    }
    Ok(route)
}

/// What happens to what matches.
fn carried(
    namespace: &str,
    it: &HttpRouteRules,
    known: Rule,
    earlier: &[Rule],
) -> Result<Rule, Refusal> {
    if it.session_persistence.is_some() {
        return Err(Refusal::unsupported("sessionPersistence"));
    }
    let one_prefix = matches!(
        known.matches.as_slice(),
        [Match {
            path: PathMatch::Prefix(_),
            ..
        }]
    );
    let refs: &[HttpRouteRulesBackendRefs] = it.backend_refs.as_deref().unwrap_or_default();
    let filters = it.filters.as_deref().unwrap_or_default();
    let filters = filters::convert(namespace, filters, one_prefix)?;
    if !refs.is_empty() && filters.iter().any(|it| matches!(it, Filter::Redirect(_))) {
        let message = "stand beside RequestRedirect, which asks none";
        let refusal = Refusal::new("backendRefs", message, "remove one of the two");
        return Err(refusal.because(Reason::IncompatibleFilters));
    }
    let (request, backend) = it
        .timeouts
        .as_ref()
        .map_or(Ok((0, 0)), convert_timeouts)
        .map_err(|refusal| refusal.below("timeouts"))?;
    let retry = it.retry.as_ref().map(convert_retry).transpose();
    Ok(Rule {
        name: route::rule_name(it.name.as_ref(), earlier)?,
        filters,
        backends: route::backends(namespace, refs, one_prefix)?,
        request_timeout_milliseconds: request,
        backend_timeout_milliseconds: backend,
        retry: retry.map_err(|refusal| refusal.below("retry"))?,
        ..known
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

/// Where nobody says how often (GEP-1731 leaves it open).
const ATTEMPTS: i64 = 1;

fn convert_retry(it: &HttpRouteRulesRetry) -> Result<RouteRetry, Refusal> {
    let mut codes = Vec::new();
    for (index, code) in it.codes.iter().flatten().enumerate() {
        let code = check::within(&format!("codes[{index}]"), *code, 400, 599)?;
        codes.push(u16::try_from(code).unwrap_or(u16::MAX));
    }
    let backoff = it.backoff.as_deref();
    Ok(RouteRetry {
        codes,
        attempts: check::within("attempts", it.attempts.unwrap_or(ATTEMPTS), 1, 10)?,
        backoff_milliseconds: backoff.map_or(Ok(0), |text| check::duration("backoff", text, 1))?,
    })
}

fn convert_match(it: &HttpRouteRulesMatches) -> Result<Match, Refusal> {
    let headers = it.headers.iter().flatten().map(|it| matches::Header {
        name: &it.name,
        value: &it.value,
        expression: matches!(
            it.r#type,
            Some(HttpRouteRulesMatchesHeadersType::RegularExpression)
        ),
    });
    // The names of an enum's values are those of the methods.
    let method = it.method.as_ref().map(route::same).transpose()?;
    Ok(Match {
        path: it
            .path
            .as_ref()
            .map(convert_path)
            .transpose()?
            .unwrap_or_default(),
        headers: matches::headers(headers)?,
        query: convert_query(it.query_params.as_deref().unwrap_or_default())?,
        method: method.unwrap_or_default(),
        ..Match::default()
    })
}

fn convert_path(it: &HttpRouteRulesMatchesPath) -> Result<PathMatch, Refusal> {
    let value = it.value.clone().unwrap_or_else(|| "/".to_owned());
    if let Some(HttpRouteRulesMatchesPathType::RegularExpression) = it.r#type {
        matches::expression("path.value", &value)?;
        return Ok(PathMatch::Expression(value));
    }
    check::path("path.value", &value)?;
    Ok(match it.r#type {
        Some(HttpRouteRulesMatchesPathType::Exact) => PathMatch::Exact(value),
        _ => PathMatch::Prefix(value),
    })
}

fn convert_query(
    params: &[HttpRouteRulesMatchesQueryParams],
) -> Result<Vec<(String, TextMatch)>, Refusal> {
    let mut query: Vec<(String, TextMatch)> = Vec::new();
    for (index, it) in params.iter().enumerate() {
        let at = |part: &str| format!("queryParams[{index}].{part}");
        if !check::is_token(&it.name) {
            let is = check::quoted(&it.name);
            return Err(Refusal::value(&at("name"), is, "a parameter's name"));
        }
        if query.iter().any(|(name, _)| *name == it.name) {
            let message = format!("is {} a second time, which the API ignores", it.name);
            return Err(Refusal::new(
                &at("name"),
                message,
                "match each parameter once",
            ));
        }
        let value = match it.r#type {
            Some(HttpRouteRulesMatchesQueryParamsType::RegularExpression) => {
                matches::expression(&at("value"), &it.value)?;
                TextMatch::Expression(it.value.clone())
            }
            _ if it.value.is_empty() => {
                return Err(Refusal::value(&at("value"), "missing", "a value"));
            }
            _ => TextMatch::Exact(it.value.clone()),
        };
        query.push((it.name.clone(), value));
    }
    Ok(query)
}

//! GRPCRoute (gateway.networking.k8s.io/v1) with parents of kind Service.
//!
//! As `http_route`, with services and methods in the place of paths. Of the
//! filters it has those that change headers, and mirrors.
//!
//! Pure.

use gateway_api::apis::experimental::{
    grpcroutes::{
        GrpcRoute, GrpcRouteRules, GrpcRouteRulesMatches, GrpcRouteRulesMatchesHeadersType,
        GrpcRouteRulesMatchesMethod, GrpcRouteRulesMatchesMethodType,
    },
    httproutes::{HttpRouteParentRefs, HttpRouteRulesBackendRefs, HttpRouteRulesFilters},
};

use super::{
    Refusal, check,
    route::{self, filters, matches},
};
use crate::model::{GrpcMatch, Match, Route, RouteKind, Rule};

/// # Errors
/// That it has no name.
pub(crate) fn convert(it: &GrpcRoute) -> Result<Route, Refusal> {
    let name = check::name(&it.metadata)?;
    let refs = it.spec.parent_refs.as_deref().unwrap_or_default();
    let refs: Vec<HttpRouteParentRefs> = route::same(&refs)?;
    let mut route = route::begun(RouteKind::Grpc, name, &it.metadata, &refs);
    let rules = it.spec.rules.as_deref().unwrap_or_default();
    route::rules(
        &mut route,
        rules,
        |it| it.matches.as_deref(),
        convert_match,
        carried,
    );
    Ok(route)
}

/// What happens to what matches.
fn carried(
    namespace: &str,
    it: &GrpcRouteRules,
    known: Rule,
    earlier: &[Rule],
) -> Result<Rule, Refusal> {
    if it.session_persistence.is_some() {
        return Err(Refusal::unsupported("sessionPersistence"));
    }
    let filters: Vec<HttpRouteRulesFilters> =
        route::same(&it.filters.as_deref().unwrap_or_default())?;
    let refs: Vec<HttpRouteRulesBackendRefs> =
        route::same(&it.backend_refs.as_deref().unwrap_or_default())?;
    Ok(Rule {
        name: route::rule_name(it.name.as_ref(), earlier)?,
        filters: filters::convert(namespace, &filters, false)?,
        backends: route::backends(namespace, &refs, false)?,
        ..known
    })
}

fn convert_match(it: &GrpcRouteRulesMatches) -> Result<Match, Refusal> {
    let headers = it.headers.iter().flatten().map(|it| matches::Header {
        name: &it.name,
        value: &it.value,
        expression: matches!(
            it.r#type,
            Some(GrpcRouteRulesMatchesHeadersType::RegularExpression)
        ),
    });
    let method = it.method.as_ref().map(convert_method).transpose();
    Ok(Match {
        grpc: method
            .map_err(|refusal| refusal.below("method"))?
            .unwrap_or_default(),
        headers: matches::headers(headers)?,
        ..Match::default()
    })
}

fn convert_method(it: &GrpcRouteRulesMatchesMethod) -> Result<GrpcMatch, Refusal> {
    let service = it.service.clone().unwrap_or_default();
    let method = it.method.clone().unwrap_or_default();
    if service.is_empty() && method.is_empty() {
        let remedy = "write service, method or both";
        return Err(Refusal::new("", "names neither service nor method", remedy));
    }
    let expression = matches!(
        it.r#type,
        Some(GrpcRouteRulesMatchesMethodType::RegularExpression)
    );
    for (field, text) in [("service", &service), ("method", &method)] {
        if text.is_empty() {
            continue;
        }
        if expression {
            matches::expression(field, text)?;
        } else if !text.split('.').all(is_identifier) || field == "method" && text.contains('.') {
            let expected = match field {
                "service" => "a service with its package, like shop.v1.Cart",
                _ => "a method, like Add",
            };
            return Err(Refusal::value(field, check::quoted(text), expected));
        }
    }
    Ok(GrpcMatch {
        service,
        method,
        expression,
    })
}

/// Of Protocol Buffers.
fn is_identifier(text: &str) -> bool {
    text.starts_with(|it: char| it.is_ascii_alphabetic() || it == '_')
        && text
            .bytes()
            .all(|it| it.is_ascii_alphanumeric() || it == b'_')
}

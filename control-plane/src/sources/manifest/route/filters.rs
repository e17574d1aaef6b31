//! Filters of a rule or a backend, checked one by one and together.
//!
//! Called by `http_route`, `grpc_route` and for backends. A filter that the
//! mesh doesn't carry is refused by name: it MUST NOT be skipped
//! (HTTPRouteFilter.type).
//!
//! Pure.

use gateway_api::apis::experimental::httproutes::{
    HttpRouteRulesFilters, HttpRouteRulesFiltersRequestHeaderModifier,
    HttpRouteRulesFiltersRequestMirror, HttpRouteRulesFiltersRequestRedirect,
    HttpRouteRulesFiltersRequestRedirectScheme as Scheme, HttpRouteRulesFiltersType as Type,
    HttpRouteRulesFiltersUrlRewrite, HttpRouteRulesFiltersUrlRewritePath,
    HttpRouteRulesFiltersUrlRewritePathType as PathType,
};

use super::{Target, cors, destination, matches, same};
use crate::{
    model::{Filter, HeaderModifier, Mirror, PathModifier, Reason, Redirect, Rewrite},
    sources::manifest::{Refusal, check},
};

/// `one_prefix`: the rule has exactly one match, by prefix.
pub(in crate::sources::manifest) fn convert(
    namespace: &str,
    filters: &[HttpRouteRulesFilters],
    one_prefix: bool,
) -> Result<Vec<Filter>, Refusal> {
    let mut converted: Vec<Filter> = Vec::new();
    for (index, it) in filters.iter().enumerate() {
        let field = format!("filters[{index}]");
        let filter = one(namespace, it, one_prefix)
            .and_then(|filter| fits(&filter, &converted).map(|()| filter))
            .map_err(|refusal| refusal.below(&field))?;
        converted.push(filter);
    }
    Ok(converted)
}

fn one(namespace: &str, it: &HttpRouteRulesFilters, one_prefix: bool) -> Result<Filter, Refusal> {
    let parts = [
        it.request_header_modifier.is_some(),
        it.response_header_modifier.is_some(),
        it.request_mirror.is_some(),
        it.request_redirect.is_some(),
        it.url_rewrite.is_some(),
        it.cors.is_some(),
        it.extension_ref.is_some(),
        it.external_auth.is_some(),
    ];
    if parts.iter().filter(|it| **it).count() > 1 {
        let remedy = "write each filter as an entry of its own";
        return Err(Refusal::new("", "has parts of several types", remedy));
    }
    match it.r#type {
        Type::RequestHeaderModifier => part(
            "requestHeaderModifier",
            it.request_header_modifier.as_ref(),
            |it| headers(it).map(Filter::RequestHeaders),
        ),
        Type::ResponseHeaderModifier => part(
            "responseHeaderModifier",
            it.response_header_modifier.as_ref(),
            |it| headers(&same(it)?).map(Filter::ResponseHeaders),
        ),
        Type::RequestMirror => part("requestMirror", it.request_mirror.as_ref(), |it| {
            mirror(namespace, it).map(Filter::Mirror)
        }),
        Type::RequestRedirect => part("requestRedirect", it.request_redirect.as_ref(), |it| {
            redirect(it, one_prefix).map(Filter::Redirect)
        }),
        Type::UrlRewrite => part("urlRewrite", it.url_rewrite.as_ref(), |it| {
            rewrite(it, one_prefix).map(Filter::Rewrite)
        }),
        Type::Cors => part("cors", it.cors.as_ref(), |it| {
            cors::convert(it).map(Filter::Cors)
        }),
        Type::ExtensionRef | Type::ExternalAuth => Err(Refusal::unsupported("type")),
    }
}

fn part<T>(
    name: &str,
    part: Option<&T>,
    convert: impl FnOnce(&T) -> Result<Filter, Refusal>,
) -> Result<Filter, Refusal> {
    let Some(part) = part else {
        let remedy = "write it, or another type";
        return Err(Refusal::new(name, "is missing", remedy));
    };
    convert(part).map_err(|refusal| refusal.below(name))
}

/// Beside those before it. Each kind stands once but for mirrors, and a
/// redirect asks nobody, so there is nothing to rewrite or to mirror
/// (HTTPRouteRule.filters).
fn fits(filter: &Filter, earlier: &[Filter]) -> Result<(), Refusal> {
    use std::mem::discriminant;
    let incompatible = |message: &str, remedy: &str| {
        Err(Refusal::new("type", message, remedy).because(Reason::IncompatibleFilters))
    };
    let again = earlier
        .iter()
        .any(|it| discriminant(it) == discriminant(filter));
    if again && !matches!(filter, Filter::Mirror(_)) {
        return incompatible("stands there a second time", "write it once");
    }
    let is_redirect = |it: &Filter| matches!(it, Filter::Redirect(_));
    let is_headers =
        |it: &Filter| matches!(it, Filter::RequestHeaders(_) | Filter::ResponseHeaders(_));
    let beside_redirect = match is_redirect(filter) {
        true => earlier.iter().any(|it| !is_headers(it)),
        false => !is_headers(filter) && earlier.iter().any(is_redirect),
    };
    match beside_redirect {
        true => incompatible(
            "stands beside a filter that it makes no sense with",
            "beside RequestRedirect use header modifiers alone",
        ),
        false => Ok(()),
    }
}

fn headers(it: &HttpRouteRulesFiltersRequestHeaderModifier) -> Result<HeaderModifier, Refusal> {
    let mut modifier = HeaderModifier::default();
    for (index, one) in it.set.iter().flatten().enumerate() {
        let field = format!("set[{index}]");
        header(&field, &one.name, &one.value, &mut modifier.set)?;
    }
    for (index, one) in it.add.iter().flatten().enumerate() {
        let field = format!("add[{index}]");
        header(&field, &one.name, &one.value, &mut modifier.add)?;
    }
    for (index, one) in it.remove.iter().flatten().enumerate() {
        let name = header_name(&format!("remove[{index}]"), one)?;
        if !modifier.remove.contains(&name) {
            modifier.remove.push(name);
        }
    }
    Ok(modifier)
}

fn header(
    field: &str,
    name: &str,
    value: &str,
    all: &mut Vec<(String, String)>,
) -> Result<(), Refusal> {
    let known = header_name(&format!("{field}.name"), name)?;
    matches::header_value(&format!("{field}.value"), value)?;
    if all.iter().any(|(it, _)| *it == known) {
        let message = format!("is {known} a second time, which the API ignores");
        return Err(Refusal::new(
            &format!("{field}.name"),
            message,
            "name each header once",
        ));
    }
    all.push((known, value.to_owned()));
    Ok(())
}

/// What frames a message or belongs to the mesh is nobody's to change.
const RESERVED: [&str; 12] = [
    "connection",
    "content-length",
    "content_length",
    "expect",
    "http2-settings",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "transfer_encoding",
    "upgrade",
];

fn header_name(field: &str, name: &str) -> Result<String, Refusal> {
    let known = name.to_ascii_lowercase();
    if !check::is_token(&known) {
        return Err(Refusal::value(
            field,
            check::quoted(name),
            "a header's name",
        ));
    }
    if known == "host" {
        let message = "is Host, which names the authority";
        return Err(Refusal::new(
            field,
            message,
            "use URLRewrite with a hostname",
        ));
    }
    if RESERVED.contains(&known.as_str()) || known.starts_with("weft-") {
        let message = format!("is {known}, which proxies write themselves");
        return Err(Refusal::new(field, message, "leave it out"));
    }
    Ok(known)
}

fn mirror(namespace: &str, it: &HttpRouteRulesFiltersRequestMirror) -> Result<Mirror, Refusal> {
    let target = &it.backend_ref;
    let (backend, invalid) = destination(
        namespace,
        &Target {
            group: target.group.as_deref(),
            kind: target.kind.as_deref(),
            namespace: target.namespace.as_deref(),
            name: &target.name,
            port: target.port,
        },
    )
    .map_err(|refusal| refusal.below("backendRef"))?;
    let (numerator, denominator) = match (&it.fraction, it.percent) {
        (Some(_), Some(_)) => {
            let message = "stands beside fraction";
            return Err(Refusal::new("percent", message, "write one of the two"));
        }
        (None, None) => (1, 1),
        (None, Some(percent)) => (check::within("percent", percent.into(), 0, 100)?, 100),
        (Some(it), None) => {
            let most = i32::MAX.unsigned_abs();
            let denominator = it.denominator.unwrap_or(100).into();
            let denominator = check::within("fraction.denominator", denominator, 1, most)?;
            let numerator = it.numerator.into();
            let numerator = check::within("fraction.numerator", numerator, 0, denominator)?;
            (numerator, denominator)
        }
    };
    Ok(Mirror {
        backend,
        invalid,
        numerator,
        denominator,
    })
}

fn redirect(
    it: &HttpRouteRulesFiltersRequestRedirect,
    one_prefix: bool,
) -> Result<Redirect, Refusal> {
    let scheme = match it.scheme {
        Some(Scheme::Http) => "http",
        Some(Scheme::Https) => "https",
        None => "",
    };
    let path = it
        .path
        .as_ref()
        .map(|path| modifier(&same(path)?, one_prefix));
    let port = it.port.map(|port| check::port("port", port.into()));
    let status = it.status_code.unwrap_or(302);
    let status = match status {
        301 | 302 | 303 | 307 | 308 => u16::try_from(status).unwrap_or_default(),
        other => {
            let expected = "301, 302, 303, 307 or 308";
            return Err(Refusal::value("statusCode", other, expected));
        }
    };
    Ok(Redirect {
        scheme: scheme.to_owned(),
        hostname: hostname(it.hostname.as_deref())?,
        path: path.transpose()?,
        port: port.transpose()?.unwrap_or_default(),
        status,
    })
}

fn rewrite(it: &HttpRouteRulesFiltersUrlRewrite, one_prefix: bool) -> Result<Rewrite, Refusal> {
    let path = it.path.as_ref().map(|path| modifier(path, one_prefix));
    let rewrite = Rewrite {
        hostname: hostname(it.hostname.as_deref())?,
        path: path.transpose()?,
    };
    match rewrite == Rewrite::default() {
        true => Err(Refusal::new(
            "",
            "rewrites nothing",
            "write hostname or path",
        )),
        false => Ok(rewrite),
    }
}

/// PreciseHostname.
fn hostname(hostname: Option<&str>) -> Result<String, Refusal> {
    let hostname = hostname.unwrap_or_default();
    if !hostname.is_empty() {
        check::subdomain("hostname", hostname)?;
    }
    Ok(hostname.to_owned())
}

fn modifier(
    it: &HttpRouteRulesFiltersUrlRewritePath,
    one_prefix: bool,
) -> Result<PathModifier, Refusal> {
    let modified = || {
        let (field, text, other) = match it.r#type {
            PathType::ReplaceFullPath => (
                "replaceFullPath",
                &it.replace_full_path,
                &it.replace_prefix_match,
            ),
            PathType::ReplacePrefixMatch => (
                "replacePrefixMatch",
                &it.replace_prefix_match,
                &it.replace_full_path,
            ),
        };
        let Some(text) = text else {
            let remedy = "write it, or another type";
            return Err(Refusal::new(field, "is missing", remedy));
        };
        if other.is_some() {
            let message = "stands beside the replacement of another type";
            return Err(Refusal::new(field, message, "write one of the two"));
        }
        // An empty replacement takes the prefix away; what is left begins with a slash.
        let text = match text.as_str() {
            "" => "/",
            text => text,
        };
        check::path(field, text)?;
        if text.contains(';') {
            let message = "has a ;, after which some servers see another path";
            return Err(Refusal::new(field, message, "leave it out"));
        }
        match it.r#type {
            PathType::ReplaceFullPath => Ok(PathModifier::Full(text.to_owned())),
            // HTTPPathModifier.replacePrefixMatch.
            PathType::ReplacePrefixMatch if one_prefix => Ok(PathModifier::Prefix(text.to_owned())),
            PathType::ReplacePrefixMatch => Err(Refusal::new(
                field,
                "needs a rule with exactly one match, by PathPrefix",
                "split the rule, or use ReplaceFullPath",
            )),
        }
    };
    modified().map_err(|refusal| refusal.below("path"))
}

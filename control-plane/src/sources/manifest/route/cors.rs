//! The CORS filter: who may read answers from another origin.
//!
//! Called by `filters`. What could be read in two ways (`*` beside others) is
//! refused: it would open more than it seems to.
//!
//! Pure.

use gateway_api::apis::experimental::httproutes::HttpRouteRulesFiltersCors;

use crate::{
    model::Cors,
    sources::manifest::{Refusal, check},
};

pub(super) fn convert(it: &HttpRouteRulesFiltersCors) -> Result<Cors, Refusal> {
    let origins = it.allow_origins.clone().unwrap_or_default();
    for (index, origin) in origins.iter().enumerate() {
        if !is_origin(origin) {
            return Err(Refusal::value(
                &format!("allowOrigins[{index}]"),
                check::quoted(origin),
                "*, scheme://host or scheme://*.host, each with an optional port",
            ));
        }
    }
    any_alone("allowOrigins", &origins)?;
    Ok(Cors {
        allow_origins: origins,
        allow_credentials: it.allow_credentials.unwrap_or_default(),
        allow_methods: tokens("allowMethods", it.allow_methods.as_deref(), "a method")?,
        allow_headers: tokens(
            "allowHeaders",
            it.allow_headers.as_deref(),
            "a header's name",
        )?,
        expose_headers: tokens(
            "exposeHeaders",
            it.expose_headers.as_deref(),
            "a header's name",
        )?,
        max_age_seconds: it.max_age.map_or(Ok(5), |age| {
            check::within("maxAge", age.into(), 1, i32::MAX.unsigned_abs())
        })?,
    })
}

fn tokens(field: &str, all: Option<&[String]>, expected: &str) -> Result<Vec<String>, Refusal> {
    let all = all.unwrap_or_default();
    for (index, one) in all.iter().enumerate() {
        if !check::is_token(one) {
            let field = format!("{field}[{index}]");
            return Err(Refusal::value(&field, check::quoted(one), expected));
        }
    }
    any_alone(field, all)?;
    Ok(all.to_vec())
}

fn any_alone(field: &str, all: &[String]) -> Result<(), Refusal> {
    match all.len() > 1 && all.iter().any(|it| it == "*") {
        true => Err(Refusal::new(field, "has * beside others", "write * alone")),
        false => Ok(()),
    }
}

/// HTTPCORSFilter.allowOrigins.
fn is_origin(text: &str) -> bool {
    if text == "*" {
        return true;
    }
    let Some((scheme, rest)) = text.split_once("://") else {
        return false;
    };
    let (host, port) = rest.rsplit_once(':').unwrap_or((rest, "80"));
    let host = match host {
        "*" => "any",
        host => host.strip_prefix("*.").unwrap_or(host),
    };
    matches!(scheme, "http" | "https")
        && check::subdomain("", host).is_ok()
        && port.parse::<u16>().is_ok_and(|it| it > 0)
}

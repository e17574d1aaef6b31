//! Filters of a rule or of one of its backends.
//!
//! Part of `decode`; `store` compiles what comes of it. What a filter may not
//! touch: fields that frame a message, belong to one hop, or are the mesh's.

use http::{HeaderName, HeaderValue};
use weft_proto::v1;

use super::{
    Invalid, port,
    route::{each, usable},
    service::Target,
};
use crate::{
    discovery::{Cors, Names, Origin, PathEdit},
    request::path,
};

#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Filter {
    RequestHeaders(HeaderModifier),
    ResponseHeaders(HeaderModifier),
    Redirect(Redirect),
    Rewrite {
        hostname: Option<HeaderValue>,
        path: Option<PathEdit>,
    },
    Mirror {
        target: Result<Target, Box<str>>,
        numerator: u32,
        denominator: u32,
    },
    Cors(Cors),
}

/// `HTTPHeaderFilter`: set, then add, then remove.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct HeaderModifier {
    pub(crate) set: Vec<(HeaderName, HeaderValue)>,
    pub(crate) add: Vec<(HeaderName, HeaderValue)>,
    pub(crate) remove: Vec<HeaderName>,
}

/// `HTTPRequestRedirectFilter`.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Redirect {
    pub(crate) scheme: Option<&'static str>,
    pub(crate) hostname: Option<Box<str>>,
    pub(crate) port: Option<u16>,
    pub(crate) path: Option<PathEdit>,
    pub(crate) status: u16,
}

impl Filter {
    pub(super) fn replaces_prefix(&self) -> bool {
        let path = match self {
            Self::Redirect(redirect) => &redirect.path,
            Self::Rewrite { path, .. } => path,
            _ => return false,
        };
        matches!(path, Some(PathEdit::Prefix(_)))
    }

    /// HTTPRouteRule.filters: "Specifying the same filter multiple times is
    /// not supported unless explicitly indicated", and redirect and rewrite
    /// "may not be combined".
    fn excludes(&self, other: &Self) -> bool {
        let is_same = std::mem::discriminant(self) == std::mem::discriminant(other);
        let is_pair = |one: &Self, other: &Self| {
            matches!(one, Self::Redirect(_)) && matches!(other, Self::Rewrite { .. })
        };
        (is_same && !matches!(self, Self::Mirror { .. }))
            || is_pair(self, other)
            || is_pair(other, self)
    }
}

pub(super) fn filters(wire: Vec<v1::Filter>) -> Result<Vec<Filter>, Invalid> {
    let filters = each("filters", wire, filter)?;
    for (at, filter) in filters.iter().enumerate() {
        if filters.iter().take(at).any(|other| filter.excludes(other)) {
            let field = format!("filters[{at}]");
            return Err(Invalid::new(&field, "excluded by another before it"));
        }
    }
    Ok(filters)
}

fn filter(wire: v1::Filter) -> Result<Filter, Invalid> {
    use v1::filter::Kind;
    Ok(match wire.kind {
        Some(Kind::RequestHeaders(wire)) => {
            Filter::RequestHeaders(modifier(wire).map_err(|e| e.within("request_headers"))?)
        }
        Some(Kind::ResponseHeaders(wire)) => {
            Filter::ResponseHeaders(modifier(wire).map_err(|e| e.within("response_headers"))?)
        }
        Some(Kind::Redirect(wire)) => {
            Filter::Redirect(redirect(wire).map_err(|e| e.within("redirect"))?)
        }
        Some(Kind::Rewrite(wire)) => rewrite(wire).map_err(|e| e.within("rewrite"))?,
        Some(Kind::Mirror(wire)) => mirror(wire).map_err(|e| e.within("mirror"))?,
        Some(Kind::Cors(wire)) => Filter::Cors(cors(wire).map_err(|e| e.within("cors"))?),
        None => return Err(Invalid::new("kind", "missing, or newer than this proxy")),
    })
}

fn modifier(wire: v1::HeaderModifier) -> Result<HeaderModifier, Invalid> {
    let field = |wire: v1::Header| {
        let value = HeaderValue::from_bytes(wire.value.as_bytes())
            .map_err(|_| Invalid::new("value", format_args!("{:?}", wire.value)))?;
        Ok((name(&wire.name)?, value))
    };
    Ok(HeaderModifier {
        set: each("set", wire.set, field)?,
        add: each("add", wire.add, field)?,
        remove: each("remove", wire.remove, |wire| name(&wire))?,
    })
}

/// One that a filter may change. Host is `HTTPURLRewriteFilter.hostname`'s.
fn name(text: &str) -> Result<HeaderName, Invalid> {
    const NOT_OURS: [&str; 13] = [
        "connection",
        "content-length",
        "content_length",
        "expect",
        "host",
        "http2-settings",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "transfer_encoding",
        "upgrade",
    ];
    let name = HeaderName::from_bytes(text.as_bytes())
        .map_err(|_| Invalid::new("name", format_args!("{text:?}")))?;
    if NOT_OURS.contains(&name.as_str()) || name.as_str().starts_with("weft-") {
        let wrong = format_args!("{text:?} frames the message, names its host or is the mesh's");
        return Err(Invalid::new("name", wrong));
    }
    Ok(name)
}

fn redirect(wire: v1::Redirect) -> Result<Redirect, Invalid> {
    let scheme = match wire.scheme.as_str() {
        "" => None,
        "http" => Some("http"),
        "https" => Some("https"),
        other => return Err(Invalid::new("scheme", format_args!("{other:?}"))),
    };
    let status = match wire.status {
        301 => 301,
        302 => 302,
        303 => 303,
        307 => 307,
        308 => 308,
        other => return Err(Invalid::new("status", other)),
    };
    Ok(Redirect {
        scheme,
        hostname: hostname(&wire.hostname)?.map(Into::into),
        port: (wire.port != 0)
            .then(|| port("port", wire.port))
            .transpose()?,
        path: path_edit(wire.path)?,
        status,
    })
}

fn rewrite(wire: v1::Rewrite) -> Result<Filter, Invalid> {
    let value = |name: &str| {
        HeaderValue::from_str(name).map_err(|_| Invalid::new("hostname", format_args!("{name:?}")))
    };
    Ok(Filter::Rewrite {
        hostname: hostname(&wire.hostname)?.map(value).transpose()?,
        path: path_edit(wire.path)?,
    })
}

/// PreciseHostname: letters, digits, "-" and ".". Empty is the request's own.
fn hostname(text: &str) -> Result<Option<&str>, Invalid> {
    let is_name = text
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.'));
    if !is_name || text.len() > 253 {
        return Err(Invalid::new("hostname", format_args!("{text:?}")));
    }
    Ok((!text.is_empty()).then_some(text))
}

/// In canonical form, so that what is forwarded has one meaning.
fn path_edit(wire: Option<v1::PathModifier>) -> Result<Option<PathEdit>, Invalid> {
    use v1::path_modifier::Kind;
    let Some(wire) = wire else {
        return Ok(None);
    };
    let wrong = |text: &str| Invalid::new("path", format_args!("{text:?} has no one meaning"));
    Ok(Some(match wire.kind {
        Some(Kind::Full(text)) => {
            PathEdit::Full(path::exact(&text).map_err(|path::Ambiguous| wrong(&text))?)
        }
        Some(Kind::Prefix(text)) if text.is_empty() => PathEdit::Prefix("".into()),
        Some(Kind::Prefix(text)) => {
            PathEdit::Prefix(path::prefix(&text).map_err(|path::Ambiguous| wrong(&text))?)
        }
        None => return Err(Invalid::new("path", "of a kind newer than this proxy")),
    }))
}

fn mirror(wire: v1::Mirror) -> Result<Filter, Invalid> {
    if wire.denominator == 0 || wire.numerator > wire.denominator {
        let wrong = format_args!("{} of {}", wire.numerator, wire.denominator);
        return Err(Invalid::new("numerator", wrong));
    }
    Ok(Filter::Mirror {
        target: usable(wire.service, wire.invalid)?,
        numerator: wire.numerator,
        denominator: wire.denominator,
    })
}

fn cors(wire: v1::Cors) -> Result<Cors, Invalid> {
    let origins = each("allow_origins", wire.allow_origins, |text| {
        Origin::parse(&text).ok_or_else(|| Invalid::new("origin", format_args!("{text:?}")))
    })?;
    // HTTPCORSFilter.maxAge: the default is 5.
    let max_age = if wire.max_age_seconds == 0 {
        5
    } else {
        wire.max_age_seconds
    };
    Ok(Cors {
        origins,
        credentials: wire.allow_credentials,
        methods: names("allow_methods", &wire.allow_methods)?,
        headers: names("allow_headers", &wire.allow_headers)?,
        expose: names("expose_headers", &wire.expose_headers)?,
        max_age: HeaderValue::from(max_age),
    })
}

/// Methods and field names are tokens alike (RFC 9110 §5.1, §9.1).
fn names(field: &str, wire: &[String]) -> Result<Names, Invalid> {
    let any = wire.iter().any(|name| name == "*");
    let listed: Vec<&str> = wire
        .iter()
        .map(String::as_str)
        .filter(|name| *name != "*")
        .collect();
    if let Some(wrong) = listed
        .iter()
        .find(|name| http::Method::from_bytes(name.as_bytes()).is_err())
    {
        return Err(Invalid::new(field, format_args!("{wrong:?} is no token")));
    }
    let joined = (!listed.is_empty()).then(|| HeaderValue::from_str(&listed.join(", ")));
    Ok(Names {
        any,
        listed: joined
            .transpose()
            .map_err(|_| Invalid::new(field, "not ASCII"))?,
    })
}

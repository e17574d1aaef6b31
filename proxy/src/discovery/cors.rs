//! Who may read answers across origins: `HTTPCORSFilter`, parsed.
//!
//! Data. `http::cors` makes the fields of answers of it.

use http::HeaderValue;

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Cors {
    pub(crate) origins: Vec<Origin>,
    pub(crate) credentials: bool,
    pub(crate) methods: Names,
    pub(crate) headers: Names,
    pub(crate) expose: Names,
    pub(crate) max_age: HeaderValue,
}

impl Cors {
    pub(crate) fn allows(&self, origin: &[u8]) -> bool {
        self.origins.iter().any(|allowed| allowed.holds(origin))
    }
}

/// What a field of an answer lists.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct Names {
    /// "*" is among them.
    pub(crate) any: bool,
    /// The others; `None` where there are none.
    pub(crate) listed: Option<HeaderValue>,
}

/// One of `allowOrigins`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Origin {
    Any,
    Some {
        scheme: Box<str>,
        host: Host,
        port: u16,
    },
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Host {
    Any,
    Exact(Box<str>),
    /// Of "*.example.com", ".example.com": any number of labels before it.
    Below(Box<str>),
}

impl Origin {
    /// `None`: it is none.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        if text == "*" {
            return Some(Self::Any);
        }
        let (scheme, host, port) = split(text)?;
        let is_name = |name: &str| {
            !name.is_empty()
                && name
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.'))
        };
        let host = match host.strip_prefix('*') {
            Some("") => Host::Any,
            Some(below) if below.starts_with('.') && is_name(below) => Host::Below(below.into()),
            None if is_name(host) => Host::Exact(host.into()),
            Some(_) | None => return None,
        };
        Some(Self::Some {
            scheme: scheme.into(),
            host,
            port,
        })
    }

    /// Of an `Origin` field. Schemes and hosts know no case (RFC 6454 §4).
    fn holds(&self, origin: &[u8]) -> bool {
        let Self::Some { scheme, host, port } = self else {
            return true;
        };
        let parts = std::str::from_utf8(origin).ok().and_then(split);
        let Some((own_scheme, own_host, own_port)) = parts else {
            return false;
        };
        let is_host = match host {
            Host::Any => true,
            Host::Exact(name) => own_host.eq_ignore_ascii_case(name),
            Host::Below(end) => own_host
                .len()
                .checked_sub(end.len())
                .filter(|labels| *labels > 0)
                .and_then(|labels| own_host.get(labels..))
                .is_some_and(|own_end| own_end.eq_ignore_ascii_case(end)),
        };
        is_host && own_port == *port && own_scheme.eq_ignore_ascii_case(scheme)
    }
}

/// Scheme, host and port, the scheme's own where none is named.
fn split(origin: &str) -> Option<(&str, &str, u16)> {
    let (scheme, authority) = origin.split_once("://")?;
    let default = if scheme.eq_ignore_ascii_case("http") {
        80
    } else if scheme.eq_ignore_ascii_case("https") {
        443
    } else {
        return None;
    };
    let (host, port) = match authority.rsplit_once(':') {
        // The last colon of "[::1]" separates no port.
        Some((host, port)) if !port.ends_with(']') => {
            let digits = port.bytes().all(|byte| byte.is_ascii_digit());
            let port = port.parse().ok().filter(|port| digits && *port != 0)?;
            (host, port)
        }
        _ => (authority, default),
    };
    Some((scheme, host, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(allowed: &str, origin: &str) -> bool {
        Origin::parse(allowed).unwrap().holds(origin.as_bytes())
    }

    /// HTTPCORSFilter.allowOrigins.
    #[test]
    fn origins_are_compared_by_scheme_host_and_port() {
        for (allowed, origin, expected) in [
            ("*", "https://any.example", true),
            ("*", "null", true),
            ("https://a.example", "https://a.example", true),
            ("https://a.example", "HTTPS://A.example", true),
            ("https://a.example", "http://a.example", false),
            ("https://a.example", "https://b.example", false),
            ("https://a.example", "null", false),
            // "if not included, port 80 is assumed for http, 443 for https".
            ("https://a.example", "https://a.example:443", true),
            ("http://a.example:80", "http://a.example", true),
            ("https://a.example", "https://a.example:8443", false),
            ("https://a.example:8443", "https://a.example:8443", true),
            // "a greedy match to the left, including any number of DNS labels".
            ("https://*.example", "https://a.example", true),
            ("https://*.example", "https://a.b.example", true),
            ("https://*.example", "https://example", false),
            ("https://*.example", "https://aexample", false),
            ("https://*.example", "https://.example", false),
            ("https://*.example", "https://a.example.evil", false),
            // "A wildcard by itself matches all hosts."
            ("https://*", "https://a.example", true),
            ("https://*", "http://a.example", false),
            ("https://*:8443", "https://a.example:8443", true),
            ("https://*:8443", "https://a.example", false),
        ] {
            assert_eq!(holds(allowed, origin), expected, "{allowed} {origin}");
        }
    }

    #[test]
    fn what_is_no_origin_is_not_parsed() {
        for text in [
            "",
            "a.example",
            "ftp://a",
            "https://",
            "https://a.example/",
            "https://a:0",
            "https://a:x",
            "https://a:+1",
            "https://a.*",
            "https://*a",
            "https://a b",
            "**",
        ] {
            assert_eq!(Origin::parse(text), None, "{text}");
        }
    }
}

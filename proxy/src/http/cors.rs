//! Fields of answers that let scripts of other origins read them.
//!
//! Called by `filter`; `discovery::Cors` says who may. By HTTPCORSFilter of
//! the Gateway API, and the Fetch standard where that leaves a choice: the
//! origin is named, never "*", since a proxy can't know whether a browser took
//! credentials along; so answers vary by `Origin`.
//!
//! Pure. An application's own fields stay where the origin is not allowed; what
//! it says of credentials goes where one is.

use http::{HeaderName, HeaderValue, StatusCode, header};

use crate::{
    discovery::{Cors, FieldEdits, Names},
    request::Request,
};

use super::filter::Reply;

/// The answer to a question of a browser's; `None` where it is none. "If the
/// request Origin does not match, the gateway returns 204/200 but doesn't set
/// the relevant cross-origin response headers" (allowOrigins).
pub(super) fn preflight(cors: Option<&Cors>, request: &impl Request) -> Option<Reply> {
    let (cors, origin) = cors.zip(request.header("origin").next())?;
    let method = request.header("access-control-request-method").next();
    if request.method() != "OPTIONS" || method.is_none() {
        return None;
    }
    let mut reply = Reply::new(StatusCode::NO_CONTENT);
    reply.fields.push((header::VARY, VARIES));
    let Some(allowed) = allowed(cors, origin) else {
        return Some(reply);
    };
    let headers = request.header("access-control-request-headers").next();
    let lists = [
        (header::ACCESS_CONTROL_ALLOW_METHODS, &cors.methods, method),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, &cors.headers, headers),
    ];
    reply.fields.extend(allowed);
    for (name, names, asked) in lists {
        reply
            .fields
            .extend(listed(names, asked).map(|value| (name, value)));
    }
    let age = (header::ACCESS_CONTROL_MAX_AGE, cors.max_age.clone());
    reply.fields.push(age);
    Some(reply)
}

/// What the answer to an actual request gets. One without an origin, or of one
/// that is not allowed, varies by it too: a cache may keep it for another.
pub(super) fn decoration(cors: &Cors, request: &impl Request) -> FieldEdits {
    let mut edits = FieldEdits::default();
    edits.add(&header::VARY, VARIES);
    let origin = request.header("origin").next();
    let Some(fields) = origin.and_then(|origin| allowed(cors, origin)) else {
        return edits;
    };
    // What the application says of credentials it says to its own origins.
    edits.remove(&header::ACCESS_CONTROL_ALLOW_CREDENTIALS);
    for (name, value) in fields {
        edits.set(&name, value);
    }
    // "The gateway cannot use the * wildcard when the request is credentialed."
    let mut sent = ["cookie", "authorization"].into_iter();
    let has_credentials =
        cors.credentials || sent.any(|name| request.header(name).next().is_some());
    let exposed = if cors.expose.any && !has_credentials {
        Some(HeaderValue::from_static("*"))
    } else {
        cors.expose.listed.clone()
    };
    if let Some(exposed) = exposed {
        edits.set(&header::ACCESS_CONTROL_EXPOSE_HEADERS, exposed);
    }
    edits
}

const VARIES: HeaderValue = HeaderValue::from_static("Origin");

/// `None`: the origin isn't.
fn allowed(cors: &Cors, origin: &[u8]) -> Option<Vec<(HeaderName, HeaderValue)>> {
    let value = HeaderValue::from_bytes(origin).ok()?;
    if !cors.allows(origin) {
        return None;
    }
    let mut fields = vec![(header::ACCESS_CONTROL_ALLOW_ORIGIN, value)];
    if cors.credentials {
        let yes = HeaderValue::from_static("true");
        fields.push((header::ACCESS_CONTROL_ALLOW_CREDENTIALS, yes));
    }
    Some(fields)
}

/// Where everything is allowed, what was asked for: to a credentialed request
/// "*" must not be said, and to others it need not.
fn listed(names: &Names, asked: Option<&[u8]>) -> Option<HeaderValue> {
    if names.any {
        asked.and_then(|asked| HeaderValue::from_bytes(asked).ok())
    } else {
        names.listed.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{discovery::Origin, request::samples::Sample};

    fn names(any: bool, listed: &'static str) -> Names {
        Names {
            any,
            listed: (!listed.is_empty()).then(|| HeaderValue::from_static(listed)),
        }
    }

    fn cors() -> Cors {
        Cors {
            origins: vec![Origin::parse("https://a.example").unwrap()],
            credentials: false,
            methods: names(false, "PUT, DELETE"),
            headers: names(false, "x-token"),
            expose: names(false, "x-id"),
            max_age: HeaderValue::from(5),
        }
    }

    fn wild(credentials: bool) -> Cors {
        Cors {
            origins: vec![Origin::Any],
            credentials,
            methods: names(true, ""),
            headers: names(true, ""),
            expose: names(true, "x-id"),
            ..cors()
        }
    }

    fn asks() -> Sample {
        Sample::get("/")
            .with_method("OPTIONS")
            .with("origin", "https://a.example")
            .with("access-control-request-method", "PATCH")
            .with("access-control-request-headers", "x-a,x-b")
    }

    /// "name: value" without the common part of the names.
    fn told(cors: &Cors, request: &Sample) -> Vec<String> {
        let reply = preflight(Some(cors), request).unwrap();
        assert_eq!(reply.status, 204);
        let text = |(name, value): &(HeaderName, HeaderValue)| {
            let name = name.as_str().trim_start_matches("access-control-");
            format!("{name}: {}", value.to_str().unwrap())
        };
        reply.fields.iter().map(text).collect()
    }

    #[test]
    fn a_preflight_is_told_what_is_configured() {
        assert_eq!(
            told(&cors(), &asks()),
            [
                "vary: Origin",
                "allow-origin: https://a.example",
                "allow-methods: PUT, DELETE",
                "allow-headers: x-token",
                "max-age: 5",
            ]
        );
        let bare = Cors {
            methods: Names::default(),
            headers: Names::default(),
            ..cors()
        };
        assert_eq!(
            told(&bare, &asks()),
            [
                "vary: Origin",
                "allow-origin: https://a.example",
                "max-age: 5"
            ]
        );
    }

    /// allowMethods, allowHeaders: "the value is the same as" what was asked.
    #[test]
    fn where_everything_is_allowed_what_was_asked_for_is_named_and_never_a_star() {
        for credentials in [false, true] {
            let mut expected = vec!["vary: Origin", "allow-origin: https://a.example"];
            if credentials {
                expected.push("allow-credentials: true");
            }
            expected.extend([
                "allow-methods: PATCH",
                "allow-headers: x-a,x-b",
                "max-age: 5",
            ]);
            assert_eq!(told(&wild(credentials), &asks()), expected);
        }
        let mut request = asks();
        request.headers.pop();
        let told = told(&wild(true), &request);
        assert!(told.iter().all(|field| !field.starts_with("allow-headers")));
    }

    #[test]
    fn an_origin_that_is_not_allowed_learns_nothing() {
        let mut request = asks();
        request.headers[0].1 = "https://evil.example".into();
        assert_eq!(told(&cors(), &request), ["vary: Origin"]);
        assert_eq!(decorated(&cors(), &request), ["vary: Origin"]);
    }

    #[test]
    fn what_is_no_preflight_goes_on() {
        let plain = Sample::get("/").with("origin", "https://a.example");
        assert!(preflight(Some(&cors()), &plain).is_none());
        assert!(preflight(Some(&cors()), &plain.with_method("OPTIONS")).is_none());
        assert!(preflight(Some(&cors()), &asks().with_method("GET")).is_none());
        let without_origin = Sample::get("/")
            .with_method("OPTIONS")
            .with("access-control-request-method", "GET");
        assert!(preflight(Some(&cors()), &without_origin).is_none());
        assert!(preflight(None, &asks()).is_none());
    }

    fn decorated(cors: &Cors, request: &Sample) -> Vec<String> {
        let edits = decoration(cors, request);
        let text = |(name, value): (&HeaderName, &HeaderValue)| {
            let name = name.as_str().trim_start_matches("access-control-");
            format!("{name}: {}", value.to_str().unwrap())
        };
        edits.added().map(text).collect()
    }

    #[test]
    fn an_actual_answer_names_the_origin_and_what_is_exposed() {
        let request = Sample::get("/").with("origin", "https://a.example");
        assert_eq!(
            decorated(&cors(), &request),
            [
                "vary: Origin",
                "allow-origin: https://a.example",
                "expose-headers: x-id",
            ]
        );
        let edits = decoration(&cors(), &request);
        assert!(edits.drops(b"Access-Control-Allow-Origin") && !edits.drops(b"Vary"));
        // The application's permission was for the origins that it knows.
        assert!(edits.drops(b"Access-Control-Allow-Credentials"));
        assert_eq!(decorated(&cors(), &Sample::get("/")), ["vary: Origin"]);
    }

    /// exposeHeaders: "cannot use the * wildcard" for a credentialed request.
    #[test]
    fn a_credentialed_request_is_exposed_by_name() {
        let request = Sample::get("/").with("origin", "https://a.example");
        let exposed = |cors: &Cors, request: &Sample| decorated(cors, request).pop().unwrap();
        assert_eq!(exposed(&wild(false), &request), "expose-headers: *");
        let with_cookie = request.clone().with("cookie", "a=b");
        assert_eq!(exposed(&wild(false), &with_cookie), "expose-headers: x-id");
        let all = decorated(&wild(true), &request);
        assert!(all.contains(&"expose-headers: x-id".into()), "{all:?}");
    }
}

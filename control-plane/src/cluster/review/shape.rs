//! Whether a token could be one of ours, told from what it says of itself.
//!
//! Asked by `review` before the API server is: whoever reaches the port may send
//! anything, and each question costs the API server more than the sender. Says
//! nothing about whether the token is genuine; that is the API server's word.
//!
//! Pure.

// RFC 7515 §2.
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use serde::Deserialize;

use super::AUDIENCE;

/// Bound tokens are about 1 KiB; an API server refuses what is much longer.
const LONGEST: usize = 16 * 1024;
/// The API server's clock may be behind ours by so much.
const LEEWAY: u64 = 60;

#[derive(Deserialize)]
struct Claims {
    #[serde(default)]
    aud: Audience,
    exp: u64,
    #[serde(rename = "kubernetes.io")]
    bound: Option<Bound>,
}

/// RFC 7519 §4.1.3.
#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

impl Default for Audience {
    fn default() -> Self {
        Self::Several(Vec::new())
    }
}

#[derive(Deserialize)]
struct Bound {
    pod: Option<Pod>,
}

#[derive(Deserialize)]
struct Pod {
    name: String,
    uid: String,
}

/// # Errors
/// Why the API server need not be asked.
pub(super) fn check(token: &str, seconds: u64) -> Result<(), &'static str> {
    if token.is_empty() || token.len() > LONGEST {
        return Err("there is none, or it is too long");
    }
    let mut parts = token.split('.');
    let (Some(head), Some(claims), Some(signature), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err("it has not the three parts of a JWT");
    };
    let decoded = |part: &str| BASE64.decode(part).ok().filter(|it| !it.is_empty());
    let (Some(_), Some(claims), Some(_)) = (decoded(head), decoded(claims), decoded(signature))
    else {
        return Err("its parts are not those of a JWT");
    };
    let Ok(claims) = serde_json::from_slice::<Claims>(&claims) else {
        return Err("its claims can't be read");
    };
    let is_ours = match &claims.aud {
        Audience::One(one) => one == AUDIENCE,
        Audience::Several(all) => all.iter().any(|it| it == AUDIENCE),
    };
    if !is_ours {
        return Err("not for audience weft");
    }
    if claims.exp.saturating_add(LEEWAY) < seconds {
        return Err("it has expired");
    }
    let pod = claims.bound.and_then(|it| it.pod);
    match pod.is_some_and(|it| !it.name.is_empty() && !it.uid.is_empty()) {
        true => Ok(()),
        false => Err("bound to no pod"),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::{Value, json};

    use super::*;

    const NOW: u64 = 1_800_000_000;

    pub(in super::super) fn token(claims: &Value) -> String {
        let part = |it: &str| BASE64.encode(it);
        let head = part(r#"{"alg":"RS256","kid":"k"}"#);
        format!("{head}.{}.{}", part(&claims.to_string()), part("signature"))
    }

    /// Valid until the year 2100.
    pub(in super::super) fn claims() -> Value {
        json!({
            "aud": ["weft"], "exp": 4_102_444_800_u64, "iat": NOW, "iss": "https://kubernetes.default.svc",
            "sub": "system:serviceaccount:shop:cart",
            "kubernetes.io": {
                "namespace": "shop", "node": {"name": "n", "uid": "n1"},
                "pod": {"name": "cart-0", "uid": "u1"}, "serviceaccount": {"name": "cart", "uid": "s1"},
            },
        })
    }

    fn with(field: &str, value: Value) -> String {
        let mut claims = claims();
        claims[field] = value;
        token(&claims)
    }

    #[test]
    fn what_a_cluster_binds_to_a_pod_passes() {
        assert_eq!(check(&token(&claims()), NOW), Ok(()));
        assert_eq!(check(&with("aud", json!("weft")), NOW), Ok(()));
        // By a clock that is ahead of the API server's.
        assert_eq!(check(&with("exp", json!(NOW - 30)), NOW), Ok(()));
    }

    #[test]
    fn what_can_be_no_token_of_ours_is_refused_by_name() {
        let long = with("padding", json!("x".repeat(LONGEST)));
        for (token, why) in [
            (String::new(), "there is none, or it is too long"),
            (long, "there is none, or it is too long"),
            ("a-token".to_owned(), "it has not the three parts of a JWT"),
            ("a.b.c.d".to_owned(), "it has not the three parts of a JWT"),
            ("!.!.!".to_owned(), "its parts are not those of a JWT"),
            (with("exp", json!("soon")), "its claims can't be read"),
            (with("aud", json!(["kubernetes"])), "not for audience weft"),
            (with("aud", json!([])), "not for audience weft"),
            (with("exp", json!(NOW - 61)), "it has expired"),
            (with("kubernetes.io", json!(null)), "bound to no pod"),
            (
                with("kubernetes.io", json!({"namespace": "shop"})),
                "bound to no pod",
            ),
            (
                with("kubernetes.io", json!({"pod": {"name": "", "uid": "u1"}})),
                "bound to no pod",
            ),
        ] {
            assert_eq!(check(&token, NOW), Err(why), "{token}");
        }
    }
}

//! Tokens with the claims of a Kubernetes bound service-account token, signed
//! with a key in the state directory.
//!
//! `weft token` and `weft run` mint them; `app` hands `Key::verify` to `serve`,
//! which gives certificates for what it answers. Never trusts a claim before
//! the signature.

use std::{path::Path, time::Duration};

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData};
use serde::{Deserialize, Serialize};

use crate::{
    ca::{Error, issue::read_key, state::State},
    clock::Wall,
    identity::is_part,
    model::Name,
};

const TOKEN_KEY: &str = "token.key.pem";
const AUDIENCE: &str = "weft";
const ISSUER: &str = "https://weft.dev/mesh";
/// Clocks of two machines may differ by this much; a lifetime is never stretched.
const LEEWAY: u64 = 60;
/// No token that we mint or that a cluster binds is near this size.
const LONGEST: usize = 8 * 1024;

/// Signs and verifies.
#[derive(Debug)]
pub(crate) struct Key(KeyPair);

/// Who a verified token speaks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Claimed {
    pub(crate) pod: Name,
    /// Empty where the token names none.
    pub(crate) uid: String,
    pub(crate) service_account: String,
}

#[derive(Serialize, Deserialize)]
struct Claims {
    aud: Vec<String>,
    exp: u64,
    iat: u64,
    nbf: u64,
    iss: String,
    sub: String,
    #[serde(rename = "kubernetes.io")]
    bound: Bound,
}

#[derive(Serialize, Deserialize)]
struct Bound {
    namespace: String,
    pod: Reference,
    serviceaccount: Reference,
}

#[derive(Serialize, Deserialize)]
struct Reference {
    name: String,
    #[serde(default)]
    uid: String,
}

impl Key {
    /// Reads the key of a state directory, made on first use.
    pub(crate) fn read(directory: &Path) -> Result<Self, Error> {
        Self::open(&State::open(directory)?)
    }

    fn open(state: &State) -> Result<Self, Error> {
        if let Some(text) = state.read(TOKEN_KEY)? {
            return Ok(Self(read_key(state, TOKEN_KEY, &text)?));
        }
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        state.write(TOKEN_KEY, &key.serialize_pem())?;
        Ok(Self(key))
    }

    pub(crate) fn mint(
        &self,
        who: &Claimed,
        lifetime: Duration,
        clock: Wall,
    ) -> Result<String, Error> {
        let now = clock.seconds();
        let claims = Claims {
            aud: vec![AUDIENCE.to_owned()],
            exp: now.saturating_add(lifetime.as_secs()),
            iat: now,
            nbf: now,
            iss: ISSUER.to_owned(),
            sub: format!(
                "system:serviceaccount:{}:{}",
                who.pod.namespace, who.service_account
            ),
            bound: Bound {
                namespace: who.pod.namespace.clone(),
                pod: Reference {
                    name: who.pod.name.clone(),
                    uid: who.uid.clone(),
                },
                serviceaccount: Reference {
                    name: who.service_account.clone(),
                    uid: String::new(),
                },
            },
        };
        let key = EncodingKey::from_ec_der(self.0.serialized_der());
        jsonwebtoken::encode(&Header::new(Algorithm::ES256), &claims, &key)
            .map_err(|_| Error::Token("it could not be signed"))
    }

    /// Signature, audience, issuer, dates and the agreement of its claims.
    pub(crate) fn verify(&self, token: &str, clock: Wall) -> Result<Claimed, Error> {
        if token.len() > LONGEST {
            return Err(Error::Token("too long"));
        }
        let mut rules = Validation::new(Algorithm::ES256);
        rules.set_audience(&[AUDIENCE]);
        rules.set_issuer(&[ISSUER]);
        rules.set_required_spec_claims(&["exp", "nbf", "aud", "iss", "sub"]);
        // Dates are checked below, against the clock that tests can move.
        rules.validate_exp = false;
        let key = DecodingKey::from_ec_der(self.0.der_bytes());
        let claims = jsonwebtoken::decode::<Claims>(token, &key, &rules)
            .map_err(|error| reason(&error))?
            .claims;
        let now = clock.seconds();
        if claims.exp <= now {
            return Err(Error::Token("expired"));
        }
        if claims.nbf > now + LEEWAY {
            return Err(Error::Token("not valid yet"));
        }
        let Bound {
            namespace,
            pod,
            serviceaccount,
        } = claims.bound;
        if claims.sub != format!("system:serviceaccount:{namespace}:{}", serviceaccount.name) {
            return Err(Error::Token("its subject is not its service account"));
        }
        if ![&namespace, &pod.name, &serviceaccount.name]
            .into_iter()
            .all(|part| is_part(part))
        {
            return Err(Error::Token("a name in it is none"));
        }
        Ok(Claimed {
            pod: Name::new(&namespace, &pod.name),
            uid: pod.uid,
            service_account: serviceaccount.name,
        })
    }
}

fn reason(error: &jsonwebtoken::errors::Error) -> Error {
    use jsonwebtoken::errors::ErrorKind as Kind;
    Error::Token(match error.kind() {
        Kind::InvalidSignature => "its signature is wrong",
        Kind::InvalidAudience => "for another audience",
        Kind::InvalidIssuer => "of another issuer",
        Kind::InvalidAlgorithm | Kind::InvalidAlgorithmName => "of another algorithm",
        _ => "it can't be read",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> Key {
        Key(KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap())
    }

    fn cart() -> Claimed {
        Claimed {
            pod: Name::new("shop", "cart-0"),
            uid: "u1".into(),
            service_account: "cart".into(),
        }
    }

    fn refusal(answer: Result<Claimed, Error>) -> String {
        answer.unwrap_err().to_string()
    }

    #[test]
    fn a_minted_token_names_its_pod_and_account() {
        let key = key();
        let token = key
            .mint(&cart(), Duration::from_secs(60), Wall::System)
            .unwrap();
        assert_eq!(key.verify(&token, Wall::System).unwrap(), cart());
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_ends_at_its_second_and_not_before() {
        let (key, clock) = (key(), Wall::fixed(Duration::from_secs(1_800_000_000)));
        let token = key.mint(&cart(), Duration::from_secs(60), clock).unwrap();
        tokio::time::advance(Duration::from_secs(59)).await;
        key.verify(&token, clock).unwrap();
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(refusal(key.verify(&token, clock)), "token refused: expired");
    }

    #[tokio::test]
    async fn another_key_audience_or_algorithm_is_refused_by_name() {
        let (key, other) = (key(), key());
        let token = other
            .mint(&cart(), Duration::from_secs(60), Wall::System)
            .unwrap();
        assert_eq!(
            refusal(key.verify(&token, Wall::System)),
            "token refused: its signature is wrong"
        );
        assert_eq!(
            refusal(key.verify("a.b.c", Wall::System)),
            "token refused: it can't be read"
        );
        let secret = EncodingKey::from_secret(key.0.der_bytes());
        let claims = serde_json::json!({"aud": ["weft"], "exp": u64::MAX});
        let confused =
            jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &secret).unwrap();
        assert_eq!(
            refusal(key.verify(&confused, Wall::System)),
            "token refused: of another algorithm"
        );
        let kubernetes = EncodingKey::from_ec_der(key.0.serialized_der());
        let claims = serde_json::json!({"aud": ["kubernetes"], "exp": u64::MAX, "nbf": 0, "iss": ISSUER, "iat": 0,
            "sub": "system:serviceaccount:shop:cart",
            "kubernetes.io": {"namespace": "shop", "pod": {"name": "cart-0"}, "serviceaccount": {"name": "cart"}}});
        let foreign =
            jsonwebtoken::encode(&Header::new(Algorithm::ES256), &claims, &kubernetes).unwrap();
        assert_eq!(
            refusal(key.verify(&foreign, Wall::System)),
            "token refused: for another audience"
        );
    }

    #[test]
    fn a_subject_that_is_not_the_bound_account_is_refused() {
        let key = key();
        let mut who = cart();
        who.service_account = "a/../b".into();
        let token = key
            .mint(&who, Duration::from_secs(60), Wall::System)
            .unwrap();
        assert_eq!(
            refusal(key.verify(&token, Wall::System)),
            "token refused: a name in it is none"
        );
    }
}

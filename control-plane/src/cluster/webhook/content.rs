//! What the webhook's Secret holds, and what comes next for it: pure.
//!
//! Under `webhook`, which reads and writes.

use std::time::Duration;

use k8s_openapi::{ByteString, api::core::v1::Secret};
use rustls_pki_types::CertificateDer;

use crate::ca::{
    serving::{self, Serving},
    signing::{CERTIFICATE, KEY, ROOTS, Unfit, pem},
};

const NEXT: (&str, &str) = ("next.crt", "next.key");
/// API servers follow their configurations by a watch, which takes moments.
pub(super) const SETTLES: Duration = Duration::from_secs(60);

/// What the Secret says.
pub(super) struct Content {
    pub(super) serving: Serving,
    pub(super) next: Option<Serving>,
    /// `ca.crt`, as the API server is to have it.
    pub(super) authorities: Vec<CertificateDer<'static>>,
    pub(super) text: Vec<u8>,
    pub(super) secret: Secret,
}

/// What the holder has to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Step {
    /// A new key beside the old, its authority beside the old one.
    Prepare,
    /// The next key is the key.
    Promote,
    /// Of several authorities the newest is enough.
    Prune,
    Rest,
}

/// The clock alone decides: the API server is told before each of them.
pub(super) fn decide(content: &Content, now: Duration) -> Step {
    let has_settled = |it: &Serving| it.made + SETTLES <= now;
    match &content.next {
        Some(next) if has_settled(next) => return Step::Promote,
        Some(_) => return Step::Rest,
        None => {}
    }
    let serving = &content.serving;
    let life = serving.ends.saturating_sub(serving.made);
    if serving.made + life.mul_f64(2.0 / 3.0) <= now {
        return Step::Prepare;
    }
    // Replicas that have missed the change of keys have seen it by then.
    let is_old = serving.made + 2 * SETTLES + Duration::from_secs(3600) <= now;
    match content.authorities.len() > 1 && is_old {
        true => Step::Prune,
        false => Step::Rest,
    }
}

impl Content {
    pub(super) fn read(secret: &Secret) -> Result<Self, Unfit> {
        let data = |name: &str| {
            let found = secret.data.as_ref().and_then(|it| it.get(name));
            found.map(|it| it.0.as_slice())
        };
        let needed = |part| {
            data(part).ok_or_else(|| Unfit {
                part,
                message: "it is missing".to_owned(),
            })
        };
        let next = match (data(NEXT.0), data(NEXT.1)) {
            (Some(certificate), Some(key)) => Some(serving::read(certificate, key)?),
            _ => None,
        };
        Ok(Self {
            serving: serving::read(needed(CERTIFICATE)?, needed(KEY)?)?,
            next,
            authorities: pem(ROOTS, needed(ROOTS)?)?,
            text: needed(ROOTS)?.to_vec(),
            secret: secret.clone(),
        })
    }
}

/// The Secret as `step` leaves it.
pub(super) fn after(content: &Content, step: Step, made: Option<&serving::Made>) -> Secret {
    let mut secret = content.secret.clone();
    let data = secret.data.get_or_insert_default();
    let newest = |text: &[u8]| {
        let end = "-----END CERTIFICATE-----\n";
        let text = String::from_utf8_lossy(text);
        text.split_inclusive(end).next().map(ToOwned::to_owned)
    };
    match (step, made) {
        (Step::Prepare, Some(made)) => {
            let authorities = made.authority.clone() + &String::from_utf8_lossy(&content.text);
            data.insert(NEXT.0.to_owned(), bytes(&made.certificate));
            data.insert(NEXT.1.to_owned(), bytes(&made.key));
            data.insert(ROOTS.to_owned(), bytes(&authorities));
        }
        (Step::Promote, _) => {
            for (from, to) in [(NEXT.0, CERTIFICATE), (NEXT.1, KEY)] {
                if let Some(value) = data.remove(from) {
                    data.insert(to.to_owned(), value);
                }
            }
        }
        (Step::Prune, _) => {
            if let Some(newest) = newest(&content.text) {
                data.insert(ROOTS.to_owned(), bytes(&newest));
            }
        }
        (Step::Prepare | Step::Rest, _) => {}
    }
    secret
}

pub(super) fn bytes(text: &str) -> ByteString {
    ByteString(text.as_bytes().to_vec())
}

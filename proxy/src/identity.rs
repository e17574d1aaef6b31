//! SPIFFE identities of workloads.
//!
//! Ground. An identity is compared as an exact string and is only ever read
//! from a verified certificate or from the control plane.

use std::{fmt, str::FromStr, sync::Arc};

/// `spiffe://<trust-domain>/ns/<namespace>/sa/<service-account>` (SPIFFE-ID
/// §2), at most 2,048 bytes. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct SpiffeId {
    text: Arc<str>,
    /// Where namespace and service account stand in `text`.
    namespace: (u16, u16),
    service_account: (u16, u16),
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("not an identity of the form spiffe://<trust-domain>/ns/<namespace>/sa/<service-account>")]
pub(crate) struct NotAnIdentity;

impl SpiffeId {
    pub(crate) fn new(
        trust_domain: &str,
        namespace: &str,
        service_account: &str,
    ) -> Result<Self, NotAnIdentity> {
        format!("spiffe://{trust_domain}/ns/{namespace}/sa/{service_account}").parse()
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    pub(crate) fn trust_domain(&self) -> &str {
        self.text
            .strip_prefix("spiffe://")
            .and_then(|rest| rest.split_once('/'))
            .map_or("", |(domain, _)| domain)
    }

    pub(crate) fn namespace(&self) -> &str {
        self.part(self.namespace)
    }

    pub(crate) fn service_account(&self) -> &str {
        self.part(self.service_account)
    }

    fn part(&self, (from, to): (u16, u16)) -> &str {
        self.text
            .get(usize::from(from)..usize::from(to))
            .unwrap_or_default()
    }
}

impl FromStr for SpiffeId {
    type Err = NotAnIdentity;

    fn from_str(text: &str) -> Result<Self, NotAnIdentity> {
        let rest = text.strip_prefix("spiffe://").ok_or(NotAnIdentity)?;
        let mut parts = rest.split('/');
        let mut next = || {
            parts
                .next()
                .filter(|part| is_part(part))
                .ok_or(NotAnIdentity)
        };
        let (domain, ns, namespace, sa, account) = (next()?, next()?, next()?, next()?, next()?);
        if ns != "ns" || sa != "sa" || parts.next().is_some() || text.len() > 2048 {
            return Err(NotAnIdentity);
        }
        let namespace_at = "spiffe://".len() + domain.len() + "/ns/".len();
        let account_at = namespace_at + namespace.len() + "/sa/".len();
        let span = |from: usize, len: usize| (from as u16, (from + len) as u16);
        Ok(Self {
            text: text.into(),
            namespace: span(namespace_at, namespace.len()),
            service_account: span(account_at, account.len()),
        })
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// SPIFFE-ID §2.1 and §2.2: letters, digits, dots, dashes, underscores; not empty.
fn is_part(part: &str) -> bool {
    !matches!(part, "" | "." | "..")
        && part
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'))
}

/// Who called, or why that is unknown.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Peer {
    /// Proved by a verified certificate.
    Identified(SpiffeId),
    /// Plaintext, admitted by a permissive port.
    Plaintext,
    /// Our own workload: outbound.
    Local,
}

impl Peer {
    pub(crate) fn identity(&self) -> Option<&SpiffeId> {
        match self {
            Self::Identified(identity) => Some(identity),
            Self::Plaintext | Self::Local => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_names_its_parts() {
        let identity: SpiffeId = "spiffe://cluster.local/ns/shop/sa/cart.v2".parse().unwrap();
        assert_eq!(identity.trust_domain(), "cluster.local");
        assert_eq!(identity.namespace(), "shop");
        assert_eq!(identity.service_account(), "cart.v2");
        assert_eq!(
            SpiffeId::new("cluster.local", "shop", "cart.v2").unwrap(),
            identity
        );
    }

    #[test]
    fn what_is_not_exactly_an_identity_is_refused() {
        for text in [
            "",
            "spiffe://",
            "spiffe://d/ns/a/sa/",
            "spiffe://d/ns/a/sa/b/",
            "spiffe://d/ns/a/sa/b/c",
            "spiffe://d/sa/a/ns/b",
            "spiffe://d/ns/../sa/b",
            "spiffe://d/ns/a%2f/sa/b",
            "SPIFFE://d/ns/a/sa/b",
            "https://d/ns/a/sa/b",
        ] {
            assert_eq!(text.parse::<SpiffeId>(), Err(NotAnIdentity), "{text}");
        }
    }
}

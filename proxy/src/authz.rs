//! May this peer do this?
//!
//! Called by `inbound`'s plan for each request and each opaque connection;
//! `upstream::connect` and the application come after. Only this module makes
//! a `Permit`, and forwarding asks for one.
//!
//! Pure. Deny before allow. A deny rule is read widely and an allow rule
//! narrowly, so that spelling can't move a request past either: see `Reading`.
//! What can't be decided is refused.

use std::{borrow::Cow, sync::Arc};

use crate::{
    discovery::{Access, AccessRule, Workload},
    identity::Peer,
    outcome::Reason,
    request::{Request, path},
};

/// Proof that a request or connection was authorized.
#[derive(Debug)]
pub(crate) struct Permit {
    policy: Option<Arc<str>>,
    path: Option<Box<[u8]>>,
}

impl Permit {
    /// The rule that allowed; `None` where no rule speaks.
    pub(crate) fn policy(&self) -> Option<&Arc<str>> {
        self.policy.as_ref()
    }

    /// To be forwarded instead of the request's own path: the form that was judged.
    pub(crate) fn path(&self) -> Option<&[u8]> {
        self.path.as_deref()
    }

    /// For what our own workload sends: the called side decides. `path` is
    /// `route::Choice`'s.
    pub(crate) fn outbound(path: Option<Box<[u8]>>) -> Self {
        Self { policy: None, path }
    }
}

/// Refused, by whom.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Denial {
    pub(crate) reason: Reason,
    /// The rule that denied; `None` where none allowed, or for `strict`.
    pub(crate) policy: Option<Arc<str>>,
}

impl From<Reason> for Denial {
    fn from(reason: Reason) -> Self {
        Self {
            reason,
            policy: None,
        }
    }
}

/// What holds on a port of our workload.
pub(crate) fn access(workload: &Workload, port: u16) -> &Access {
    workload
        .ports
        .get(&port)
        .map_or(&workload.default_access, |port| &port.access)
}

/// Does any rule ask for something that only HTTP has?
pub(crate) fn has_http_conditions(access: &Access) -> bool {
    rules(access).any(|rule| !rule.methods.is_empty() || !rule.path_prefixes.is_empty())
}

/// One request.
pub(crate) fn admit(
    workload: &Workload,
    port: u16,
    peer: &Peer,
    request: &impl Request,
) -> Result<Permit, Denial> {
    let access = access(workload, port);
    check_security(access, peer)?;
    if !is_token(request.method()) {
        return Err(Reason::MalformedRequest.into());
    }
    let path = if rules(access).any(|rule| !rule.path_prefixes.is_empty()) {
        path::canonical(request.path())
            .map_err(|path::Ambiguous| Denial::from(Reason::AmbiguousPath))?
    } else {
        Cow::Borrowed(request.path())
    };
    let policy = decide(
        access,
        peer,
        Some(Http {
            method: request.method(),
            path: &path,
        }),
    )?;
    let path = match path {
        Cow::Borrowed(_) => None,
        Cow::Owned(form) => Some(form.into_boxed_slice()),
    };
    Ok(Permit { policy, path })
}

/// A connection whose bytes are not parsed, at its start and whenever the
/// policy changes. Where a rule asks for HTTP it is refused, whatever the other
/// rules say: a deny rule couldn't be decided.
pub(crate) fn admit_opaque(workload: &Workload, port: u16, peer: &Peer) -> Result<Permit, Denial> {
    let access = access(workload, port);
    check_security(access, peer)?;
    if has_http_conditions(access) {
        return Err(Reason::OpaqueRefused.into());
    }
    Ok(Permit {
        policy: decide(access, peer, None)?,
        path: None,
    })
}

/// The rule that allowed, if any had to.
fn decide(
    access: &Access,
    peer: &Peer,
    http: Option<Http<'_>>,
) -> Result<Option<Arc<str>>, Denial> {
    if let Some(rule) = access
        .deny
        .iter()
        .find(|rule| holds(rule, peer, http, Reading::Wide))
    {
        return Err(Denial {
            reason: Reason::AccessDenied,
            policy: Some(Arc::clone(&rule.policy)),
        });
    }
    match access
        .allow
        .iter()
        .find(|rule| holds(rule, peer, http, Reading::Narrow))
    {
        Some(rule) => Ok(Some(Arc::clone(&rule.policy))),
        None if access.allow.is_empty() && !access.default_deny => Ok(None),
        None => Err(Reason::AccessDenied.into()),
    }
}

#[derive(Clone, Copy)]
struct Http<'a> {
    method: &'a str,
    path: &'a [u8],
}

/// How a condition is compared with what it doesn't literally name.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reading {
    /// Of deny rules: "get" is GET and "/a%21" is "/a!", as a careless
    /// application may read them, and a peer that proves no identity may be
    /// the one that is denied.
    Wide,
    /// Of allow rules: byte for byte (methods: RFC 9110 §9.1), and an identity is proved.
    Narrow,
}

fn holds(rule: &AccessRule, peer: &Peer, http: Option<Http<'_>>, reading: Reading) -> bool {
    let is_wide = reading == Reading::Wide;
    let any = |is_empty: bool, is_met: bool| is_empty || is_met;
    let identity = peer.identity();
    any(
        rule.identities.is_empty(),
        identity.map_or(is_wide, |identity| rule.identities.contains(identity)),
    ) && any(
        rule.namespaces.is_empty(),
        identity.map_or(is_wide, |identity| {
            rule.namespaces
                .iter()
                .any(|name| **name == *identity.namespace())
        }),
    ) && any(
        rule.methods.is_empty(),
        http.map_or(is_wide, |http| method_holds(rule, http.method, reading)),
    ) && any(
        rule.path_prefixes.is_empty(),
        http.map_or(is_wide, |http| path_holds(rule, http.path, reading)),
    )
}

fn method_holds(rule: &AccessRule, method: &str, reading: Reading) -> bool {
    rule.methods.iter().any(|one| match reading {
        Reading::Wide => one.eq_ignore_ascii_case(method),
        Reading::Narrow => **one == *method,
    })
}

fn path_holds(rule: &AccessRule, path: &[u8], reading: Reading) -> bool {
    rule.path_prefixes.iter().any(|prefix| match reading {
        Reading::Wide => path::covers_decoded(prefix, path),
        Reading::Narrow => path::covers(prefix, path),
    })
}

fn check_security(access: &Access, peer: &Peer) -> Result<(), Denial> {
    match peer {
        Peer::Identified(_) => Ok(()),
        Peer::Plaintext | Peer::Local if access.strict => Err(Reason::PlaintextRefused.into()),
        Peer::Plaintext | Peer::Local => Ok(()),
    }
}

fn rules(access: &Access) -> impl Iterator<Item = &AccessRule> {
    access.deny.iter().chain(&access.allow)
}

/// RFC 9110 §5.6.2.
fn is_token(method: &str) -> bool {
    let is_tchar = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !method.is_empty() && method.bytes().all(is_tchar)
}

#[cfg(test)]
mod tests;

//! May this peer do this? Pure.

use std::sync::Arc;

use crate::{
    discovery::{Access, Workload},
    identity::Peer,
    outcome::Reason,
    request::Request,
};

/// Proof that a request or connection was authorized; forwarding asks for one.
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

/// What holds on a port of our workload.
pub(crate) fn access(workload: &Workload, port: u16) -> &Access {
    workload
        .ports
        .get(&port)
        .map_or(&workload.default_access, |port| &port.access)
}

/// Does any rule ask for something that only HTTP has?
pub(crate) fn has_http_conditions(_access: &Access) -> bool {
    unimplemented!()
}

/// One request.
pub(crate) fn admit(
    _workload: &Workload,
    _port: u16,
    _peer: &Peer,
    _request: &impl Request,
) -> Result<Permit, Denial> {
    unimplemented!()
}

/// A connection whose bytes are not parsed, at its start and whenever the policy changes.
pub(crate) fn admit_opaque(
    _workload: &Workload,
    _port: u16,
    _peer: &Peer,
) -> Result<Permit, Denial> {
    unimplemented!()
}

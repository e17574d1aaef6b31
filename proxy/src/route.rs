//! Which rule, which backend. Pure.

use std::{borrow::Cow, sync::Arc};

use crate::{
    discovery::{Backend, Match, RouteTable, Rule, ServicePort},
    outcome::Reason,
    request::Request,
};

/// A route that is attached to a service port.
#[derive(Debug)]
pub(crate) struct Attached {
    /// metadata.creationTimestamp.
    pub(crate) created_milliseconds: i64,
    /// Each rule with its matches, any of which selects it; without any, every
    /// request does.
    pub(crate) rules: Vec<(Vec<Match>, Arc<Rule>)>,
}

/// What `choose` found.
#[derive(Debug)]
pub(crate) struct Choice<'a> {
    pub(crate) backend: &'a Arc<Backend>,
    /// `None`: no route is attached.
    pub(crate) rule: Option<&'a Arc<Rule>>,
    /// To be forwarded instead of the request's own path: the form that was judged.
    pub(crate) path: Option<Box<[u8]>>,
}

/// Orders matches by the precedence of the Gateway API.
pub(crate) fn table(_routes: Vec<Attached>) -> RouteTable {
    unimplemented!()
}

/// The backend of one request. Takes a turn of the rule's weights.
pub(crate) fn choose<'a>(
    _port: &'a ServicePort,
    _request: &impl Request,
) -> Result<Choice<'a>, Reason> {
    let _: Option<Cow<'_, [u8]>> = None;
    unimplemented!()
}

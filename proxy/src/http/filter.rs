//! What a route's filters do before a request goes anywhere: they answer in an
//! endpoint's place, or say what the answer's head will get.
//!
//! Called by `exchange`, once, behind the plan. The request's own edits ride
//! its attempts (`message::Edit`), copies for mirrors its body (`mirror`).
//! A request without filters costs one look at an `Option`.
//!
//! Order: a preflight is answered before all else (HTTPCORSFilter), then a
//! redirect. Of an answer the modifiers come first and CORS last.

use std::sync::Arc;

use http::{HeaderName, HeaderValue, StatusCode, header};
use smallvec::SmallVec;

use crate::{
    discovery::{FieldEdits, Filters, Redirect},
    outcome::Outcome,
    record::Record,
    request::Request,
};

use super::{
    cors,
    exchange::{Call, Plan},
    message::{Answer, Version},
};

/// An answer that has no body.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) fields: SmallVec<[(HeaderName, HeaderValue); 6]>,
}

impl Reply {
    pub(super) fn new(status: StatusCode) -> Self {
        Self {
            status,
            fields: SmallVec::new(),
        }
    }

    /// As an application's answer would be.
    fn edit(&mut self, edits: &FieldEdits) {
        self.fields
            .retain(|(name, _)| !edits.drops(name.as_str().as_bytes()));
        let added = edits.added();
        self.fields
            .extend(added.map(|(name, value)| (name.clone(), value.clone())));
    }
}

/// `Some`: the request ended here.
pub(super) async fn enter<V: Version>(
    plan: &Plan,
    call: &mut Call<V>,
    record: &mut Record,
) -> Option<Outcome> {
    let filters = plan.filters.as_ref()?;
    let path = plan.permit.path();
    let Some(reply) = reply(filters, &call.request, path) else {
        if let Some(edits) = response(filters, &call.request) {
            call.answer.edit(edits);
        }
        return None;
    };
    record.status(reply.status.as_u16());
    Some(match call.answer.reply(reply).await {
        Ok(()) => Outcome::Answered,
        Err(_) => Outcome::CallerLeft,
    })
}

/// What is answered in place of an endpoint. `path` goes before the request's own.
fn reply(filters: &Filters, request: &impl Request, path: Option<&[u8]>) -> Option<Reply> {
    if let Some(reply) = cors::preflight(filters.cors.as_ref(), request) {
        return Some(reply);
    }
    let mut reply = redirect(filters.redirect.as_ref()?, request, path);
    if let Some(edits) = response(filters, request) {
        reply.edit(&edits);
    }
    Some(reply)
}

/// What the answer's head gets; `None`: nothing.
fn response(filters: &Filters, request: &impl Request) -> Option<Arc<FieldEdits>> {
    let modified = &filters.response;
    let cors = filters.cors.as_ref();
    match cors.map(|cors| cors::decoration(cors, request)) {
        Some(decoration) => Some(Arc::new(decoration.after(modified))),
        None if modified.is_empty() => None,
        None => Some(Arc::clone(modified)),
    }
}

fn redirect(to: &Redirect, request: &impl Request, path: Option<&[u8]>) -> Reply {
    let asked = request.header("host").next().unwrap_or_default();
    let host = match (&to.hostname, without_port(asked)) {
        (Some(hostname), _) => hostname.as_bytes(),
        (None, b"") => to.service_host.as_bytes(),
        (None, asked) => asked,
    };
    // "OPTIONS *" has no path to keep.
    let path = path.unwrap_or_else(|| request.path());
    let path = if path.starts_with(b"/") { path } else { b"/" };
    let mut location = Vec::with_capacity(64 + path.len());
    for part in [to.scheme.as_bytes(), b"://", host, to.port.as_bytes(), path] {
        location.extend_from_slice(part);
    }
    if let Some(query) = request.query() {
        location.push(b'?');
        location.extend_from_slice(query);
    }
    let mut reply = Reply::new(StatusCode::from_u16(to.status).unwrap_or(StatusCode::FOUND));
    // Of parts that were parsed, so it is a field's value.
    if let Ok(location) = HeaderValue::from_maybe_shared(bytes::Bytes::from(location)) {
        reply.fields.push((header::LOCATION, location));
    }
    reply
}

/// Of `Host` or `:authority`.
fn without_port(authority: &[u8]) -> &[u8] {
    let digits = authority
        .iter()
        .rev()
        .take_while(|byte| byte.is_ascii_digit())
        .count();
    let end = authority.len() - digits;
    match authority.get(..end) {
        Some([host @ .., b':']) if !host.is_empty() => host,
        _ => authority,
    }
}

#[cfg(test)]
mod tests;

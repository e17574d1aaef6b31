//! What decisions see of a request, whatever its protocol.
//!
//! Data. `http` implements `Request` for the heads of both protocols; `route`
//! and `authz` decide over it. Paths are judged in the one form that `path`
//! makes of them, and that form is what is forwarded. Never sees a body.

pub(crate) mod path;
pub(crate) mod query;
#[cfg(test)]
pub(crate) mod samples;

/// The head of a request.
pub(crate) trait Request {
    /// As it was sent: methods are case-sensitive (RFC 9110 §9.1).
    fn method(&self) -> &str;

    /// Without the query; empty or "*" where the target has no path.
    fn path(&self) -> &[u8];

    /// What follows the first `?`.
    fn query(&self) -> Option<&[u8]>;

    /// Values of one header, in order, without surrounding white space;
    /// `name` is lower-case.
    fn header<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]>;
}

/// gRPC over HTTP/2, "Requests": by its content type alone.
pub(crate) fn is_grpc(request: &impl Request) -> bool {
    request.header("content-type").any(|kind| {
        let rest = kind.strip_prefix(b"application/grpc");
        rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
    })
}

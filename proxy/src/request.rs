//! What decisions see of a request, whatever its protocol.
//!
//! Data. `http` implements `Request` for the heads of both protocols; `route`
//! and `authz` decide over it. Paths are judged in the one form that `path`
//! makes of them, and that form is what is forwarded. Never sees a body.

pub(crate) mod path;
#[cfg(test)]
pub(crate) mod samples;

/// The head of a request.
pub(crate) trait Request {
    /// As it was sent: methods are case-sensitive (RFC 9110 §9.1).
    fn method(&self) -> &str;

    /// Without the query; empty or "*" where the target has no path.
    fn path(&self) -> &[u8];

    /// Values of one header, in order, without surrounding white space;
    /// `name` is lower-case.
    fn header<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]>;
}

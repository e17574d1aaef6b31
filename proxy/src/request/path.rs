//! One form for every path, or none.

use std::borrow::Cow;

/// The path has no single canonical form.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Ambiguous;

/// The canonical form of a request's path; borrowed where it is that already.
pub(crate) fn canonical(_raw: &[u8]) -> Result<Cow<'_, [u8]>, Ambiguous> {
    unimplemented!()
}

/// The canonical form of a rule's segment prefix, without its trailing slash.
pub(crate) fn prefix(_text: &str) -> Result<Box<str>, Ambiguous> {
    unimplemented!()
}

//! A snapshot of what one message says, for those who ask and send nothing.
//!
//! Called by `decide`. The same `decode` and `store` as the client's; here a
//! rejected resource is an error, since nobody holds a last good one.

use std::sync::Arc;

pub(crate) use super::decode::unknown_fields;
use super::{decode, store::Store};
use crate::discovery::Snapshot;

/// # Errors
/// `None` where the bytes are no message, else which resource is rejected and why.
pub(crate) fn snapshot(message: &[u8]) -> Result<Arc<Snapshot>, Option<(String, String)>> {
    let response = decode::response_from_bytes(message).ok_or(None)?;
    if let Some((_, invalid)) = response.nameless.first() {
        return Err(Some(("a resource".to_owned(), invalid.to_string())));
    }
    let mut store = Store::new();
    let applied = store.apply(response.resources, &response.removed);
    match applied.rejected.into_iter().next() {
        Some((key, _, invalid)) => Err(Some((key.to_string(), invalid.to_string()))),
        None => Ok(store.snapshot()),
    }
}

//! The wire protocol between proxies and control plane: generated code alone.
//!
//! `weft/v1/*.proto` beside this crate is the reference. `tests/regenerate.rs`
//! compiles it again and fails when `src/gen` differs; run it with
//! `WEFT_REGENERATE=1` to update. Never holds logic.

#[allow(
    clippy::all,
    clippy::allow_attributes_without_reason,
    unreachable_pub,
    unused_qualifications,
    elided_lifetimes_in_paths,
    reason = "generated"
)]
#[rustfmt::skip] // As the generator wrote it, so that the comparison holds.
#[path = "gen/weft.v1.rs"]
pub mod v1;

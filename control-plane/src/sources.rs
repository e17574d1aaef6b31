//! Where objects come from: each source turns them into the same events.
//!
//! Feeds `index`, by way of `app`. A source knows its origin (a directory, later
//! a cluster) and shares `manifest`, which turns typed objects into the model.
//! Never joins: what an object refers to need not exist here.

pub(crate) mod files;
pub(crate) mod manifest;

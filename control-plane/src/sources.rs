//! Where objects come from: each source turns them into the same events.
//!
//! Feeds `index`, by way of `app`. A source knows its origin (a directory or a
//! cluster) and shares `manifest`, which turns typed objects into the model.
//! Never joins: what an object refers to need not exist here.

pub(crate) mod files;
pub(crate) mod kubernetes;
pub(crate) mod manifest;

use crate::model::{Event, FileProblem, Moved};

/// What has changed.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Update {
    pub(crate) events: Vec<Event>,
    /// Where objects are written that were written elsewhere, or not at all.
    pub(crate) moved: Vec<Moved>,
    /// All that are wrong now.
    pub(crate) problems: Vec<FileProblem>,
    /// Whoever has this one has all that there is; the first ones may be parts.
    pub(crate) is_whole: bool,
}

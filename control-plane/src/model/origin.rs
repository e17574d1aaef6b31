//! Where an object was written, for whoever has to correct it.
//!
//! Beside the objects and never in them: an object that moves to another place
//! is still the same, so nobody but operators hears of it.

use super::Key;

/// A document of a file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Origin {
    /// Path below the watched directory, or whole, as `FileProblem` has it.
    pub file: String,
    /// From 0.
    pub document: usize,
}

/// An object is written there now; `None`: nowhere any more.
pub type Moved = (Key, Option<Origin>);

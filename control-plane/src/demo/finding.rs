//! What a step saw, and whether that is what should be seen.
//!
//! Made by the steps, shown by `demo::board`, written out by `demo::summary`.

use serde_json::{Map, Value};

#[derive(Debug, Default)]
pub(crate) struct Finding {
    /// In a sentence, with its numbers.
    pub(crate) told: String,
    pub(crate) measured: Map<String, Value>,
    /// Each a sentence; empty: all is well.
    pub(crate) wrong: Vec<String>,
}

impl Finding {
    pub(crate) fn measure(&mut self, name: &str, value: impl Into<Value>) {
        self.measured.insert(name.to_owned(), value.into());
    }

    /// What must hold, and what it means if not.
    pub(crate) fn check(&mut self, holds: bool, otherwise: impl FnOnce() -> String) {
        if !holds {
            self.wrong.push(otherwise());
        }
    }

    pub(crate) fn is_ok(&self) -> bool {
        self.wrong.is_empty()
    }
}

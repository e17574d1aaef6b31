//! Where the requests of a connection go, told apart without a look-up.
//!
//! Used by `record` to find a connection's series again.

use std::sync::Arc;

use crate::discovery::{Backend, BackendCells, Rule, RuleCells};

/// How a connection recognises a destination: cells outlive snapshots and are
/// held here, so that their addresses can't be given to another one meanwhile.
#[derive(Clone, Debug, Default)]
pub(super) struct Destination {
    pub(super) rule: Option<Arc<RuleCells>>,
    pub(super) backend: Option<Arc<BackendCells>>,
}

impl Destination {
    pub(super) fn is(&self, rule: Option<&Arc<Rule>>, backend: Option<&Arc<Backend>>) -> bool {
        same(self.rule.as_ref(), rule.map(|rule| &rule.cells))
            && same(self.backend.as_ref(), backend.map(|backend| &backend.cells))
    }
}

fn same<T>(one: Option<&Arc<T>>, other: Option<&Arc<T>>) -> bool {
    one.map(Arc::as_ptr) == other.map(Arc::as_ptr)
}

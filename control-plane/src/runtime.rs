//! The one place that spawns: every task has an owner and ends with it.
//!
//! Ground. The control plane runs on tokio's multi-threaded runtime: a push to
//! a thousand proxies is a thousand TLS writes, and they spread over the cores.
//! What must be ordered (the index) lives in one task and is asked by message.

use std::future::Future;

use tokio::task::{AbortHandle, JoinSet};

/// A running task; dropping it ends the task.
#[derive(Debug)]
pub(crate) struct Task(AbortHandle);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Runs `work` beside the caller for as long as the answer is kept.
#[allow(
    clippy::disallowed_methods,
    reason = "this is the one place that spawns"
)]
pub(crate) fn spawn(work: impl Future<Output = ()> + Send + 'static) -> Task {
    Task(tokio::spawn(work).abort_handle())
}

/// Many short tasks of one owner; dropping it ends them all.
#[derive(Debug, Default)]
pub(crate) struct Tasks(JoinSet<()>);

impl Tasks {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn spawn(&mut self, work: impl Future<Output = ()> + Send + 'static) {
        // Finished ones are forgotten here, so the set holds what runs.
        while self.0.try_join_next().is_some() {}
        self.0.spawn(work);
    }
}

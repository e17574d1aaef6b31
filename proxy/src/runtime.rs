//! The threading choice: workers that share nothing, and one runtime beside them.
//!
//! Ground. A worker is a thread with its own single-threaded runtime, so the
//! path needs neither locks nor `Send`. Control client, admin and certificates
//! run on the side runtime, so that a scrape cannot hurt the tail. Every task
//! is spawned here and owned by a `Tasks`; no other module spawns.

use std::{future::Future, io, thread};

use tokio::{
    runtime::{Builder, LocalOptions},
    task::JoinSet,
};

/// Runs `story` on a new thread with a single-threaded runtime of its own.
///
/// # Errors
/// When the system gives no thread or no runtime.
pub(crate) fn worker<F, Story>(name: &str, story: F) -> io::Result<thread::JoinHandle<()>>
where
    F: FnOnce() -> Story + Send + 'static,
    Story: Future<Output = ()>,
{
    let runtime_of = || {
        Builder::new_current_thread()
            .enable_all()
            .build_local(LocalOptions::default())
    };
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || match runtime_of() {
            Ok(runtime) => runtime.block_on(async move { story().await }),
            Err(error) => tracing::error!(%error, "worker runtime refused"),
        })
}

/// Runs `story` on this thread, the side runtime's.
///
/// # Errors
/// When the system gives no runtime.
pub(crate) fn main<Story: Future>(story: Story) -> io::Result<Story::Output> {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())?;
    Ok(runtime.block_on(story))
}

/// Tasks of one owner on this thread's runtime; dropping it ends them.
#[derive(Debug, Default)]
pub(crate) struct Tasks(JoinSet<()>);

impl Tasks {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Runs beside its owner, on the same thread.
    #[allow(
        clippy::disallowed_methods,
        reason = "this is the one place that spawns"
    )]
    pub(crate) fn spawn(&mut self, task: impl Future<Output = ()> + 'static) {
        // Finished ones are forgotten here, so the set holds what runs.
        while self.0.try_join_next().is_some() {}
        self.0.spawn_local(task);
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Resolves when all have ended.
    pub(crate) async fn ended(&mut self) {
        while self.0.join_next().await.is_some() {}
    }
}

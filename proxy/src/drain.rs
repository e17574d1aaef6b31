//! The two ends of a proxy's life, told to everyone who carries traffic.
//!
//! Ground. `Phase::Draining` keeps serving while connections are retired;
//! `Phase::Stopping` means that the application has ended: finish what is in
//! flight and leave. Phases only move forward.

use tokio::sync::watch;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Phase {
    Serving,
    Draining,
    Stopping,
}

/// Moves the phase forward.
#[derive(Debug)]
pub(crate) struct Control(watch::Sender<Phase>);

/// Sees the phase. Cheap to clone; one per worker and connection.
#[derive(Clone, Debug)]
pub(crate) struct Watch(watch::Receiver<Phase>);

pub(crate) fn channel() -> (Control, Watch) {
    let (sender, receiver) = watch::channel(Phase::Serving);
    (Control(sender), Watch(receiver))
}

impl Control {
    /// Earlier phases are ignored.
    pub(crate) fn advance(&self, phase: Phase) {
        self.0.send_if_modified(|now| {
            let later = phase > *now;
            if later {
                *now = phase;
            }
            later
        });
    }
}

impl Watch {
    pub(crate) fn phase(&self) -> Phase {
        *self.0.borrow()
    }

    /// Resolves once the phase is `phase` or later; never when its control is gone before.
    pub(crate) async fn reached(&mut self, phase: Phase) {
        if self.0.wait_for(|now| *now >= phase).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

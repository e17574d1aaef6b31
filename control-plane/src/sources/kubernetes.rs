//! The Kubernetes source: the objects of a cluster, watched.
//!
//! Before `index`, by way of `app`. One `reflect` loop for each row of `kinds`
//! reads all objects and then follows their changes; `told` turns what it sees
//! into events, and `merge` puts the events of all kinds in order. Nothing is
//! told before every kind that the cluster has was read once.
//!
//! Reads and watches, never writes. Each object is parsed alone: one that can't
//! be taken is a problem, and its last good state holds.

mod closed;
mod kinds;
mod merge;
pub(crate) mod metrics;
mod pruned;
mod reflect;
mod templates;
#[cfg(test)]
mod tests;
mod told;
mod unread;
mod wire;

use kube::Client;
use tokio::sync::mpsc;

use crate::{runtime::Tasks, sources::Update};
use kinds::WATCHED;
use merge::Merge;
use metrics::Metrics;
use reflect::Reflector;

/// Watches until the receiver is gone.
pub(crate) async fn watch(client: Client, metrics: Metrics, updates: mpsc::Sender<Update>) {
    let (sender, mut receiver) = mpsc::channel(BATCH);
    let mut tasks = Tasks::new();
    for reflector in Reflector::all(&client, &metrics, &sender) {
        tasks.spawn(reflector.run());
    }
    let mut merge = Merge::new(&WATCHED);
    loop {
        let mut news = Vec::new();
        tokio::select! {
            count = receiver.recv_many(&mut news, BATCH) => if count == 0 { return },
            () = updates.closed() => return,
        }
        for update in merge.take(news) {
            if updates.send(update).await.is_err() {
                return;
            }
        }
    }
}

/// What is there at once becomes one update.
const BATCH: usize = 256;

//! Warning events beside the objects that they are about, for `kubectl describe`.
//!
//! Best effort, and never on anyone's path: what an event says is also logged,
//! and what matters is also a metric.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};

use crate::cluster::{Cluster, call};

#[derive(Clone)]
pub(crate) struct Warnings {
    recorder: Recorder,
    about: ObjectReference,
}

impl Warnings {
    pub(crate) fn about_secret(cluster: &Cluster, secret: &str) -> Self {
        let reporter = Reporter {
            controller: "weft-control-plane".to_owned(),
            instance: Some(cluster.replica.clone()),
        };
        Self {
            recorder: Recorder::new(cluster.client.clone(), reporter),
            about: ObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Secret".to_owned()),
                namespace: Some(cluster.namespace.clone()),
                name: Some(secret.to_owned()),
                ..ObjectReference::default()
            },
        }
    }

    /// `reason` in CamelCase: one per kind of trouble, so that repeats add up.
    pub(crate) async fn warn(&self, reason: &str, note: &str) {
        let event = Event {
            type_: EventType::Warning,
            reason: reason.to_owned(),
            // The API's limit is 1 KiB.
            note: Some(note.chars().take(1000).collect()),
            action: "Watch".to_owned(),
            secondary: None,
        };
        if let Err(error) = call(self.recorder.publish(&event, &self.about)).await {
            tracing::warn!(%error, reason, note, "an event could not be written");
        }
    }
}

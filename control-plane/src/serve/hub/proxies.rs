//! What proxies ask, acknowledge and reject, and what they have yet to get.
//!
//! Part of `hub`; what the sources say is in `hub/changes.rs`.

use std::{collections::HashMap, sync::Arc};

use tokio::{sync::Notify, time::Instant};
use weft_proto::v1;

use crate::{
    identity::spiffe,
    model::Name,
    serve::{
        hub::{Batch, Certified, State, Stranger},
        render::{Features, View},
        resource::{self, ResourceName, Version},
        shelf::{Closure, World},
        stream::{Caller, Stream, StreamId},
    },
};

/// How many names one proxy may ask for.
const MOST_ASKED: usize = 20_000;
/// A response is closed at this size; what is left follows in the next. gRPC
/// readers take 4 MiB by default.
const RESPONSE: usize = 1024 * 1024;

impl State {
    /// Whether this pod exists and runs as this account. An empty UID is one
    /// that the other side does not know.
    pub(crate) fn recognize(
        &self,
        pod: &Name,
        uid: &str,
        service_account: &str,
    ) -> Result<String, Stranger> {
        if !self.synced {
            return Err(Stranger::NotReady);
        }
        let Some(workload) = self.index.workload(pod) else {
            return Err(Stranger::Pod(pod.clone()));
        };
        let known = workload.pod;
        if !uid.is_empty() && !known.uid.is_empty() && uid != known.uid {
            return Err(Stranger::Uid);
        }
        // Of a pod outside of the mesh its metadata alone is kept.
        if known.service_account.is_empty() {
            return Err(Stranger::Pod(pod.clone()));
        }
        if known.service_account != service_account {
            return Err(Stranger::Account);
        }
        Ok(spiffe(
            &self.trust_domain,
            &Name::new(&pod.namespace, service_account),
        ))
    }

    /// A pod without any has ended, or has only just begun.
    pub(crate) fn has_addresses(&self, pod: &Name) -> bool {
        let workload = self.index.workload(pod);
        workload.is_some_and(|it| !it.pod.addresses.is_empty())
    }

    pub(crate) fn certified(&mut self, pod: Name, certified: Certified) {
        self.certificates.insert(pod, certified);
        self.stir();
    }

    /// A stream for a caller that `recognize` has answered for. A pod has one:
    /// an earlier one is a half-dead connection and ends.
    pub(crate) fn join(
        &mut self,
        caller: Caller,
        wake: &Arc<Notify>,
        held: HashMap<ResourceName, Version>,
    ) -> StreamId {
        self.sweep();
        self.last_id += 1;
        let id = StreamId(self.last_id);
        let pod = caller.pod.clone();
        if let Some(stream) = self
            .pods
            .insert(pod.clone(), id)
            .and_then(|it| self.streams.get_mut(&it))
        {
            stream.end("a newer stream of this pod took over");
        }
        let features = Features::parse(&caller.features);
        let view = View {
            features,
            namespace: pod.namespace.as_str().into(),
        };
        self.streams
            .insert(id, Stream::new(caller, view, wake, held));
        self.stir();
        for name in [
            ResourceName::Mesh,
            ResourceName::TrustBundle,
            ResourceName::Workload(pod),
        ] {
            self.subscribe(id, name);
        }
        self.metrics
            .streams
            .set(i64::try_from(self.streams.len()).unwrap_or(i64::MAX));
        id
    }

    pub(crate) fn leave(&mut self, id: StreamId) {
        let Some(stream) = self.streams.remove(&id) else {
            return;
        };
        for name in stream.interests.keys() {
            self.shelf.release(name, &stream.view, id);
        }
        self.stir();
        if self.pods.get(&stream.caller.pod) == Some(&id) {
            self.pods.remove(&stream.caller.pod);
        }
        self.metrics
            .streams
            .set(i64::try_from(self.streams.len()).unwrap_or(i64::MAX));
        self.metrics
            .resources
            .set(i64::try_from(self.shelf.len()).unwrap_or(i64::MAX));
    }

    /// # Errors
    /// What a proxy may not ask for.
    pub(crate) fn ask_for(
        &mut self,
        id: StreamId,
        name: ResourceName,
        refresh: bool,
    ) -> Result<(), &'static str> {
        let Some(stream) = self.streams.get_mut(&id) else {
            return Ok(());
        };
        if refresh && let Some(interest) = stream.interests.get_mut(&name) {
            interest.sent = 0;
            stream.mark(&name, None);
            return Ok(());
        }
        if !matches!(name, ResourceName::Address(_) | ResourceName::Service(_)) {
            // A refresh of what has just been removed is no mistake.
            return if refresh {
                Ok(())
            } else {
                Err("only addresses and services can be subscribed to")
            };
        }
        if stream.asked.len() >= MOST_ASKED {
            return Err("too many subscriptions");
        }
        self.subscribe(id, name);
        Ok(())
    }

    fn subscribe(&mut self, id: StreamId, name: ResourceName) {
        let Self {
            index,
            roots,
            trust_domain,
            shelf,
            streams,
            ..
        } = self;
        let Some(stream) = streams.get(&id).filter(|it| !it.asked.contains_key(&name)) else {
            return;
        };
        let closure = shelf
            .obtain(
                World {
                    index,
                    roots,
                    trust_domain,
                },
                &name,
                &stream.view,
            )
            .closure
            .clone();
        self.bring(id, name, closure);
    }

    pub(crate) fn unsubscribe(&mut self, id: StreamId, name: &ResourceName) {
        if matches!(name, ResourceName::Address(_) | ResourceName::Service(_))
            && let Some(stream) = self.streams.get_mut(&id)
            && let Some(closure) = stream.asked.remove(name)
        {
            self.release(id, &closure);
        }
    }

    /// What `name` brings along is now this. What is no longer needed is
    /// released after what is needed now is there.
    pub(super) fn bring(&mut self, id: StreamId, name: ResourceName, closure: Closure) {
        let Self {
            index,
            roots,
            trust_domain,
            shelf,
            streams,
            ..
        } = self;
        let world = World {
            index,
            roots,
            trust_domain,
        };
        let Some(stream) = streams.get_mut(&id) else {
            return;
        };
        for needed in closure.iter() {
            let entry = shelf.obtain(world, needed, &stream.view);
            entry.subscribers.insert(id);
            stream.acquire(needed, entry.version);
        }
        if let Some(former) = stream.asked.insert(name, closure) {
            self.release(id, &former);
        }
        self.metrics
            .resources
            .set(i64::try_from(self.shelf.len()).unwrap_or(i64::MAX));
    }

    fn release(&mut self, id: StreamId, closure: &Closure) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        for name in closure.iter() {
            if stream.release(name) {
                self.shelf.release(name, &stream.view, id);
            }
        }
    }

    /// What the stream has yet to get. With `heartbeat`, also the newest
    /// version of everything, once nothing is left.
    pub(crate) fn pull(&mut self, id: StreamId, heartbeat: Option<u32>) -> Batch {
        let Some(stream) = self.streams.get_mut(&id) else {
            return Batch {
                ended: Some("forgotten"),
                ..Batch::default()
            };
        };
        let mut batch = Batch {
            ended: stream.ended,
            ..Batch::default()
        };
        let mut size = 0;
        while size < RESPONSE
            && let Some((name, since)) = stream.pending.pop_first()
        {
            let (Some(interest), Some(entry)) = (
                stream.interests.get_mut(&name),
                self.shelf.find_mut(&name, &stream.view),
            ) else {
                continue;
            };
            if interest.sent == entry.version {
                continue;
            }
            let bytes = entry.bytes(&name, interest.sent);
            interest.sent = entry.version;
            size += bytes.len();
            batch.parts.push(bytes);
            batch.content.push((name, entry.version));
            batch.since = batch.since.min(since).or(batch.since).or(since);
        }
        batch.more = !stream.pending.is_empty();
        if batch.more {
            return batch;
        }
        while let Some(name) = stream.removed.pop_first() {
            batch.parts.push(resource::encode_removed(&name));
        }
        if let Some(interval) = heartbeat {
            // What it held and has not asked for again, it no longer needs.
            if stream.heard != stream.since {
                for name in stream.held.drain().map(|(name, _)| name) {
                    batch.parts.push(resource::encode_removed(&name));
                }
            }
            let shelf = &self.shelf;
            let newest = stream.interests.keys().filter_map(|name| {
                let version = shelf.find(name, &stream.view)?.version;
                Some(v1::Held {
                    name: Some(name.to_proto()),
                    version,
                })
            });
            let heartbeat = v1::Heartbeat {
                newest: newest.collect(),
                interval_milliseconds: interval,
            };
            batch.parts.push(resource::encode_heartbeat(&heartbeat));
        }
        batch
    }

    pub(crate) fn acknowledge(
        &mut self,
        id: StreamId,
        applied: &[(ResourceName, Version)],
        since: Option<Instant>,
    ) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.acknowledge(applied);
            if !applied.is_empty() {
                self.stir();
            }
            if let Some(since) = since {
                self.metrics
                    .propagation
                    .observe(since.elapsed().as_secs_f64());
            }
        }
    }

    pub(crate) fn reject(
        &mut self,
        id: StreamId,
        name: &ResourceName,
        version: Version,
        reason: &str,
    ) {
        if let Some(stream) = self.streams.get_mut(&id) {
            tracing::warn!(pod = %stream.caller.pod, %name, version, reason, "a proxy rejected a resource");
            stream.reject(name, version, reason);
            self.metrics.rejects.inc();
            self.stir();
        }
    }

    /// The pod may be gone, replaced, or run as another account.
    pub(super) fn judge_again(&mut self, pod: &Name) {
        let Some(caller) = self
            .pods
            .get(pod)
            .and_then(|id| self.streams.get(id))
            .map(|it| it.caller.clone())
        else {
            if self.index.workload(pod).is_none() {
                self.certificates.remove(pod);
            }
            return;
        };
        let stranger = match self.recognize(pod, &caller.uid, &caller.service_account) {
            Ok(_) | Err(Stranger::NotReady) => return,
            Err(Stranger::Pod(_)) => {
                self.certificates.remove(pod);
                "its pod is gone"
            }
            Err(Stranger::Uid) => "its pod was replaced",
            Err(Stranger::Account) => "its pod runs as another service account",
        };
        if let Some(stream) = self.pods.get(pod).and_then(|id| self.streams.get_mut(id)) {
            stream.end(stranger);
        }
    }

    /// Streams whose session ended without a word.
    fn sweep(&mut self) {
        let gone: Vec<StreamId> = self
            .streams
            .iter()
            .filter(|(_, it)| it.is_gone())
            .map(|(id, _)| *id)
            .collect();
        for id in gone {
            self.leave(id);
        }
    }
}

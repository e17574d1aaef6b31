//! The endpoints of one service port, encoded one by one.
//!
//! `entry` puts what `index` says; `bytes` answers with what changed since the
//! version that a proxy was sent, or with the whole. The version is a sum over
//! the endpoints, so a change costs that endpoint alone.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;

use crate::{
    model::Endpoint,
    serve::{
        render,
        resource::{self, ResourceName, Version},
    },
};

/// How many changes a proxy may miss and still get them alone.
const LOG: usize = 256;

/// The endpoints of one service port.
#[derive(Debug)]
pub(super) struct Set {
    seed: u64,
    sum: u64,
    endpoints: BTreeMap<String, (u64, Bytes)>,
    /// The version before each change, and which endpoint it was.
    log: VecDeque<(Version, String)>,
    whole: Option<Bytes>,
    /// The last delta: (from, to). Most proxies hold the same version.
    delta: Option<(Version, Version, Bytes)>,
}

impl Set {
    pub(super) fn new(name: &ResourceName) -> Self {
        let seed = resource::hash(name.to_proto().name.as_bytes());
        Self {
            seed,
            sum: 0,
            endpoints: BTreeMap::new(),
            log: VecDeque::new(),
            whole: None,
            delta: None,
        }
    }

    /// No proxy was sent anything before this.
    pub(super) fn forget_changes(&mut self) {
        self.log.clear();
    }

    pub(super) fn version(&self) -> Version {
        resource::mix(self.sum ^ self.seed).max(1)
    }

    pub(super) fn update(&mut self, uid: &str, now: Option<&Endpoint>, trust_domain: &str) -> bool {
        let now = now.map(|it| resource::encode_endpoint(&render::endpoint(it, trust_domain)));
        self.put(uid, now)
    }

    fn put(&mut self, uid: &str, now: Option<(u64, Bytes)>) -> bool {
        if self.endpoints.get(uid) == now.as_ref() {
            return false;
        }
        self.log.push_back((self.version(), uid.to_owned()));
        if self.log.len() > LOG {
            self.log.pop_front();
        }
        if let Some((hash, _)) = self.endpoints.remove(uid) {
            self.sum = self.sum.wrapping_sub(hash);
        }
        if let Some(it) = now {
            self.sum = self.sum.wrapping_add(it.0);
            self.endpoints.insert(uid.to_owned(), it);
        }
        self.whole = None;
        true
    }

    pub(super) fn replace(&mut self, mut new: Self) {
        let gone: Vec<String> = self
            .endpoints
            .keys()
            .filter(|it| !new.endpoints.contains_key(*it))
            .cloned()
            .collect();
        for uid in gone {
            self.put(&uid, None);
        }
        for (uid, it) in std::mem::take(&mut new.endpoints) {
            self.put(&uid, Some(it));
        }
    }

    pub(super) fn bytes(&mut self, name: &ResourceName, sent: Version) -> Bytes {
        let now = self.version();
        if let Some((from, to, bytes)) = &self.delta
            && (*from, *to) == (sent, now)
        {
            return bytes.clone();
        }
        // The latest occurrence: equal versions are equal content.
        let changed = self
            .log
            .iter()
            .rposition(|(before, _)| *before == sent)
            .map(|at| {
                let uids: BTreeSet<&str> = self
                    .log
                    .iter()
                    .skip(at)
                    .map(|(_, uid)| uid.as_str())
                    .collect();
                uids
            });
        match changed {
            Some(uids) if sent != 0 && uids.len() <= self.endpoints.len() => {
                let updated = uids
                    .iter()
                    .filter_map(|uid| self.endpoints.get(*uid))
                    .map(|(_, bytes)| bytes);
                let removed: Vec<&str> = uids
                    .iter()
                    .copied()
                    .filter(|uid| !self.endpoints.contains_key(*uid))
                    .collect();
                let bytes = resource::encode_endpoints(name, now, Some(sent), updated, &removed);
                self.delta = Some((sent, now, bytes.clone()));
                bytes
            }
            _ => {
                let endpoints = &self.endpoints;
                let whole = || {
                    resource::encode_endpoints(
                        name,
                        now,
                        None,
                        endpoints.values().map(|it| &it.1),
                        &[],
                    )
                };
                self.whole.get_or_insert_with(whole).clone()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use weft_proto::v1::{self, resource::Body};

    use crate::model::{BackendName, Name};

    use super::*;

    fn name() -> ResourceName {
        ResourceName::Endpoints(BackendName {
            service: Name::new("shop", "cart"),
            port: 80,
        })
    }

    fn endpoint(uid: &str, weight: u32) -> (u64, Bytes) {
        resource::encode_endpoint(&v1::Endpoint {
            uid: uid.to_owned(),
            weight,
            ..v1::Endpoint::default()
        })
    }

    fn decode(bytes: &Bytes) -> (Version, v1::Endpoints) {
        let response = v1::WatchResponse::decode(bytes.clone()).unwrap();
        let resource = response.resources.into_iter().next().unwrap();
        let Some(Body::Endpoints(endpoints)) = resource.body else {
            panic!("no endpoints")
        };
        (resource.version, endpoints)
    }

    #[test]
    fn the_version_of_a_set_depends_on_its_content_alone() {
        let (mut a, mut b) = (Set::new(&name()), Set::new(&name()));
        a.put("x", Some(endpoint("x", 1)));
        a.put("y", Some(endpoint("y", 1)));
        b.put("y", Some(endpoint("y", 7)));
        b.put("z", Some(endpoint("z", 1)));
        b.put("x", Some(endpoint("x", 1)));
        assert_ne!(a.version(), b.version());
        b.put("z", None);
        b.put("y", Some(endpoint("y", 1)));
        assert_eq!(a.version(), b.version());
    }

    #[test]
    fn a_delta_holds_what_changed_since_the_version_that_was_sent() {
        let mut set = Set::new(&name());
        for uid in ["a", "b", "c", "d"] {
            set.put(uid, Some(endpoint(uid, 1)));
        }
        let sent = set.version();
        set.put("a", Some(endpoint("a", 2)));
        set.put("b", None);
        set.put("a", Some(endpoint("a", 3)));
        let (version, delta) = decode(&set.bytes(&name(), sent));
        assert_eq!(version, set.version());
        assert!(!delta.whole && delta.base == sent);
        assert_eq!(
            delta
                .added_or_updated
                .iter()
                .map(|it| (it.uid.as_str(), it.weight))
                .collect::<Vec<_>>(),
            [("a", 3)]
        );
        assert_eq!(delta.removed, ["b"]);
    }

    #[test]
    fn a_proxy_that_missed_more_than_the_log_gets_the_whole_set() {
        let mut set = Set::new(&name());
        for at in 0..10 {
            set.put(&at.to_string(), Some(endpoint("x", at)));
        }
        let sent = set.version();
        for weight in 0..300 {
            set.put("0", Some(endpoint("0", weight + 100)));
        }
        let (_, whole) = decode(&set.bytes(&name(), sent));
        assert!(whole.whole && whole.added_or_updated.len() == 10);
        assert!(set.log.len() <= LOG);
    }
}

//! Who holds the newest bundle, and in which root each pod's leaf ends.
//!
//! Part of `hub`. Asked by who moves roots; a pod without a stream to us is
//! there too, so that nobody is forgotten.

use crate::{
    model::Name,
    roots::Fingerprint,
    serve::{hub::State, resource::ResourceName, stream::Stream, tls::Signed},
};

/// Of one live pod of the mesh.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Holding {
    pub(crate) pod: Name,
    /// It has acknowledged the newest bundle here.
    pub(crate) holds_newest: bool,
    /// In which the newest leaf that we know of ends.
    pub(crate) leaf: Option<Fingerprint>,
}

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Holdings {
    /// Of the newest bundle.
    pub(crate) roots: Vec<Fingerprint>,
    pub(crate) pods: Vec<Holding>,
}

impl State {
    /// `None`: the source has not been read, so nobody knows who lives.
    pub(crate) fn holdings(&self) -> Option<Holdings> {
        if !self.synced {
            return None;
        }
        let pods = self.index.meshed_pods().map(|pod| {
            let stream = self.pods.get(&pod.name);
            let stream = stream.and_then(|id| self.streams.get(id)).filter(|it| {
                let is_its = it.caller.uid.is_empty() || it.caller.uid == pod.uid;
                is_its && !it.is_gone() && it.ended.is_none()
            });
            let issued = self.certificates.get(&pod.name).map(|it| Signed {
                issued: it.issued,
                root: it.root,
            });
            let shown = stream.map(|it| it.caller.signed);
            Holding {
                pod: pod.name.clone(),
                holds_newest: stream.is_some_and(|it| self.holds_newest(it)),
                leaf: issued.max(shown).map(|it| it.root),
            }
        });
        Some(Holdings {
            roots: self.roots.iter().map(Fingerprint::of).collect(),
            pods: pods.collect(),
        })
    }

    fn holds_newest(&self, stream: &Stream) -> bool {
        let name = ResourceName::TrustBundle;
        let newest = self.shelf.find(&name, &stream.view).map(|it| it.version);
        let held = stream.interests.get(&name).map(|it| it.acknowledged);
        newest.is_some() && newest == held
    }
}

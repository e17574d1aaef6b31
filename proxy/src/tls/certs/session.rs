//! How long a connection may live: until a certificate of either end does, or
//! until the peer's root is removed.
//!
//! Part of `certs`. Made by a finished handshake; whoever owns the connection
//! waits for `retired` and `ended`.

use std::{sync::Arc, time::Duration};

use tokio_rustls::rustls::pki_types::TrustAnchor;

use super::{Bundle, Certificate, Store};
use crate::{identity::SpiffeId, tls::verify};

/// What a finished handshake proved, and how long that holds.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    /// Proved by its certificate.
    #[cfg_attr(not(test), allow(dead_code, reason = "for tests and debug lines"))]
    pub(crate) peer: SpiffeId,
    root: Arc<TrustAnchor<'static>>,
    /// When the first certificate of both ends expires, since the Unix epoch.
    pub(crate) ends: Duration,
    /// When an end that can move its traffic elsewhere should begin to: at
    /// 80 % of what was left, long after the renewal at 60 % of a life.
    pub(crate) retires: Duration,
}

impl Session {
    pub(in crate::tls) fn new(
        proof: verify::Proof,
        own: Option<&Certificate>,
        now: Duration,
    ) -> Self {
        let ours = own.map_or(Duration::MAX, |own| own.not_after);
        let ends = proof.chain.ends.min(ours);
        let retires = now + ends.saturating_sub(now) / 5 * 4;
        Self {
            peer: proof.identity,
            root: proof.chain.root,
            ends,
            retires,
        }
    }

    /// Did the peer prove itself by one of these roots?
    pub(crate) fn chains_to(&self, roots: &Bundle) -> bool {
        roots.anchors.contains(&self.root)
    }
}

#[cfg(test)]
impl Session {
    /// With a peer that has its certificate from this authority.
    pub(crate) fn of_root(authority: &crate::tls::authority::Authority) -> Self {
        use crate::tls::authority::{NOW, Wanted};
        let (chain, _) = authority.issue(&Wanted::of(&["spiffe://cluster.local/ns/a/sa/b"]));
        let roots = authority.bundle();
        let proof = verify::chain(&chain, &roots, NOW, verify::Usage::Server);
        let proof = verify::Proof {
            identity: SpiffeId::new("cluster.local", "a", "b").expect("it is a name"),
            chain: proof.expect("it was just issued"),
        };
        Self::new(proof, None, NOW)
    }
}

impl Store {
    #[cfg(test)]
    /// May this connection live on?
    pub(crate) fn still_trusts(&self, session: &Session) -> bool {
        self.wall.now() <= session.ends
            && self.current.borrow().bundle.anchors.contains(&session.root)
    }

    /// Resolves when the connection must end: a certificate ends or the peer's root is removed.
    pub(crate) async fn ended(&self, session: &Session) {
        self.over(session, session.ends).await;
    }

    /// Resolves when the connection should get nothing new: earlier than `ended`
    /// where a certificate ends, at the same time where a root is removed.
    pub(crate) async fn retired(&self, session: &Session) {
        self.over(session, session.retires).await;
    }

    async fn over(&self, session: &Session, at: Duration) {
        let mut changes = self.subscribe();
        loop {
            let trusted = changes
                .borrow_and_update()
                .bundle
                .anchors
                .contains(&session.root);
            let left = at.saturating_sub(self.wall.now());
            if !trusted || left.is_zero() {
                return;
            }
            // The wall clock may be set; look again now and then.
            let wait = left.min(Duration::from_secs(60));
            if let Ok(Err(_)) = tokio::time::timeout(wait, changes.changed()).await {
                return;
            }
        }
    }
}

//! The authority's Secret: made once, or given; followed for as long as we run.
//!
//! `tls.crt`, `tls.key` and `ca.crt` as cert-manager lays them out. Three rules
//! hold for a Secret of either kind, whoever changes it:
//! - the mesh trusts what `ca.crt` holds and what the annotation `weft.dev/roots`
//!   still holds: the roots that every live pod has been seen to hold;
//! - we sign under a root only once it is in that annotation;
//! - a Secret that vanishes or can't be used changes nothing but an alarm, and
//!   none is made where one has ever been: its fingerprint is kept on the Lease.
//!
//! `rotation` moves roots in and out of the annotation; this only obeys it. What
//! has settled is also in a Secret of our own (`kept`), since whoever owns this
//! one may make it anew, without the annotation and with another root.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use anyhow::{Context, bail};
use futures_util::{StreamExt, pin_mut};
use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{
    Api,
    api::{ObjectMeta, Patch, PatchParams, PostParams},
    runtime::{WatchStreamExt, watcher::watch_object},
};
use rustls_pki_types::CertificateDer;
use serde_json::json;
use tokio::sync::watch;

use crate::{
    ca::{
        Authority,
        bundle::Roots,
        signing::{self, Made, Signing, Unfit},
    },
    clock::Wall,
    cluster::{Cluster, Failure, LEASE, call, lease, metrics::Metrics, warning::Warnings},
    roots::Fingerprint,
};

pub(crate) mod kept;

/// The roots that every live pod has been seen to hold, in PEM.
pub(crate) const SETTLED: &str = "weft.dev/roots";
/// Tells ours from what somebody gave; only ours is ever rotated by us.
const MADE_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "weft-control-plane");

/// A Secret that can be used.
pub(crate) struct Content {
    pub(crate) signing: Arc<Signing>,
    /// `ca.crt`.
    pub(crate) roots: Vec<CertificateDer<'static>>,
    /// As the annotation says, else as it was known before; `None`: nobody has
    /// seen to it yet.
    pub(crate) settled: Option<Vec<CertificateDer<'static>>>,
    pub(crate) is_ours: bool,
    /// As it was read.
    pub(crate) secret: Secret,
}

/// Keeps the Secret of one name.
#[derive(Clone)]
pub(crate) struct Keeper {
    pub(crate) cluster: Cluster,
    pub(crate) secret: String,
    /// Somebody else makes it: never make one.
    pub(crate) is_given: bool,
    pub(crate) trust_domain: String,
    pub(crate) clock: Wall,
}

/// What changes when the Secret does.
pub(crate) struct Followers {
    pub(crate) authority: Arc<Authority>,
    pub(crate) roots: watch::Sender<Roots>,
    /// `None` while it is gone or can't be used.
    pub(crate) content: watch::Sender<Option<Arc<Content>>>,
    pub(crate) metrics: Metrics,
}

/// Why the Secret can't be followed now.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum Trouble {
    #[error("the authority's Secret is gone; the loaded one stays in force")]
    Gone,
    #[error("the authority's Secret can't be used, and the loaded one stays in force: {0}")]
    Unfit(#[from] Unfit),
}

impl Trouble {
    const fn reason(&self) -> &'static str {
        match self {
            Self::Gone => "AuthorityGone",
            Self::Unfit(_) => "AuthorityUnfit",
        }
    }

    pub(crate) const fn remedy(&self) -> &'static str {
        match self {
            Self::Gone => {
                "restore it from a backup: a replica that starts without it serves nobody"
            }
            Self::Unfit(_) => {
                "give tls.crt (the signing certificate, then those above it), its tls.key, and ca.crt (every root)"
            }
        }
    }
}

/// Without the key that the Secret holds.
impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an authority under {}", self.signing.fingerprint())
    }
}

impl Content {
    /// # Errors
    /// Which key of the Secret can't be used, and why.
    pub(crate) fn read(secret: &Secret, trust_domain: &str, clock: Wall) -> Result<Self, Unfit> {
        let part = |name: &'static str| {
            let found = secret.data.as_ref().and_then(|it| it.get(name));
            found.map(|it| it.0.as_slice()).ok_or_else(|| Unfit {
                part: name,
                message: "it is missing".to_owned(),
            })
        };
        let roots = signing::pem(signing::ROOTS, part(signing::ROOTS)?)?;
        for root in &roots {
            webpki::anchor_from_trusted_cert(root).map_err(|error| Unfit {
                part: signing::ROOTS,
                message: format!("one of its certificates can't be a root: {error}"),
            })?;
        }
        let (certificate, key) = (part(signing::CERTIFICATE)?, part(signing::KEY)?);
        let signing = Signing::parse(certificate, key, &roots, trust_domain, clock)?;
        let annotation = secret.metadata.annotations.as_ref();
        let settled = annotation.and_then(|it| it.get(SETTLED));
        let settled = settled.map(|text| match text.is_empty() {
            true => Ok(Vec::new()),
            false => signing::pem(SETTLED, text.as_bytes()),
        });
        let labels = secret.metadata.labels.as_ref();
        let made_by = labels.and_then(|it| it.get(MADE_BY.0));
        Ok(Self {
            signing: Arc::new(signing),
            settled: settled.transpose()?,
            is_ours: made_by.is_some_and(|it| it == MADE_BY.1),
            roots,
            secret: secret.clone(),
        })
    }

    /// Every root that the mesh trusts, in an order that all replicas share.
    /// `former`: what it trusted until now, which counts while nobody has said
    /// what has settled.
    pub(crate) fn in_force(&self, former: &[CertificateDer<'static>]) -> Roots {
        let still = self.settled.as_deref().unwrap_or(former);
        let mut all: Vec<_> = self.roots.iter().chain(still).cloned().collect();
        all.sort_by(|a, b| a.as_ref().cmp(b.as_ref()));
        all.dedup();
        all.into()
    }

    /// What to sign with from now on; `None`: go on as before.
    fn successor(&self, current: &Signing, now: Duration) -> Option<Arc<Signing>> {
        let is_settled = || {
            let settled = self.settled.as_deref().unwrap_or_default();
            settled.contains(self.signing.root())
        };
        // What has expired can't be waited with, and the same root is known already.
        let is_due = || {
            current.ends() <= now
                || current.fingerprint() == self.signing.fingerprint()
                || is_settled()
        };
        (!current.is_same(&self.signing) && is_due()).then(|| self.signing.clone())
    }
}

/// The Secret of a root that was made here.
pub(crate) fn made_secret(name: &str, made: &Made) -> Secret {
    let data = [
        (signing::CERTIFICATE, &made.certificate),
        (signing::KEY, &made.key),
        (signing::ROOTS, &made.certificate),
    ];
    let bytes = |text: &String| ByteString(text.clone().into_bytes());
    Secret {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            labels: Some([(MADE_BY.0.to_owned(), MADE_BY.1.to_owned())].into()),
            // There is nobody yet who could hold another.
            annotations: Some([(SETTLED.to_owned(), made.certificate.clone())].into()),
            ..ObjectMeta::default()
        },
        type_: Some("kubernetes.io/tls".to_owned()),
        data: Some(BTreeMap::from(
            data.map(|(key, text)| (key.to_owned(), bytes(text))),
        )),
        ..Secret::default()
    }
}

/// As the annotation has them.
pub(crate) fn settled_text(roots: &[CertificateDer<'_>]) -> String {
    roots.iter().map(signing::to_pem).collect()
}

fn is_same(some: &[CertificateDer<'_>], others: &[CertificateDer<'_>]) -> bool {
    some.iter().all(|it| others.contains(it)) && others.iter().all(|it| some.contains(it))
}

impl Keeper {
    pub(crate) fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.cluster.client.clone(), &self.cluster.namespace)
    }

    fn shown(&self) -> String {
        format!("Secret {}/{}", self.cluster.namespace, self.secret)
    }

    /// Reads the Secret, or makes the first; also what to sign with for now,
    /// which is the Secret's unless its root has not settled.
    ///
    /// # Errors
    /// When it can't be used, there must be one and is none, or its root is
    /// another than that of every proxy.
    pub(crate) async fn open(&self) -> anyhow::Result<(Content, Arc<Signing>)> {
        let found = call(self.secrets().get_opt(&self.secret)).await;
        let secret = match found.with_context(|| format!("reading {}", self.shown()))? {
            Some(secret) => secret,
            None => Box::pin(self.make()).await?,
        };
        let mut content =
            Content::read(&secret, &self.trust_domain, self.clock).with_context(|| self.shown())?;
        let kept = Box::pin(self.kept()).await?;
        let said = content.settled.take();
        // What was kept was true; an annotation may be of another time or Secret.
        let known = kept.as_ref().map(|it| it.roots().to_vec());
        content.settled = known.or_else(|| said.clone());
        let marker = Box::pin(lease::marker(&self.cluster)).await;
        let marker = marker.context("reading the Lease")?;
        let now = self.clock.now();
        let signing = kept::beginning(&content, kept.as_ref(), marker.as_deref(), now)
            .with_context(|| self.shown())?;
        // The first that anybody sees: no pod can hold another.
        let first = || content.roots.clone();
        let settled = content.settled.get_or_insert_with(first).clone();
        if kept.is_none()
            && let Some(data) = kept::wanted(&content)
        {
            let keeping = Box::pin(self.keep(&data)).await;
            keeping.context("keeping what proxies trust")?;
        }
        if said.as_ref().is_none_or(|it| !is_same(it, &settled)) {
            let text = settled_text(&settled);
            let said = Box::pin(self.say(SETTLED, &text)).await;
            said.with_context(|| format!("annotating {}", self.shown()))?;
        }
        let marking = Box::pin(self.mark(signing.fingerprint()));
        marking.await.context("marking the Lease")?;
        tracing::info!(root = %signing.fingerprint(), made_here = content.is_ours, "the authority is loaded");
        Ok((content, signing))
    }

    /// So that a Secret that vanishes is missed, and not made again.
    pub(crate) async fn mark(&self, root: Fingerprint) -> Result<(), Failure> {
        lease::mark(&self.cluster, &root.to_string()).await
    }

    /// Leaves an annotation on the authority's Secret.
    pub(crate) async fn say(&self, annotation: &str, text: &str) -> Result<(), Failure> {
        let patch = json!({"metadata": {"annotations": {annotation: text}}});
        let (patch, parameters) = (Patch::Merge(&patch), PatchParams::default());
        let secrets = self.secrets();
        let patched = secrets.patch(&self.secret, &parameters, &patch);
        call(patched).await.map(drop)
    }

    async fn make(&self) -> anyhow::Result<Secret> {
        let shown = self.shown();
        if self.is_given {
            bail!(
                "{shown} is not there; make it with tls.crt, tls.key and ca.crt, as cert-manager does (--authority-secret)"
            );
        }
        if let Some(fingerprint) = lease::marker(&self.cluster)
            .await
            .context("reading the Lease")?
        {
            // Another replica has made it since we looked, and left its mark.
            let again = call(self.secrets().get_opt(&self.secret)).await;
            if let Some(secret) = again.with_context(|| format!("reading {shown}"))? {
                return Ok(secret);
            }
            bail!(
                "{shown} is gone, and the mesh trusts its root {fingerprint}: restore it from a backup; \
                 or, to begin with a new root, remove the annotation {} of Lease {LEASE} (without Secret {} every proxy must then restart)",
                lease::MARKER,
                kept::KEPT
            );
        }
        let made = signing::make(&self.trust_domain, self.clock)?;
        let secret = made_secret(&self.secret, &made);
        match call(self.secrets().create(&PostParams::default(), &secret)).await {
            Ok(secret) => {
                tracing::info!(secret = self.secret, "made the mesh's root");
                Ok(secret)
            }
            // Another replica was first: there is one root, and it is that one's.
            Err(error) if error.is_conflict() => Ok(call(self.secrets().get(&self.secret)).await?),
            Err(error) => Err(error).with_context(|| format!("making {shown}")),
        }
    }

    /// Takes over every change that can be used, for as long as it is polled.
    /// `report` hears of each new trouble, and `None` when it is over.
    pub(crate) async fn follow(
        self,
        followers: Followers,
        report: impl Fn(Option<&Trouble>) + Send,
    ) {
        let warnings = Warnings::about_secret(&self.cluster, &self.secret);
        let changes = watch_object(self.secrets(), &self.secret).default_backoff();
        pin_mut!(changes);
        let mut last = None;
        let opened = followers.content.borrow().clone();
        let mut settled = opened.and_then(|it| it.settled.clone());
        while let Some(change) = changes.next().await {
            let secret = match change {
                Ok(secret) => secret,
                Err(error) => {
                    tracing::warn!(%error, secret = self.secret, "the authority's Secret can't be watched now");
                    continue;
                }
            };
            let trouble = match secret.ok_or(Trouble::Gone).and_then(|it| {
                Content::read(&it, &self.trust_domain, self.clock).map_err(Trouble::from)
            }) {
                Ok(mut content) => {
                    // Made anew by its owner: what proxies hold is no other for that.
                    content.settled = content.settled.or(settled);
                    settled = content.settled.clone();
                    followers.take(content, self.clock.now());
                    None
                }
                Err(trouble) => Some(trouble),
            };
            followers
                .metrics
                .secret_unusable
                .set(i64::from(trouble.is_some()));
            if trouble == last {
                continue;
            }
            if let Some(trouble) = &trouble {
                let problem = trouble.to_string();
                tracing::error!(problem, secret = self.secret, remedy = trouble.remedy());
                followers.content.send_replace(None);
                warnings.warn(trouble.reason(), &problem).await;
            }
            report(trouble.as_ref());
            last = trouble;
        }
    }
}

impl Followers {
    /// Roots go out before anything is signed under a new one.
    pub(crate) fn take(&self, content: Content, now: Duration) {
        self.roots.send_if_modified(|roots| {
            let fresh = content.in_force(roots);
            let changed = *roots != fresh;
            *roots = fresh;
            changed
        });
        if let Some(successor) = content.successor(&self.authority.signing(), now) {
            tracing::info!(root = %successor.fingerprint(), "signs with another key from now on");
            self.authority.replace(successor);
        }
        let roots = self.roots.borrow().len();
        self.metrics.trust(&self.authority.signing(), roots);
        self.content.send_replace(Some(Arc::new(content)));
    }
}

#[cfg(test)]
mod tests;

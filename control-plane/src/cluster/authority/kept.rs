//! The last authority that every live pod was seen to hold, in a Secret of ours.
//!
//! Somebody else's Secret may change its root while no replica runs. Proxies
//! would then refuse whoever shows a certificate under the new root, the control
//! plane first, and could never be told of it. So a replica that starts goes on
//! with what is kept here, until the new root has spread.
//!
//! Part of `authority`. The Lease's holder writes it when what the authority's
//! Secret says has settled, never before.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::Context;
use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::api::{ObjectMeta, PostParams};
use rustls_pki_types::CertificateDer;

use super::{Content, Keeper, MADE_BY, settled_text};
use crate::{
    ca::signing::{self, CERTIFICATE, KEY, ROOTS, Signing},
    cluster::{Failure, call},
};

/// Its name: the control plane's roles know it.
pub(crate) const KEPT: &str = "weft-ca-settled";

type Data = BTreeMap<String, ByteString>;

pub(crate) struct Kept {
    /// `None`: it has expired, or can't sign any more for another reason.
    signing: Option<Arc<Signing>>,
    roots: Vec<CertificateDer<'static>>,
}

/// What is to be kept of this; `None`: it has not settled, so the former stays.
pub(crate) fn wanted(content: &Content) -> Option<Data> {
    let settled = content.settled.as_ref()?;
    if !settled.contains(content.signing.root()) {
        return None;
    }
    let mut data = Data::new();
    for name in [CERTIFICATE, KEY] {
        let found = content.secret.data.as_ref()?.get(name)?;
        data.insert(name.to_owned(), found.clone());
    }
    let roots = settled_text(settled);
    data.insert(ROOTS.to_owned(), ByteString(roots.into_bytes()));
    Some(data)
}

/// What a replica that starts signs with: what the Secret says once every pod
/// has been seen to hold its root, else what it said before.
pub(super) fn beginning(
    content: &Content,
    kept: Option<&Kept>,
    marker: Option<&str>,
    now: Duration,
) -> anyhow::Result<Arc<Signing>> {
    let (given, root) = (&content.signing, content.signing.fingerprint());
    let has_settled = match &content.settled {
        Some(settled) => settled.contains(given.root()),
        // Nobody was there before, or signed under the same root.
        None => marker.is_none_or(|it| it == root.to_string()),
    };
    if has_settled {
        return Ok(given.clone());
    }
    let before = kept.map(|it| it.signing.as_ref().filter(|it| it.ends() > now));
    match before {
        Some(Some(before)) => {
            tracing::warn!(new = %root, old = %before.fingerprint(), "the authority's Secret has another root, which has not spread: the old one signs until then");
            Ok(before.clone())
        }
        // What has expired can't be waited with.
        Some(None) => Ok(given.clone()),
        None => anyhow::bail!(
            "tls.crt now ends in root {root}, which proxies have not been seen to hold, and what signed before under {} is not kept: \
             restore the former tls.crt and tls.key with both roots in ca.crt, and exchange them once `weft ca status` says that every proxy holds both; \
             or, to go on with the new root alone, remove the annotations weft.dev/authority-root of the Lease and {} of the Secret (every proxy must then restart)",
            marker.unwrap_or("another root"),
            super::SETTLED
        ),
    }
}

impl Kept {
    fn read(secret: &Secret, keeper: &Keeper) -> Result<Self, signing::Unfit> {
        let part = |name| {
            let found = secret.data.as_ref().and_then(|it| it.get(name));
            found.map(|it| it.0.as_slice()).unwrap_or_default()
        };
        let roots = signing::pem(ROOTS, part(ROOTS))?;
        let (certificate, key) = (part(CERTIFICATE), part(KEY));
        let signing = Signing::parse(certificate, key, &roots, &keeper.trust_domain, keeper.clock);
        let signing = signing.inspect_err(|error| {
            tracing::warn!(%error, secret = KEPT, "what was kept can't sign any more");
        });
        Ok(Self {
            signing: signing.ok().map(Arc::new),
            roots,
        })
    }

    pub(super) fn roots(&self) -> &[CertificateDer<'static>] {
        &self.roots
    }
}

impl Keeper {
    pub(super) async fn kept(&self) -> anyhow::Result<Option<Kept>> {
        let named = || format!("Secret {}/{KEPT}", self.cluster.namespace);
        let found = call(self.secrets().get_opt(KEPT)).await;
        let Some(secret) = found.with_context(|| format!("reading {}", named()))? else {
            return Ok(None);
        };
        let read = Kept::read(&secret, self);
        let read = read.with_context(|| {
            format!(
                "{}, the control plane's copy of what proxies trust; delete it only when they all hold ca.crt",
                named()
            )
        });
        read.map(Some)
    }

    /// Writes `data` there, unless it stands there already.
    pub(crate) async fn keep(&self, data: &Data) -> Result<(), Failure> {
        let (secrets, parameters) = (self.secrets(), PostParams::default());
        let found = call(secrets.get_opt(KEPT)).await?;
        if found
            .as_ref()
            .is_some_and(|it| it.data.as_ref() == Some(data))
        {
            return Ok(());
        }
        let Some(mut secret) = found else {
            let secret = Secret {
                metadata: ObjectMeta {
                    name: Some(KEPT.to_owned()),
                    labels: Some([(MADE_BY.0.to_owned(), MADE_BY.1.to_owned())].into()),
                    ..ObjectMeta::default()
                },
                data: Some(data.clone()),
                ..Secret::default()
            };
            return match call(secrets.create(&parameters, &secret)).await {
                // Another replica was first, with the same.
                Err(error) if error.is_conflict() => Ok(()),
                answer => answer.map(drop),
            };
        };
        secret.data = Some(data.clone());
        call(secrets.replace(KEPT, &parameters, &secret)).await?;
        Ok(())
    }
}

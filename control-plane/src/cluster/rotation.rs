//! Moves roots in and out of the authority's Secret, a step at a time.
//!
//! The Lease's holder alone, by `ca::rotate`'s decisions; where it stands is in
//! the Secret, so that any other replica goes on from there:
//! `weft.dev/rotate` asks for a rotation (`weft ca rotate`), `weft.dev/rotated`
//! is the last that was taken up, `weft.dev/rotation` says what it waits for.

use std::{sync::Arc, time::Duration};

use k8s_openapi::{
    ByteString,
    api::core::v1::{Pod, Secret},
};
use kube::{
    Api, ResourceExt,
    api::{ListParams, Patch, PatchParams, PostParams},
};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use serde_json::json;
use tokio::{sync::watch, time::sleep};

use crate::{
    ca::{
        rotate::{self, Facts, Seen, Step, View},
        signing::{self, CERTIFICATE, KEY, Made, ROOTS},
    },
    cluster::{
        Failure,
        authority::{Content, Keeper, SETTLED},
        call, expiry, lease,
        warning::Warnings,
    },
    roots::Fingerprint,
    serve::hub::Hub,
};

/// Asks for a rotation: another value is another one.
pub(crate) const ROTATE: &str = "weft.dev/rotate";
/// The last that was taken up.
pub(crate) const ROTATED: &str = "weft.dev/rotated";
/// For people: where it stands.
pub(crate) const ROTATION: &str = "weft.dev/rotation";
const NEXT: (&str, &str) = ("next.crt", "next.key");

/// Nothing tells when the last pod has renewed.
const AGAIN: Duration = Duration::from_secs(5);

pub(crate) struct Rotation {
    pub(crate) keeper: Keeper,
    pub(crate) hub: Hub,
    pub(crate) content: watch::Receiver<Option<Arc<Content>>>,
    pub(crate) holds: watch::Receiver<bool>,
}

fn annotation(secret: &Secret, key: &str) -> Option<String> {
    secret.metadata.annotations.as_ref()?.get(key).cloned()
}

fn data<'a>(secret: &'a Secret, key: &str) -> Option<&'a [u8]> {
    secret.data.as_ref()?.get(key).map(|it| it.0.as_slice())
}

fn fingerprints(certificates: &[CertificateDer<'_>]) -> Vec<Fingerprint> {
    certificates.iter().map(Fingerprint::of).collect()
}

fn facts(content: &Content) -> Facts {
    let next = data(&content.secret, NEXT.0);
    let next = next.and_then(|it| CertificateDer::from_pem_slice(it).ok());
    Facts {
        given: fingerprints(&content.roots),
        settled: fingerprints(content.settled.as_deref().unwrap_or_default()),
        signer: content.signing.fingerprint(),
        next: next.map(|it| Fingerprint::of(&it)),
        is_ours: content.is_ours,
        asked: annotation(&content.secret, ROTATE),
        served: annotation(&content.secret, ROTATED),
    }
}

/// The Secret as a step leaves it.
fn after(content: &Content, step: &Step, made: Option<&Made>) -> Secret {
    let mut secret = content.secret.clone();
    let asked = annotation(&secret, ROTATE);
    let annotations = secret.metadata.annotations.get_or_insert_default();
    let settled = content.settled.as_deref().unwrap_or_default();
    let said = match step {
        Step::Settle(roots) => {
            let is_new = |it: &&CertificateDer<'_>| roots.contains(&Fingerprint::of(it));
            let all = settled.iter().chain(content.roots.iter().filter(is_new));
            annotations.insert(SETTLED.to_owned(), all.map(pem).collect());
            "every proxy holds every root".to_owned()
        }
        Step::Remove(roots) => {
            let stays = |it: &&CertificateDer<'_>| !roots.contains(&Fingerprint::of(it));
            let left = settled.iter().filter(stays);
            annotations.insert(SETTLED.to_owned(), left.map(pem).collect());
            "done: the old root is removed".to_owned()
        }
        Step::Begin | Step::Refuse(_) => {
            annotations.extend(asked.map(|it| (ROTATED.to_owned(), it)));
            match step {
                Step::Refuse(why) => format!("refused: {why}"),
                _ => "a new root is made".to_owned(),
            }
        }
        Step::Promote => "the new root signs".to_owned(),
        Step::Wait(why) => why.clone(),
        Step::Rest => return secret,
    };
    annotations.insert(ROTATION.to_owned(), said);
    let data = secret.data.get_or_insert_default();
    match (step, made) {
        (Step::Begin, Some(made)) => {
            let roots = content.roots.iter().map(pem).collect::<String>() + &made.certificate;
            data.insert(ROOTS.to_owned(), ByteString(roots.into_bytes()));
            for (key, text) in [(NEXT.0, &made.certificate), (NEXT.1, &made.key)] {
                data.insert(key.to_owned(), ByteString(text.clone().into_bytes()));
            }
        }
        (Step::Promote, _) => {
            if let (Some(certificate), Some(key)) = (data.remove(NEXT.0), data.remove(NEXT.1)) {
                // The old root stays trusted by what has settled, until nobody needs it.
                data.insert(ROOTS.to_owned(), certificate.clone());
                data.insert(CERTIFICATE.to_owned(), certificate);
                data.insert(KEY.to_owned(), key);
            }
        }
        _ => {}
    }
    secret
}

fn pem(certificate: &CertificateDer<'_>) -> String {
    signing::to_pem(certificate)
}

impl Rotation {
    /// For as long as the Secret is followed.
    pub(crate) async fn run(mut self) {
        let warnings = Warnings::about_secret(&self.keeper.cluster, &self.keeper.secret);
        let mut warned = None;
        loop {
            let content = self.content.borrow_and_update().clone();
            if *self.holds.borrow_and_update()
                && let Some(content) = content
            {
                if let Err(error) = Box::pin(self.step(&content)).await {
                    tracing::warn!(
                        error = format!("{error:#}"),
                        "the authority's Secret could not be seen to; it is tried again"
                    );
                }
                let ends = content.signing.ends();
                expiry::warn(ends, self.keeper.clock.now(), &mut warned, &warnings).await;
            }
            tokio::select! {
                changed = self.content.changed() => if changed.is_err() { return },
                changed = self.holds.changed() => if changed.is_err() { return },
                () = sleep(AGAIN) => {}
            }
        }
    }

    async fn step(&self, content: &Content) -> anyhow::Result<()> {
        let facts = facts(content);
        let view = match facts.needs_a_view() {
            true => self.view().await?,
            false => View::Unknown("nobody was asked".to_owned()),
        };
        let step = rotate::decide(&facts, &view);
        match &step {
            Step::Rest => return Ok(()),
            Step::Wait(why) => return Ok(self.say(content, why).await?),
            step => tracing::info!(?step, "the authority's roots move"),
        }
        let made = match step {
            Step::Begin => Some(signing::make(&self.keeper.trust_domain, self.keeper.clock)?),
            _ => None,
        };
        let secret = after(content, &step, made.as_ref());
        let (name, parameters) = (&self.keeper.secret, PostParams::default());
        let secrets = self.keeper.secrets();
        // With the version that was read: nobody's change is lost.
        call(secrets.replace(name, &parameters, &secret)).await?;
        if let (Step::Promote, Some(root)) = (&step, facts.next) {
            lease::mark(&self.keeper.cluster, &root.to_string()).await?;
        }
        Ok(())
    }

    async fn say(&self, content: &Content, why: &str) -> Result<(), Failure> {
        if annotation(&content.secret, ROTATION).as_deref() == Some(why) {
            return Ok(());
        }
        tracing::info!(why, "the authority's roots wait");
        let patch = json!({"metadata": {"annotations": {ROTATION: why}}});
        let (patch, parameters) = (Patch::Merge(&patch), PatchParams::default());
        let secrets = self.keeper.secrets();
        call(secrets.patch(&self.keeper.secret, &parameters, &patch)).await?;
        Ok(())
    }

    /// Who holds what, if all of it can be seen from here.
    async fn view(&self) -> anyhow::Result<View> {
        let others = self.others().await?;
        if !others.is_empty() {
            return Ok(View::Unknown(format!(
                "replica {} serves proxies of its own; scale the control plane to one replica for this step",
                others.join(", ")
            )));
        }
        let Some(holdings) = self.hub.ask(|state| state.holdings()).await? else {
            return Ok(View::Unknown("the mesh has not been read yet".to_owned()));
        };
        let seen = holdings.pods.into_iter().map(|it| Seen {
            pod: it.pod.to_string(),
            holds: match it.holds_newest {
                true => holdings.roots.clone(),
                false => Vec::new(),
            },
            leaf: it.leaf,
        });
        Ok(View::Whole(seen.collect()))
    }

    /// Other replicas that may still have proxies.
    async fn others(&self) -> Result<Vec<String>, Failure> {
        let cluster = &self.keeper.cluster;
        let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
        let ours = "app.kubernetes.io/name=weft,app.kubernetes.io/component=control-plane";
        let found = call(pods.list(&ListParams::default().labels(ours))).await?;
        let has_ended = |pod: &Pod| {
            let phase = pod.status.as_ref().and_then(|it| it.phase.as_deref());
            matches!(phase, Some("Succeeded" | "Failed"))
        };
        let others = found.items.iter().filter(|it| !has_ended(it));
        let names = others.map(ResourceExt::name_any);
        Ok(names.filter(|it| *it != cluster.replica).collect())
    }
}

#[cfg(test)]
mod tests;

//! Moves roots in and out of the authority's Secret, a step at a time.
//!
//! The Lease's holder alone, by `ca::rotate`'s decisions; where it stands is in
//! the Secret, so that any other replica goes on from there:
//! `weft.dev/rotate` asks for a rotation (`weft ca rotate`), `weft.dev/rotated`
//! is the last that was taken up, `weft.dev/rotation` says what it waits for,
//! `weft.dev/outlived` when the last leaf of a root will have expired.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::api::PostParams;
use rustls_pki_types::{CertificateDer, pem::PemObject};
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

use crate::{
    ca::{
        rotate::{self, Facts, Phase, Seen, Step, View},
        signing::{self, CERTIFICATE, KEY, Made, ROOTS},
    },
    cluster::{
        Failure,
        authority::{Content, Keeper, SETTLED, kept, settled_text},
        call, expiry, replicas,
        warning::Warnings,
    },
    roots::Fingerprint,
    serve::hub::{Holding, Hub},
};

/// Asks for a rotation: another value is another one.
pub(crate) const ROTATE: &str = "weft.dev/rotate";
/// The last that was taken up.
pub(crate) const ROTATED: &str = "weft.dev/rotated";
/// For people: where it stands.
pub(crate) const ROTATION: &str = "weft.dev/rotation";
/// "SECONDS ROOT ...": since the epoch, and fingerprints.
const OUTLIVED: &str = "weft.dev/outlived";
const NEXT: (&str, &str) = ("next.crt", "next.key");

/// Nothing tells when the last pod has renewed.
const AGAIN: Duration = Duration::from_secs(5);
/// What a rotation waits for is told at once; how many are left, this often.
const SAY: Duration = Duration::from_secs(10);
/// Replicas follow the Secret by a watch; the last of them signs under the old
/// root for so much longer.
const LAG: Duration = Duration::from_secs(15);

pub(crate) struct Rotation {
    pub(crate) keeper: Keeper,
    pub(crate) hub: Hub,
    pub(crate) content: watch::Receiver<Option<Arc<Content>>>,
    pub(crate) holds: watch::Receiver<bool>,
    /// Of every leaf.
    pub(crate) lifetime: Duration,
}

/// What the holder did last, so that it need not do it again.
#[derive(Default)]
struct Done {
    said: Option<(Phase, Instant)>,
    kept: Option<BTreeMap<String, ByteString>>,
    marked: Option<Fingerprint>,
    warned: Option<(Duration, u32)>,
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
        outlived: outlived(content),
        asked: annotation(&content.secret, ROTATE),
        served: annotation(&content.secret, ROTATED),
    }
}

fn outlived(content: &Content) -> Option<(Vec<Fingerprint>, Duration)> {
    let text = annotation(&content.secret, OUTLIVED)?;
    let mut words = text.split_whitespace();
    let until = Duration::from_secs(words.next()?.parse().ok()?);
    let named: Vec<_> = words.collect();
    let settled = fingerprints(content.settled.as_deref().unwrap_or_default());
    let is_named = |it: &Fingerprint| named.contains(&it.to_string().as_str());
    Some((settled.into_iter().filter(is_named).collect(), until))
}

/// The Secret as a step leaves it; leaves that are signed now live `until` then.
fn after(content: &Content, step: &Step, made: Option<&Made>, until: Duration) -> Secret {
    let mut secret = content.secret.clone();
    let asked = annotation(&secret, ROTATE);
    let annotations = secret.metadata.annotations.get_or_insert_default();
    let settled = content.settled.as_deref().unwrap_or_default();
    let said = match step {
        Step::Settle(roots) => {
            let is_new = |it: &&CertificateDer<'_>| roots.contains(&Fingerprint::of(it));
            let all = settled.iter().chain(content.roots.iter().filter(is_new));
            let all: Vec<_> = all.cloned().collect();
            annotations.insert(SETTLED.to_owned(), settled_text(&all));
            "every proxy holds every root".to_owned()
        }
        Step::Remove(roots) => {
            let stays = |it: &&CertificateDer<'_>| !roots.contains(&Fingerprint::of(it));
            let left: Vec<_> = settled.iter().filter(stays).cloned().collect();
            annotations.insert(SETTLED.to_owned(), settled_text(&left));
            annotations.remove(OUTLIVED);
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
        Step::Retire(roots) => {
            let roots: String = roots.iter().map(|it| format!(" {it}")).collect();
            annotations.insert(OUTLIVED.to_owned(), format!("{}{roots}", until.as_secs()));
            "nothing is signed under the old root any more".to_owned()
        }
        Step::Wait(_, why) => why.clone(),
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
        let mut done = Done::default();
        loop {
            let content = self.content.borrow_and_update().clone();
            if !*self.holds.borrow_and_update() {
                // Another holder may do all of it otherwise meanwhile.
                done = Done::default();
            } else if let Some(content) = content {
                if let Err(error) = Box::pin(self.step(&content, &mut done)).await {
                    tracing::warn!(
                        error = format!("{error:#}"),
                        "the authority's Secret could not be seen to; it is tried again"
                    );
                }
                let (ends, now) = (content.signing.ends(), self.keeper.clock.now());
                expiry::warn(ends, now, &mut done.warned, &warnings).await;
            }
            tokio::select! {
                changed = self.content.changed() => if changed.is_err() { return },
                changed = self.holds.changed() => if changed.is_err() { return },
                () = sleep(AGAIN) => {}
            }
        }
    }

    async fn step(&self, content: &Content, done: &mut Done) -> anyhow::Result<()> {
        // Before any step: what starts meanwhile must find what proxies hold.
        self.keep(content, done).await?;
        let (facts, now) = (facts(content), self.keeper.clock.now());
        let view = match facts.needs_a_view(now) {
            true => self.view().await?,
            false => View::Unknown("nobody was asked".to_owned()),
        };
        let step = rotate::decide(&facts, &view, now);
        match &step {
            Step::Rest => return Ok(()),
            Step::Wait(phase, why) => return Ok(self.say(content, *phase, why, done).await?),
            step => tracing::info!(?step, "the authority's roots move"),
        }
        let made = match step {
            Step::Begin => Some(signing::make(&self.keeper.trust_domain, self.keeper.clock)?),
            _ => None,
        };
        let until = now + self.lifetime + LAG;
        let secret = after(content, &step, made.as_ref(), until);
        let (name, parameters) = (&self.keeper.secret, PostParams::default());
        let secrets = self.keeper.secrets();
        // With the version that was read: nobody's change is lost.
        call(secrets.replace(name, &parameters, &secret)).await?;
        Ok(())
    }

    /// What has settled, and the mark of it on the Lease; each once.
    async fn keep(&self, content: &Content, done: &mut Done) -> Result<(), Failure> {
        let Some(wanted) = kept::wanted(content) else {
            return Ok(());
        };
        if done.kept.as_ref() != Some(&wanted) {
            self.keeper.keep(&wanted).await?;
            done.kept = Some(wanted);
        }
        let root = content.signing.fingerprint();
        if done.marked != Some(root) {
            self.keeper.mark(root).await?;
            done.marked = Some(root);
        }
        Ok(())
    }

    async fn say(
        &self,
        content: &Content,
        phase: Phase,
        why: &str,
        done: &mut Done,
    ) -> Result<(), Failure> {
        if annotation(&content.secret, ROTATION).as_deref() == Some(why) {
            return Ok(());
        }
        let now = Instant::now();
        if let Some((said, at)) = done.said
            && said == phase
            && now < at + SAY
        {
            return Ok(());
        }
        tracing::info!(why, "the authority's roots wait");
        done.said = Some((phase, now));
        self.keeper.say(ROTATION, why).await
    }

    /// Who holds what, if all of it can be seen from here.
    async fn view(&self) -> anyhow::Result<View> {
        let others = replicas::others(&self.keeper.cluster).await?;
        let others: Vec<_> = others.into_iter().map(|it| it.name).collect();
        let (me, now) = (
            self.keeper.cluster.replica.clone(),
            self.keeper.clock.seconds(),
        );
        let asked = self.hub.ask(move |state| state.holdings(&me, &others, now));
        Ok(match asked.await? {
            Ok(all) => View::Whole(all.into_iter().map(seen).collect()),
            Err(unseen) => View::Unknown(unseen.to_string()),
        })
    }
}

fn seen(it: Holding) -> Seen {
    Seen {
        name: it.name,
        holds: it.holds,
        leaves: it.leaves,
    }
}

#[cfg(test)]
mod tests;

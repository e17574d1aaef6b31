//! The webhook's key: one for all replicas, in a Secret, and known to the API
//! server by the `caBundle` of our two webhook configurations.
//!
//! Every replica shows the key of the Secret, newest first. The holder makes a
//! new one in good time, in steps that any other may continue: `next.*` beside
//! the old, its authority in `caBundle`, and only when the API server has had
//! time to read that, the new key for all. `caBundle` is in no chart, so that
//! Helm leaves it alone.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD};
use futures_util::{StreamExt, stream::select_all};
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api,
    api::{
        ApiResource, DynamicObject, GroupVersionKind, ObjectMeta, Patch, PatchParams, PostParams,
    },
    runtime::{WatchStreamExt, watcher::watch_object},
};
use serde_json::{Value, json};
use tokio::{sync::watch, time::sleep};
use tokio_rustls::rustls::{
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

use crate::{
    ca::{
        serving,
        signing::{CERTIFICATE, KEY, ROOTS},
    },
    clock::Wall,
    cluster::{Cluster, Failure, call},
};

mod content;

use content::{Content, Step, after, bytes, decide};

const SECRET: &str = "weft-webhook";
const SERVICE: &str = "weft-webhook";
const CONFIGURATIONS: [(&str, &str); 2] = [
    ("MutatingWebhookConfiguration", "weft-injector"),
    ("ValidatingWebhookConfiguration", "weft-validator"),
];
/// From the written configuration to the API server that obeys it.
const OBEYED: Duration = Duration::from_secs(1);
/// Looked at again although nothing has changed; for time that passes.
const AGAIN: Duration = Duration::from_secs(30);

/// The newest key, at each handshake.
pub(crate) struct Keys(watch::Receiver<Arc<CertifiedKey>>);

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the webhook's key")
    }
}

impl ResolvesServerCert for Keys {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.borrow().clone())
    }
}

/// A webhook configuration with this bundle in each of its entries; `None` when
/// all have it.
fn with_bundle(configuration: &Value, bundle: &[u8]) -> Option<Value> {
    let bundle = BASE64_STANDARD.encode(bundle);
    let mut entries = configuration.get("webhooks")?.clone();
    let mut changed = false;
    for entry in entries.as_array_mut()? {
        let client = entry.get_mut("clientConfig")?;
        if client["caBundle"] != json!(bundle) {
            client["caBundle"] = json!(bundle);
            changed = true;
        }
    }
    let version = &configuration["metadata"]["resourceVersion"];
    changed.then(|| json!({"metadata": {"resourceVersion": version}, "webhooks": entries}))
}

pub(crate) struct Keeper {
    pub(crate) cluster: Cluster,
    pub(crate) clock: Wall,
    content: Content,
    keys: watch::Sender<Arc<CertifiedKey>>,
    is_known: watch::Sender<bool>,
}

impl Keeper {
    /// Whether the API server has been told whom to trust: until then it refuses
    /// every pod that should join. Once true, always.
    pub(crate) fn is_known(&self) -> watch::Receiver<bool> {
        self.is_known.subscribe()
    }

    /// Reads the Secret, or makes it; and what to show from now on.
    ///
    /// # Errors
    /// When the Secret can't be read, made or used.
    pub(crate) async fn open(cluster: Cluster, clock: Wall) -> anyhow::Result<(Self, Keys)> {
        let secrets: Api<Secret> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
        let secret = match call(secrets.get_opt(SECRET)).await? {
            Some(secret) => secret,
            None => create(&secrets, &made_secret(&cluster.namespace, clock)?).await?,
        };
        let content = Content::read(&secret).map_err(|error| {
            anyhow::anyhow!("Secret {SECRET}: {error}; delete it, and it is made again")
        })?;
        let (keys, shown) = watch::channel(content.serving.key.clone());
        let keeper = Self {
            cluster,
            clock,
            content,
            keys,
            is_known: watch::channel(false).0,
        };
        Ok((keeper, Keys(shown)))
    }

    fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.cluster.client.clone(), &self.cluster.namespace)
    }

    /// Shows what the Secret holds; as the holder also renews it.
    pub(crate) async fn keep(mut self, mut holds: watch::Receiver<bool>) {
        let mut changes = select_all(self.changes());
        loop {
            tokio::select! {
                Some(change) = changes.next() => self.take(change),
                changed = holds.changed() => if changed.is_err() { return },
                () = sleep(AGAIN) => {}
            }
            if *holds.borrow()
                && let Err(error) = Box::pin(self.reconcile()).await
            {
                tracing::warn!(%error, "the webhook's key could not be seen to; it is tried again");
            }
            if !*self.is_known.borrow() && self.is_told().await {
                sleep(OBEYED).await;
                tracing::info!("the API server knows the webhook");
                self.is_known.send_replace(true);
            }
        }
    }

    /// By the holder, whoever that is. What can't be read is looked at again.
    async fn is_told(&self) -> bool {
        for (kind, name) in CONFIGURATIONS {
            let found = call(self.configurations(kind).get_opt(name)).await;
            let found = match found {
                Ok(Some(found)) => serde_json::to_value(&found).unwrap_or_default(),
                // Nobody installed it: nobody asks.
                Ok(None) => continue,
                Err(error) => {
                    tracing::debug!(%error, name, "a webhook's configuration can't be read");
                    return false;
                }
            };
            if with_bundle(&found, &self.content.text).is_some() {
                return false;
            }
        }
        true
    }

    fn changes(&self) -> Vec<futures_util::stream::BoxStream<'static, Option<Secret>>> {
        let quiet = |error: &dyn fmt::Display| {
            tracing::debug!(%error, "a watch of the webhook's objects broke");
            None
        };
        let secret = watch_object(self.secrets(), SECRET).default_backoff();
        let secret = secret.map(move |it| it.unwrap_or_else(|error| quiet(&error)));
        let mut all = vec![secret.boxed()];
        for (kind, name) in CONFIGURATIONS {
            let changed = watch_object(self.configurations(kind), name).default_backoff();
            // What it says is read again when it is acted on.
            all.push(changed.map(|_| None).boxed());
        }
        all
    }

    fn configurations(&self, kind: &str) -> Api<DynamicObject> {
        let kind = GroupVersionKind::gvk("admissionregistration.k8s.io", "v1", kind);
        Api::all_with(self.cluster.client.clone(), &ApiResource::from_gvk(&kind))
    }

    fn take(&mut self, secret: Option<Secret>) {
        let Some(secret) = secret else {
            return;
        };
        match Content::read(&secret) {
            Ok(content) => {
                if self.content.serving.key.cert != content.serving.key.cert {
                    tracing::info!("the webhook shows another key from now on");
                    self.keys.send_replace(content.serving.key.clone());
                }
                self.content = content;
            }
            Err(error) => {
                tracing::error!(%error, "the webhook's Secret can't be used; the loaded key stays");
            }
        }
    }

    /// One look at everything; what has been changed comes back as a change.
    async fn reconcile(&mut self) -> anyhow::Result<()> {
        if call(self.secrets().get_metadata_opt(SECRET))
            .await?
            .is_none()
        {
            // What the API server trusts is in memory still: the same again.
            let mut again = self.content.secret.clone();
            again.metadata = metadata();
            let secret = create(&self.secrets(), &again).await?;
            tracing::warn!("the webhook's Secret was gone and is back");
            self.take(Some(secret));
        }
        for (kind, name) in CONFIGURATIONS {
            self.tell(kind, name).await?;
        }
        let step = decide(&self.content, self.clock.now());
        let made = match step {
            Step::Rest => return Ok(()),
            Step::Prepare => Some(serving::make(&names(&self.cluster.namespace), self.clock)?),
            Step::Promote | Step::Prune => None,
        };
        tracing::info!(?step, "the webhook's key is renewed");
        let secret = after(&self.content, step, made.as_ref());
        let parameters = PostParams::default();
        let secrets = self.secrets();
        let written = call(secrets.replace(SECRET, &parameters, &secret)).await?;
        self.take(Some(written));
        for (kind, name) in CONFIGURATIONS {
            self.tell(kind, name).await?;
        }
        Ok(())
    }

    /// The API server is to trust what `ca.crt` holds.
    async fn tell(&self, kind: &str, name: &str) -> Result<(), Failure> {
        let configurations = self.configurations(kind);
        let Some(found) = call(configurations.get_opt(name)).await? else {
            return Ok(());
        };
        let found = serde_json::to_value(&found).map_err(kube::Error::SerdeError)?;
        let Some(patch) = with_bundle(&found, &self.content.text) else {
            return Ok(());
        };
        let (parameters, patch) = (PatchParams::default(), Patch::Merge(&patch));
        call(configurations.patch(name, &parameters, &patch)).await?;
        tracing::info!(kind, name, "the API server is told whom to trust");
        Ok(())
    }
}

fn names(namespace: &str) -> [String; 2] {
    [
        format!("{SERVICE}.{namespace}.svc"),
        format!("{SERVICE}.{namespace}.svc.cluster.local"),
    ]
}

fn metadata() -> ObjectMeta {
    let label = ("app.kubernetes.io/managed-by", "weft-control-plane");
    ObjectMeta {
        name: Some(SECRET.to_owned()),
        labels: Some([(label.0.to_owned(), label.1.to_owned())].into()),
        ..ObjectMeta::default()
    }
}

fn made_secret(namespace: &str, clock: Wall) -> anyhow::Result<Secret> {
    let made = serving::make(&names(namespace), clock)?;
    let data = [
        (CERTIFICATE, &made.certificate),
        (KEY, &made.key),
        (ROOTS, &made.authority),
    ];
    Ok(Secret {
        metadata: metadata(),
        type_: Some("kubernetes.io/tls".to_owned()),
        data: Some(BTreeMap::from(
            data.map(|(key, text)| (key.to_owned(), bytes(text))),
        )),
        ..Secret::default()
    })
}

/// On conflict another replica's.
async fn create(secrets: &Api<Secret>, secret: &Secret) -> Result<Secret, Failure> {
    match call(secrets.create(&PostParams::default(), secret)).await {
        Err(error) if error.is_conflict() => call(secrets.get(SECRET)).await,
        answer => answer,
    }
}

#[cfg(test)]
mod tests;

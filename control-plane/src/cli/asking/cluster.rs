//! The control plane in a cluster, reached as `kubectl port-forward` would.
//!
//! Its report is served on the pod's loopback alone, and the API server carries
//! us there: whoever may forward a port into the pods of that namespace may
//! ask. Every replica is asked, since each knows its own proxies.

use anyhow::{Context, anyhow, bail};
use futures_util::future::join_all;
use http::StatusCode;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, ResourceExt, api::ListParams, client::UpgradeConnectionError};
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::{DEADLINE, ask, read};
use crate::{cli::kubeconfig, cluster::REPLICAS, status::PORT};

/// Which cluster, by the usual rules, and where in it.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Where {
    #[command(flatten)]
    cluster: kubeconfig::Cluster,
    /// Namespace of the control plane; default: weft-system
    #[arg(long, value_name = "NAME")]
    namespace: Option<String>,
}

/// Of each replica, by its pod's name.
pub(super) type Answers<T> = Vec<(String, anyhow::Result<T>)>;

impl Where {
    pub(super) const fn is_named(&self) -> bool {
        self.cluster.is_named() || self.namespace.is_some()
    }

    /// # Errors
    /// When the cluster can't be reached, or has no control plane there.
    pub(super) async fn ask<T: DeserializeOwned>(
        &self,
        target: &str,
    ) -> anyhow::Result<Answers<T>> {
        let namespace = self.namespace.as_deref().unwrap_or("weft-system");
        let client = Box::pin(self.cluster.client()).await?;
        let pods: Api<Pod> = Api::namespaced(client, namespace);
        let parameters = ListParams::default().labels(REPLICAS);
        let listed = timeout(DEADLINE, Box::pin(pods.list(&parameters))).await;
        let listed = listed
            .context("the API server did not answer in time")?
            .with_context(|| format!("finding the control plane in namespace {namespace}"))?;
        let is_going = |it: &Pod| it.metadata.deletion_timestamp.is_some();
        let replicas: Vec<_> = listed.items.iter().filter(|it| !is_going(it)).collect();
        if replicas.is_empty() {
            bail!(
                "namespace {namespace} has no control plane (pods labelled {REPLICAS}); --namespace names another"
            );
        }
        let answers = replicas.into_iter().map(|pod| async {
            let name = pod.name_any();
            let answer = match phase(pod) {
                "Running" => read(timeout(DEADLINE, through(&pods, &name, target)).await),
                phase => Err(anyhow!("its pod is {phase}")),
            };
            (name, answer)
        });
        Ok(join_all(answers).await)
    }
}

fn phase(pod: &Pod) -> &str {
    let phase = pod.status.as_ref().and_then(|it| it.phase.as_deref());
    phase.unwrap_or("Pending")
}

async fn through(pods: &Api<Pod>, name: &str, target: &str) -> anyhow::Result<bytes::Bytes> {
    let forwarded = Box::pin(pods.portforward(name, &[PORT])).await;
    let mut forwarded = forwarded.map_err(explained)?;
    let stream = forwarded.take_stream(PORT);
    let stream = stream.context("no port was forwarded")?;
    let refused = forwarded.take_error(PORT);
    let answer = ask(stream, target).await;
    let (Err(error), Some(refused)) = (&answer, refused) else {
        return answer;
    };
    // What broke the connection is told beside it, perhaps a moment later.
    match timeout(std::time::Duration::from_millis(500), refused).await {
        Ok(Some(why)) => bail!("port {PORT} of its pod: {}", why.trim()),
        _ => Err(anyhow!("{error:#}")),
    }
}

fn explained(error: kube::Error) -> anyhow::Error {
    match &error {
        kube::Error::UpgradeConnection(UpgradeConnectionError::ProtocolSwitch(
            StatusCode::FORBIDDEN,
        )) => anyhow!(
            "you may not forward ports into it: ask for the verbs get and create on pods/portforward there"
        ),
        _ => anyhow::Error::new(error).context("forwarding a port into it"),
    }
}

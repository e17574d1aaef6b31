//! Which cluster a subcommand means, found as `kubectl` finds it.
//!
//! For all that reach one: `asking` and `ca`. What they may do there is what the
//! user of that context may.

use std::path::PathBuf;

use anyhow::Context;
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};

#[derive(Clone, Debug, Default, clap::Args)]
pub(super) struct Cluster {
    /// Context of the kubeconfig; default: the current one
    #[arg(long, global = true, value_name = "NAME")]
    context: Option<String>,
    /// Kubeconfig, instead of those that KUBECONFIG names or the one at home
    #[arg(long, global = true, value_name = "PATH")]
    kubeconfig: Option<PathBuf>,
}

/// Whether anything says where a cluster would be.
pub(super) fn is_known() -> bool {
    let of_context = |it: &Kubeconfig| it.current_context.is_some();
    Kubeconfig::read().is_ok_and(|it| of_context(&it)) || Config::incluster().is_ok()
}

impl Cluster {
    pub(super) const fn is_named(&self) -> bool {
        self.context.is_some() || self.kubeconfig.is_some()
    }

    /// # Errors
    /// When there is no such file or context, or nothing says where a cluster is.
    pub(super) async fn client(&self) -> anyhow::Result<Client> {
        Ok(Client::try_from(self.config().await?)?)
    }

    async fn config(&self) -> anyhow::Result<Config> {
        let options = KubeConfigOptions {
            context: self.context.clone(),
            ..KubeConfigOptions::default()
        };
        Ok(match &self.kubeconfig {
            Some(path) => {
                let given = Kubeconfig::read_from(path)?;
                Config::from_custom_kubeconfig(given, &options).await?
            }
            None if self.context.is_some() => Config::from_kubeconfig(&options).await?,
            None => Config::infer()
                .await
                .context("finding the cluster (--kubeconfig, KUBECONFIG, --context)")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &str = "
apiVersion: v1
kind: Config
current-context: shop
contexts:
- {name: shop, context: {cluster: shop, user: nobody}}
- {name: depot, context: {cluster: depot, user: nobody}}
clusters:
- {name: shop, cluster: {server: 'https://shop.example:6443'}}
- {name: depot, cluster: {server: 'https://depot.example:6443'}}
users:
- {name: nobody, user: {}}
";

    #[tokio::test]
    async fn a_named_context_of_a_named_file_is_the_one_that_is_asked() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("kubeconfig");
        std::fs::write(&path, TWO).unwrap();
        let asked = async |context: Option<&str>| {
            let cluster = Cluster {
                context: context.map(str::to_owned),
                kubeconfig: Some(path.clone()),
            };
            let config = cluster.config().await;
            config.map(|it| it.cluster_url.host().unwrap_or_default().to_owned())
        };
        assert_eq!(asked(None).await.unwrap(), "shop.example");
        assert_eq!(asked(Some("depot")).await.unwrap(), "depot.example");
        assert!(asked(Some("nowhere")).await.is_err());
    }
}

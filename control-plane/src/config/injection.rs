//! What the webhook gives to pods: knobs that `weft inject` has as well.
//!
//! Part of `config`; becomes the settings of `admission`.

use clap::{ArgAction, Args};

use crate::admission::{self, Resources, Settings};

#[derive(Clone, Debug, Args)]
pub(crate) struct Injection {
    /// Image of the proxies that pods get
    #[arg(
        long,
        env = "WEFT_PROXY_IMAGE",
        default_value = concat!("weft.dev/proxy:", env!("CARGO_PKG_VERSION"))
    )]
    proxy_image: String,

    /// When nodes fetch the proxy's image: Always, IfNotPresent or Never
    #[arg(
        long,
        env = "WEFT_PROXY_PULL_POLICY",
        default_value = "IfNotPresent",
        value_parser = ["Always", "IfNotPresent", "Never"]
    )]
    proxy_pull_policy: String,

    /// Secrets of the pods' own namespaces that nodes show the registry of the proxy's image
    #[arg(
        long,
        env = "WEFT_PROXY_PULL_SECRETS",
        value_name = "NAME",
        value_delimiter = ',',
        value_parser = secret
    )]
    proxy_pull_secrets: Vec<String>,

    // Whoever reaches that port reads it, under strict mutual TLS and deny-all too.
    /// Whether pods with the annotation prometheus.io/scrape have their metrics served by their proxies, in plaintext
    #[arg(
        long,
        env = "WEFT_PROXY_APPLICATION_METRICS",
        value_name = "true|false",
        default_value_t = false,
        action = ArgAction::Set
    )]
    proxy_application_metrics: bool,

    /// Control plane as pods reach it, HOST:PORT
    #[arg(
        long,
        alias = "control-plane",
        env = "WEFT_PROXY_CONTROL_PLANE",
        default_value = "weft-control-plane.weft-system.svc:15010"
    )]
    proxy_control_plane: String,

    /// CPU that a proxy requests
    #[arg(long, env = "WEFT_PROXY_CPU_REQUEST", default_value = "20m", value_parser = quantity)]
    proxy_cpu_request: String,

    /// Memory that a proxy requests
    #[arg(long, env = "WEFT_PROXY_MEMORY_REQUEST", default_value = "32Mi", value_parser = quantity)]
    proxy_memory_request: String,

    /// CPU limit of a proxy where the namespace or a Guaranteed pod demands one
    #[arg(long, env = "WEFT_PROXY_CPU_LIMIT", default_value = "500m", value_parser = quantity)]
    proxy_cpu_limit: String,

    /// Memory limit of a proxy where the namespace or a Guaranteed pod demands one
    #[arg(long, env = "WEFT_PROXY_MEMORY_LIMIT", default_value = "256Mi", value_parser = quantity)]
    proxy_memory_limit: String,
}

fn secret(text: &str) -> Result<String, String> {
    match admission::is_name(text) {
        true => Ok(text.to_owned()),
        false => Err("a name is of lower-case letters, digits, dashes and dots".to_owned()),
    }
}

fn quantity(text: &str) -> Result<String, String> {
    match admission::is_quantity(text) {
        true => Ok(text.to_owned()),
        false => Err("a quantity is like 100m, 1, 64Mi or 1Gi".to_owned()),
    }
}

impl Injection {
    pub(crate) fn settings(&self, trust_domain: &str, trust_bundle: &str) -> Settings {
        Settings {
            image: self.proxy_image.clone(),
            pull_policy: self.proxy_pull_policy.clone(),
            control_plane: self.proxy_control_plane.clone(),
            trust_domain: trust_domain.to_owned(),
            trust_bundle: trust_bundle.to_owned(),
            resources: Resources {
                cpu_request: self.proxy_cpu_request.clone(),
                memory_request: self.proxy_memory_request.clone(),
                cpu_limit: self.proxy_cpu_limit.clone(),
                memory_limit: self.proxy_memory_limit.clone(),
            },
            pull_secrets: self.proxy_pull_secrets.clone(),
            application_metrics: self.proxy_application_metrics,
        }
    }
}

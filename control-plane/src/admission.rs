//! The door of the Kubernetes API: gives pods their proxy, and refuses what the
//! mesh could not carry.
//!
//! `inject` is pure, one function from a pod to a pod; the webhook (`server`,
//! `review`) and `weft inject` call it alike. `app` starts the server; what it
//! has to know about a namespace comes through a function that `app` fills.
//!
//! Never speaks to the API server, and never takes a pod that it can't make
//! safe: what it refuses says what to do instead.

pub(crate) mod annotations;
pub(crate) mod inject;
pub(crate) mod metrics;
mod patch;
mod pod;
mod probes;
mod refusals;
mod resources;
mod review;
mod scrape;
pub(crate) mod server;
mod sidecar;
pub(crate) mod workload;

pub(crate) use review::token;

/// Why a pod is not taken: field, reason, remedy; as where manifests are read.
pub(crate) use crate::sources::manifest::Refusal;

/// What an installation gives to every proxy.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Settings {
    pub(crate) image: String,
    pub(crate) pull_policy: String,
    /// `host:port`, as pods reach it.
    pub(crate) control_plane: String,
    pub(crate) trust_domain: String,
    /// Roots in PEM that a new pod begins with.
    pub(crate) trust_bundle: String,
    pub(crate) resources: Resources,
    /// Secrets of the pods' own namespaces that nodes show the image's registry.
    pub(crate) pull_secrets: Vec<String>,
    /// The metrics of every pod that says it is scraped are opened at its proxy.
    pub(crate) application_metrics: bool,
}

/// As Kubernetes writes quantities.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Resources {
    pub(crate) cpu_request: String,
    pub(crate) memory_request: String,
    /// Where limits are demanded: by the namespace, or by the pod's class.
    pub(crate) cpu_limit: String,
    pub(crate) memory_limit: String,
}

impl Default for Resources {
    /// What an idle proxy needs, and what a busy one may take.
    fn default() -> Self {
        Self {
            cpu_request: "20m".to_owned(),
            memory_request: "32Mi".to_owned(),
            cpu_limit: "500m".to_owned(),
            memory_limit: "256Mi".to_owned(),
        }
    }
}

/// What has to be known of the pod's namespace.
#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct Namespace {
    pub(crate) labels: std::collections::BTreeMap<String, String>,
    pub(crate) cpu: Bounds,
    pub(crate) memory: Bounds,
}

/// What a container of the namespace may have of one resource.
#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct Bounds {
    /// Without a limit the API server would refuse the pod, or set one itself.
    pub(crate) demands_limit: bool,
    pub(crate) least: Option<String>,
    pub(crate) most: Option<String>,
    /// Of the limit to the request, at most.
    pub(crate) ratio: Option<String>,
}

/// As objects are called (RFC 1123 subdomain).
pub(crate) fn is_name(text: &str) -> bool {
    annotations::is_name(text)
}

/// Thousandths of a quantity; `None`: it is none.
pub(crate) fn amount(text: &str) -> Option<u128> {
    resources::amount(text)
}

/// As Kubernetes writes amounts of CPU and memory; more than none.
pub(crate) fn is_quantity(text: &str) -> bool {
    resources::amount(text).is_some_and(|it| it > 0)
}

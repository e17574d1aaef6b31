//! Starts the webhook: its listener, keys of the cluster, what pods are given.
//!
//! `app` calls it where the authority is the cluster's. Settings are made anew
//! for every pod, since the roots that it begins with may have changed.

use std::{fmt::Write, sync::Arc};

use anyhow::Context;
use base64::{Engine, engine::general_purpose::STANDARD};
use rustls_pki_types::CertificateDer;
use tokio::{net::TcpListener, sync::watch};
use tokio_rustls::rustls::server::ResolvesServerCert;

use crate::{
    admission::{
        metrics::Metrics,
        server::{self, Webhook},
    },
    ca::bundle::Roots,
    cluster::{Cluster, namespace},
    config::Config,
    runtime::{self, Task},
};

/// `None` where nobody asked for it.
///
/// # Errors
/// When the address is taken.
pub(super) async fn start(
    config: &Config,
    cluster: &Cluster,
    keys: Arc<dyn ResolvesServerCert>,
    roots: watch::Receiver<Roots>,
    (metrics, leaving): (Metrics, watch::Receiver<bool>),
) -> anyhow::Result<Option<Task>> {
    let Some(address) = config.webhook_listen else {
        return Ok(None);
    };
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("listening on {address} (--webhook-listen)"))?;
    let tls = server::tls(keys)?;
    let (injection, trust_domain) = (config.injection.clone(), config.trust_domain.clone());
    let cluster = cluster.clone();
    let webhook = Webhook {
        settings: Arc::new(move || {
            let bundle = to_pem(&roots.borrow());
            (!bundle.is_empty()).then(|| injection.settings(&trust_domain, &bundle))
        }),
        namespace: Arc::new(move |name| {
            Box::pin(namespace::known(cluster.clone(), name.to_owned()))
        }),
    };
    tracing::info!(%address, "the webhook serves");
    let serving = server::serve(listener, tls, webhook, metrics, leaving);
    Ok(Some(runtime::spawn(serving)))
}

/// RFC 7468.
fn to_pem(roots: &[CertificateDer<'static>]) -> String {
    let mut pem = String::new();
    for root in roots {
        pem.push_str("-----BEGIN CERTIFICATE-----\n");
        for line in STANDARD.encode(root).as_bytes().chunks(64) {
            // A string takes text.
            let _ = writeln!(pem, "{}", String::from_utf8_lossy(line));
        }
        pem.push_str("-----END CERTIFICATE-----\n");
    }
    pem
}

#[cfg(test)]
mod tests {
    use rustls_pki_types::pem::PemObject;

    use super::*;

    #[test]
    fn what_a_pod_is_given_reads_as_the_roots() {
        let roots: Vec<_> = [vec![7; 100], vec![9; 48]].map(CertificateDer::from).into();
        let pem = to_pem(&roots);
        assert!(pem.lines().all(|line| line.len() <= 64));
        let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
        assert_eq!(read.unwrap(), roots);
        assert_eq!(to_pem(&[]), "");
    }
}

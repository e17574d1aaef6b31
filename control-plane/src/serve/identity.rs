//! `Identity.Certify`: a token and a request in, a short-lived leaf out.
//!
//! The identity comes from the token's verified claims, and only when the pod
//! that they name is in the mesh and runs as that account. Verifying and
//! signing are traits that `app` fills: here is the order, and what is counted.

use std::{pin::Pin, sync::Arc};

use bytes::Bytes;
use rustls_pki_types::CertificateDer;
use tokio::sync::watch;
use tonic::{Request, Response, Status, async_trait};
use weft_proto::v1::{CertifyRequest, CertifyResponse, identity_server};

use crate::{
    model::Name,
    serve::{
        discovery::refusal,
        hub::{Certified, Hub, Stranger},
        metrics::{Metrics, Reason},
    },
};

/// A request and a token fit; nothing else has to.
pub(crate) const LONGEST_REQUEST: usize = 64 * 1024;

/// Who a verified token speaks for.
#[derive(Clone, Debug)]
pub(crate) struct Bearer {
    pub(crate) pod: Name,
    /// Empty where the token names none.
    pub(crate) uid: String,
    pub(crate) service_account: String,
}

/// Verifies tokens: a key at hand, or a question to a cluster.
pub(crate) trait Tokens: Send + Sync {
    /// # Errors
    /// Why not, for the caller and the log.
    fn verify<'a>(
        &'a self,
        token: &'a str,
    ) -> Pin<Box<dyn Future<Output = Result<Bearer, String>> + Send + 'a>>;
}

/// A signed leaf.
#[derive(Clone, Debug)]
pub(crate) struct Leaf {
    /// DER, leaf first, without the root.
    pub(crate) chain: Vec<CertificateDer<'static>>,
    /// Seconds since the epoch.
    pub(crate) issued: u64,
    pub(crate) expires: u64,
}

/// Signs the key of a certificate request.
pub(crate) trait Signer: Send + Sync {
    /// # Errors
    /// Why not, for the caller and the log.
    fn sign(&self, request: &[u8], identity: &str) -> Result<Leaf, String>;
}

pub(crate) struct Identity {
    pub(crate) hub: Hub,
    pub(crate) tokens: Arc<dyn Tokens>,
    pub(crate) signer: Arc<dyn Signer>,
    pub(crate) roots: watch::Receiver<Arc<[CertificateDer<'static>]>>,
    pub(crate) metrics: Metrics,
}

#[async_trait]
impl identity_server::Identity for Identity {
    async fn certify(
        &self,
        request: Request<CertifyRequest>,
    ) -> Result<Response<CertifyResponse>, Status> {
        let request = request.into_inner();
        match self.answer(&request).await {
            Ok(answer) => Ok(Response::new(answer)),
            Err((reason, status)) => {
                self.metrics.refuse_certificate(reason);
                tracing::warn!(
                    reason = reason.as_str(),
                    detail = status.message(),
                    "a certificate was refused"
                );
                Err(status)
            }
        }
    }
}

impl Identity {
    async fn answer(&self, request: &CertifyRequest) -> Result<CertifyResponse, (Reason, Status)> {
        let stopping = |_| {
            (
                Reason::NotReady,
                Status::unavailable("the control plane is stopping"),
            )
        };
        let bearer = self.tokens.verify(&request.token).await;
        let bearer = bearer.map_err(|error| (Reason::Token, Status::unauthenticated(error)))?;
        let Bearer {
            pod,
            uid,
            service_account,
        } = bearer;
        let named = pod.clone();
        let known = self
            .hub
            .ask(move |state| state.recognize(&named, &uid, &service_account))
            .await;
        let identity = known
            .map_err(stopping)?
            .map_err(|error| (reason_of(&error), refusal(&error)))?;
        let leaf = self
            .signer
            .sign(&request.certificate_signing_request, &identity);
        let leaf = leaf.map_err(|error| (Reason::Request, Status::invalid_argument(error)))?;
        tracing::info!(%pod, identity, "a certificate was issued");
        let certified = Certified {
            identity,
            issued: leaf.issued,
            expires: leaf.expires,
        };
        self.hub
            .ask(move |state| state.certified(pod, certified))
            .await
            .map_err(stopping)?;
        self.metrics.certificates.inc();
        let bytes = |der: &CertificateDer<'_>| Bytes::copy_from_slice(der);
        let roots = self.roots.borrow().iter().map(bytes).collect();
        Ok(CertifyResponse {
            chain: leaf.chain.iter().map(bytes).collect(),
            roots,
        })
    }
}

const fn reason_of(error: &Stranger) -> Reason {
    match error {
        Stranger::NotReady => Reason::NotReady,
        Stranger::Pod(_) | Stranger::Uid => Reason::Pod,
        Stranger::Account => Reason::Account,
    }
}

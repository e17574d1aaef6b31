//! `Identity.Certify`: a token and a request in, a short-lived leaf out.
//!
//! The identity comes from the token's verified claims, and only when the pod
//! that they name is in the mesh and runs as that account. What the index does
//! not know for certain is asked of the cluster once. Verifying and signing are
//! traits that `app` fills: here is the order, and what is counted.

use std::{net::IpAddr, pin::Pin, sync::Arc};

use bytes::Bytes;
use rustls_pki_types::CertificateDer;
use tokio::sync::watch;
use tonic::{Request, Response, Status, async_trait};
use weft_proto::v1::{CertifyRequest, CertifyResponse, identity_server};

use crate::{
    identity::spiffe,
    model::Name,
    roots::Fingerprint,
    serve::{
        accept::Peer,
        discovery::refusal,
        hub::{Certified, Hub, Stopping, Stranger},
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

/// Why a token proves nothing, for the caller and the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Unverified {
    Refused(String),
    /// Nobody could be asked.
    Unavailable(String),
}

/// What is known of a pod beyond the index.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Confirmed {
    /// It is there, with this UID and account, and has not ended.
    Runs,
    /// And why not.
    DoesNotRun(String),
    /// There is nothing beyond the index.
    AsIndexed,
}

pub(crate) type Asking<'a, T> = Pin<Box<dyn Future<Output = Result<T, Unverified>> + Send + 'a>>;

/// Verifies tokens: a key at hand, or a question to a cluster. `from` is whose
/// question it is: no address may keep others from asking.
pub(crate) trait Tokens: Send + Sync {
    /// # Errors
    /// Why not.
    fn verify<'a>(&'a self, token: &'a str, from: Option<IpAddr>) -> Asking<'a, Bearer>;

    /// Asked where the index does not know the pod, knows another by its name,
    /// or can't tell whether it has ended.
    ///
    /// # Errors
    /// When nobody can be asked.
    fn confirm<'a>(&'a self, bearer: &'a Bearer, from: Option<IpAddr>) -> Asking<'a, Confirmed>;
}

/// A signed leaf.
#[derive(Clone, Debug)]
pub(crate) struct Leaf {
    /// DER, leaf first, without the root.
    pub(crate) chain: Vec<CertificateDer<'static>>,
    /// Seconds since the epoch.
    pub(crate) issued: u64,
    pub(crate) expires: u64,
    /// In which it ends.
    pub(crate) root: Fingerprint,
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
        let peer = request.extensions().get::<Peer>();
        let from = peer.and_then(|it| it.pass.source());
        let request = request.into_inner();
        match self.answer(&request, from).await {
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
    async fn answer(
        &self,
        request: &CertifyRequest,
        from: Option<IpAddr>,
    ) -> Result<CertifyResponse, (Reason, Status)> {
        let bearer = self.tokens.verify(&request.token, from).await;
        let bearer = bearer.map_err(unverified)?;
        let identity = self.identity(&bearer, from).await?;
        let pod = bearer.pod;
        let leaf = self
            .signer
            .sign(&request.certificate_signing_request, &identity);
        let leaf = leaf.map_err(|error| (Reason::Request, Status::invalid_argument(error)))?;
        tracing::info!(%pod, identity, "a certificate was issued");
        let certified = Certified {
            identity,
            issued: leaf.issued,
            expires: leaf.expires,
            root: leaf.root,
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

    /// Whom the bearer speaks for, if its pod runs.
    async fn identity(
        &self,
        bearer: &Bearer,
        from: Option<IpAddr>,
    ) -> Result<String, (Reason, Status)> {
        let named = bearer.clone();
        let asked = self.hub.ask(move |state| {
            let account = Name::new(&named.pod.namespace, &named.service_account);
            let known = state.recognize(&named.pod, &named.uid, &named.service_account);
            // A finished pod keeps its name and loses its addresses; a new one has none yet.
            let is_certain = state.has_addresses(&named.pod);
            (known, is_certain, spiffe(&state.trust_domain, &account))
        });
        let (known, is_certain, identity) = asked.await.map_err(stopping)?;
        let doubtful = match &known {
            Ok(_) => !is_certain,
            Err(Stranger::Pod(_) | Stranger::Uid) => true,
            Err(Stranger::NotReady | Stranger::Account) => false,
        };
        if doubtful {
            let confirmed = self.tokens.confirm(bearer, from).await;
            match confirmed.map_err(unverified)? {
                Confirmed::Runs => return Ok(identity),
                Confirmed::DoesNotRun(why) => {
                    return Err((Reason::Pod, Status::failed_precondition(why)));
                }
                Confirmed::AsIndexed => {}
            }
        }
        known.map_err(|error| (reason_of(&error), refusal(&error)))
    }
}

fn stopping(_: Stopping) -> (Reason, Status) {
    (
        Reason::NotReady,
        Status::unavailable("the control plane is stopping"),
    )
}

fn unverified(error: Unverified) -> (Reason, Status) {
    match error {
        Unverified::Refused(why) => (Reason::Token, Status::unauthenticated(why)),
        Unverified::Unavailable(why) => (Reason::Unverifiable, Status::unavailable(why)),
    }
}

const fn reason_of(error: &Stranger) -> Reason {
    match error {
        Stranger::NotReady => Reason::NotReady,
        Stranger::Pod(_) | Stranger::Uid => Reason::Pod,
        Stranger::Account => Reason::Account,
    }
}

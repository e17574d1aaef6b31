//! `Replicas.Report`: what another replica knows of its proxies.
//!
//! Served on the port of the proxies, to callers with the control plane's own
//! identity, while this replica holds the Lease; `hub` keeps what was told. The
//! other side, `caller`, is driven by `cluster`, which knows who the holder is.

pub(crate) mod caller;
mod wire;

use std::sync::Arc;

use tokio::sync::watch;
use tonic::{Request, Response, Status, async_trait};
use weft_proto::v1::{ReportRequest, ReportResponse, replicas_server};

use crate::{
    clock::Wall,
    identity,
    serve::{accept::Peer, hub::Hub, tls::Tls},
};

/// A mesh of 50,000 pods fits.
pub(crate) const LONGEST_REPORT: usize = 16 * 1024 * 1024;
/// A pod's name is no longer (RFC 1123 subdomain).
const LONGEST_NAME: usize = 253;

pub(crate) struct Replicas {
    pub(crate) hub: Hub,
    /// Whether this replica holds the Lease.
    pub(crate) holds: watch::Receiver<bool>,
    pub(crate) tls: watch::Receiver<Arc<Tls>>,
    pub(crate) clock: Wall,
    pub(crate) trust_domain: String,
}

#[async_trait]
impl replicas_server::Replicas for Replicas {
    async fn report(
        &self,
        request: Request<ReportRequest>,
    ) -> Result<Response<ReportResponse>, Status> {
        if !*self.holds.borrow() {
            return Err(Status::failed_precondition(
                "another replica holds the Lease",
            ));
        }
        let ReportRequest {
            replica,
            version,
            summary,
        } = request.into_inner();
        if replica.is_empty() || replica.len() > LONGEST_NAME {
            return Err(Status::invalid_argument("not the name of a replica"));
        }
        let summary = summary.map(wire::read).transpose();
        let summary = summary.map_err(Status::invalid_argument)?;
        let is_known = self
            .hub
            .ask(move |state| state.reported(&replica, version, summary));
        let is_known = is_known
            .await
            .map_err(|stopping| Status::unavailable(stopping.to_string()))?;
        Ok(Response::new(ReportResponse { whole: !is_known }))
    }
}

impl Replicas {
    /// Asked before anything of a report is read: it may be large. Each time: a
    /// connection may outlive its certificate and its root.
    pub(super) fn admit(&self, request: Request<()>) -> Result<Request<()>, Status> {
        let peer = request.extensions().get::<Peer>();
        let verified = peer
            .and_then(|it| it.verified.as_ref())
            .ok_or_else(|| Status::unauthenticated("a client certificate is required"))?;
        let tls = self.tls.borrow().clone();
        let now = tls
            .verify(&verified.chain, self.clock)
            .map_err(|error| Status::unauthenticated(error.to_string()))?;
        if now.identity != identity::control_plane(&self.trust_domain) {
            return Err(Status::permission_denied(
                "only the control plane tells of its proxies",
            ));
        }
        if let Some(peer) = peer {
            peer.pass.keep();
        }
        Ok(request)
    }
}

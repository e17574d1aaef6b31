//! Streams what the index says to proxies, and certifies them.
//!
//! A caller goes through `accept` (socket, TLS) and `tls` (who it is), then
//! `identity` for a certificate or `discovery` and `session` for its stream;
//! another replica tells by `replicas` what its proxies hold.
//! `hub` is the one task that owns the index: it knows who subscribes to what
//! (`stream`), renders (`render`) and keeps each resource encoded (`shelf`).
//! Signing and tokens come in by traits; nothing here knows files or keys.

pub(crate) mod accept;
pub(crate) mod discovery;
pub(crate) mod explain;
pub(crate) mod hub;
pub(crate) mod identity;
pub(crate) mod metrics;
mod render;
pub(crate) mod replicas;
mod resource;
pub(crate) mod session;
mod shelf;
mod stream;
pub(crate) mod tls;

use std::{io, sync::Arc, time::Duration};

use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    service::interceptor::InterceptedService,
    transport::{Server, server::Router},
};
use weft_proto::v1::{identity_server::IdentityServer, replicas_server::ReplicasServer};

/// A proxy has one stream and now and then a request.
const STREAMS: u32 = 16;
/// A dead peer that never said goodbye keeps its slot for no longer than both.
const KEEPALIVE: Duration = Duration::from_secs(20);
const KEEPALIVE_ANSWER: Duration = Duration::from_secs(10);

/// Carries connections to the services until the acceptor has ended, or
/// `going` says that this replica ends: then streams end, and callers are told
/// to go elsewhere.
///
/// # Errors
/// When HTTP/2 itself can't be served.
pub(crate) async fn run(
    acceptor: accept::Acceptor,
    identity: identity::Identity,
    discovery: discovery::Discovery,
    (replicas, mut going): (Option<replicas::Replicas>, watch::Receiver<bool>),
) -> Result<(), tonic::transport::Error> {
    let (sender, connections) = mpsc::channel::<io::Result<accept::Connection>>(64);
    let _acceptor = crate::runtime::spawn(acceptor.run(sender));
    let connections = ReceiverStream::new(connections);
    let going = async move {
        if going.wait_for(|it| *it).await.is_err() {
            // Nobody is left who could say so.
            std::future::pending::<()>().await;
        }
    };
    // Boxed: it is large, and there is one.
    let router = router(identity, discovery, replicas);
    Box::pin(router.serve_with_incoming_shutdown(connections, going)).await
}

fn router(
    identity: identity::Identity,
    discovery: discovery::Discovery,
    replicas: Option<replicas::Replicas>,
) -> Router {
    let identity = IdentityServer::from_arc(Arc::new(identity))
        .max_decoding_message_size(identity::LONGEST_REQUEST);
    let replicas = replicas.map(|it| {
        let it = Arc::new(it);
        let service = ReplicasServer::from_arc(it.clone());
        let service = service.max_decoding_message_size(replicas::LONGEST_REPORT);
        InterceptedService::new(service, move |request| it.admit(request))
    });
    Server::builder()
        .max_concurrent_streams(STREAMS)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE_ANSWER))
        .http2_max_header_list_size(16 * 1024)
        .add_service(identity)
        .add_service(discovery)
        .add_optional_service(replicas)
}

#[cfg(test)]
pub(crate) mod tests;

//! Tells the Lease's holder what this replica knows of its proxies.
//!
//! Part of `replicas`. One connection with the certificate of the moment, one
//! call at a time, each with a deadline; `cluster` decides whom to call and when.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::TlsConnector;
use tonic::{
    Status,
    transport::{Channel, Endpoint},
};
use weft_proto::v1::{ReportRequest, replicas_client::ReplicasClient};

use super::wire;
use crate::serve::{hub::Summary, tls::Tls};

const DIAL: Duration = Duration::from_secs(5);
const CALL: Duration = Duration::from_secs(5);

/// Why nothing was told.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Untold {
    #[error("no connection: {0}")]
    Connection(#[from] tonic::transport::Error),
    #[error("{}", .0.message())]
    Refused(#[from] Status),
    #[error("no answer in time")]
    Timeout,
}

#[derive(Clone, Debug)]
pub(crate) struct Caller(ReplicasClient<Channel>);

impl Caller {
    pub(crate) async fn dial(address: SocketAddr, tls: &Tls) -> Result<Self, Untold> {
        let config = tls.to_replica.clone();
        let connector = tower::service_fn(move |_| {
            let connector = TlsConnector::from(config.clone());
            async move {
                let socket = TcpStream::connect(address).await?;
                socket.set_nodelay(true)?;
                // Whom we mean is an identity, not a name.
                let name = ServerName::from(address.ip());
                let stream = connector.connect(name, socket).await?;
                Ok::<_, io::Error>(TokioIo::new(stream))
            }
        });
        let endpoint = Endpoint::from_static("http://control-plane");
        let dialling = endpoint.connect_with_connector(connector);
        let channel = timeout(DIAL, dialling)
            .await
            .map_err(|_| Untold::Timeout)??;
        Ok(Self(ReplicasClient::new(channel)))
    }

    /// Whether that is understood; else it has to be told whole.
    pub(crate) async fn report(
        &mut self,
        replica: &str,
        version: u64,
        summary: Option<&Arc<Summary>>,
    ) -> Result<bool, Untold> {
        let request = ReportRequest {
            replica: replica.to_owned(),
            version,
            summary: summary.map(|it| wire::write(it)),
        };
        let asked = timeout(CALL, self.0.report(request)).await;
        let answer = asked.map_err(|_| Untold::Timeout)??;
        Ok(!answer.into_inner().whole)
    }
}

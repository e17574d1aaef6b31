//! The probe over gRPC: `grpc.health.v1.Health/Check` in plaintext. SERVING
//! passes, everything else doesn't.

use std::io;

use http::uri::PathAndQuery;
use hyper_util::rt::TokioIo;
use prost::Message;
use tokio::net::TcpStream;
use tonic::{Request, client::Grpc, transport::Endpoint};
use tonic_prost::ProstCodec;
use tower::service_fn;

#[derive(Clone, PartialEq, Message)]
struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

#[derive(Clone, PartialEq, Message)]
struct HealthCheckResponse {
    #[prost(int32, tag = "1")]
    status: i32,
}

const SERVING: i32 = 1;

/// The answer is a few bytes.
const LONGEST_ANSWER: usize = 16 * 1024;

pub(super) async fn check(stream: TcpStream, service: &str) -> io::Result<bool> {
    let mut once = Some(TokioIo::new(stream));
    let connector = service_fn(move |_| {
        let stream = once.take().ok_or(io::ErrorKind::NotConnected);
        std::future::ready(stream.map_err(io::Error::from))
    });
    let endpoint = Endpoint::from_static("http://probe");
    let connecting = Box::pin(endpoint.connect_with_connector(connector));
    let channel = connecting.await.map_err(io::Error::other)?;
    let mut client = Grpc::new(channel).max_decoding_message_size(LONGEST_ANSWER);
    client.ready().await.map_err(io::Error::other)?;
    let request = HealthCheckRequest {
        service: service.to_owned(),
    };
    let codec = ProstCodec::<HealthCheckRequest, HealthCheckResponse>::default();
    let path = PathAndQuery::from_static("/grpc.health.v1.Health/Check");
    let answer = Box::pin(client.unary(Request::new(request), path, codec)).await;
    let answer = answer.map_err(io::Error::other)?;
    Ok(answer.into_inner().status == SERVING)
}

//! The kubelet's grpc probe: `grpc.health.v1.Health/Check` in plaintext
//! (pkg/probe/grpc). SERVING is well, everything else is not.

use std::{future::pending, io};

use bytes::{BufMut, Bytes, BytesMut};
use h2::{RecvStream, client};
use http::{HeaderMap, Method, Request, StatusCode, header};
use prost::Message;
use serde::Deserialize;

use super::{Answered, From};

#[derive(Clone, PartialEq, Debug, Deserialize)]
pub(super) struct Grpc {
    port: u16,
    #[serde(default)]
    service: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    pub(super) service: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct HealthCheckResponse {
    #[prost(int32, tag = "1")]
    pub(super) status: i32,
}

const SERVING: i32 = 1;

/// The answer is a few bytes.
const LONGEST_ANSWER: usize = 16 * 1024;

impl Grpc {
    pub(super) async fn ask(&self, from: &From) -> io::Result<Answered> {
        let stream = from.connect(self.port).await?;
        let (sender, connection) = client::handshake(stream).await.map_err(io::Error::other)?;
        let carried = async {
            // The answer ends when the connection does, not this.
            let _ended = connection.await;
            pending().await
        };
        tokio::select! {
            answer = self.check(sender, from) => answer,
            never = carried => never,
        }
    }

    async fn check(&self, sender: client::SendRequest<Bytes>, from: &From) -> io::Result<Answered> {
        let mut sender = sender.ready().await.map_err(io::Error::other)?;
        let request = Request::builder()
            .method(Method::POST)
            .uri(format!(
                "http://{}/grpc.health.v1.Health/Check",
                std::net::SocketAddr::new(from.address, self.port)
            ))
            .header(header::CONTENT_TYPE, "application/grpc")
            .header(header::TE, "trailers")
            .header(header::USER_AGENT, &from.agent)
            .body(())
            .map_err(io::Error::other)?;
        let (response, mut body) = sender
            .send_request(request, false)
            .map_err(io::Error::other)?;
        body.send_data(self.message(), true)
            .map_err(io::Error::other)?;
        let (head, body) = response.await.map_err(io::Error::other)?.into_parts();
        if head.status != StatusCode::OK {
            return Ok(Answered::Badly(format!("HTTP status {}", head.status)));
        }
        let (message, trailers) = read(body).await?;
        // An answer of trailers alone has its status among the headers.
        let status = status(&trailers).or_else(|| status(&head.headers));
        Ok(judge(status, &message))
    }

    /// One message with its prefix: not compressed, so long.
    fn message(&self) -> Bytes {
        let message = HealthCheckRequest {
            service: self.service.clone(),
        };
        let message = message.encode_to_vec();
        let mut framed = BytesMut::with_capacity(5 + message.len());
        framed.put_u8(0);
        framed.put_u32(u32::try_from(message.len()).unwrap_or_default());
        framed.put_slice(&message);
        framed.freeze()
    }
}

async fn read(mut body: RecvStream) -> io::Result<(BytesMut, HeaderMap)> {
    let mut message = BytesMut::new();
    while let Some(data) = body.data().await {
        let data = data.map_err(io::Error::other)?;
        if message.len() + data.len() > LONGEST_ANSWER {
            return Err(io::Error::other("the answer is too long"));
        }
        message.extend_from_slice(&data);
        let taken = body.flow_control().release_capacity(data.len());
        taken.map_err(io::Error::other)?;
    }
    let trailers = body.trailers().await.map_err(io::Error::other)?;
    Ok((message, trailers.unwrap_or_default()))
}

fn status(headers: &HeaderMap) -> Option<u32> {
    headers.get("grpc-status")?.to_str().ok()?.parse().ok()
}

fn judge(status: Option<u32>, message: &[u8]) -> Answered {
    match status {
        Some(0) => {}
        Some(status) => return Answered::Badly(format!("gRPC status {status}")),
        None => return Answered::Badly("no gRPC status".to_owned()),
    }
    let response = message
        .get(5..)
        .and_then(|it| HealthCheckResponse::decode(it).ok());
    match response {
        Some(response) if response.status == SERVING => Answered::Well,
        Some(response) => Answered::Badly(format!(
            "service unhealthy (responded with {})",
            match response.status {
                0 => "UNKNOWN",
                2 => "NOT_SERVING",
                3 => "SERVICE_UNKNOWN",
                _ => "a status that is none",
            }
        )),
        None => Answered::Badly("no answer of grpc.health.v1".to_owned()),
    }
}

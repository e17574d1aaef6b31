//! The discovery service of `fake`, which says bytes: a newer control plane
//! says more than our generated types can.
//!
//! Never compiled into the proxy.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    pin::Pin,
    task::{Context, Poll},
};

use bytes::BufMut;
use prost::Message;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Request, Response, Status, Streaming,
    body::Body,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    server::{Grpc, NamedService, StreamingService},
};
use tower::Service;
use weft_proto::v1::WatchRequest;

use super::FakeStream;

/// Each stream that the proxy opens goes to the test.
#[derive(Clone)]
pub(super) struct Discovery(pub(super) mpsc::UnboundedSender<FakeStream>);

impl NamedService for Discovery {
    const NAME: &'static str = "weft.v1.Discovery";
}

impl Service<http::Request<Body>> for Discovery {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let watch = self.clone();
        Box::pin(async move { Ok(Grpc::new(Wire).streaming(watch, request).await) })
    }
}

impl StreamingService<WatchRequest> for Discovery {
    type Response = Vec<u8>;
    type ResponseStream = ReceiverStream<Result<Vec<u8>, Status>>;
    type Future = Ready<Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: Request<Streaming<WatchRequest>>) -> Self::Future {
        let (responses, sending) = mpsc::channel(64);
        let _ = self.0.send(FakeStream {
            requests: request.into_inner(),
            responses,
            nonce: 0,
        });
        ready(Ok(Response::new(ReceiverStream::new(sending))))
    }
}

#[derive(Clone, Copy)]
struct Wire;

impl Codec for Wire {
    type Encode = Vec<u8>;
    type Decode = WatchRequest;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for Wire {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, bytes: Vec<u8>, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put_slice(&bytes);
        Ok(())
    }
}

impl Decoder for Wire {
    type Item = WatchRequest;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<WatchRequest>, Status> {
        WatchRequest::decode(from)
            .map(Some)
            .map_err(|error| Status::internal(error.to_string()))
    }
}

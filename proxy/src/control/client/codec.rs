//! Opens the discovery stream, and reads what comes with what it holds beyond
//! our knowledge.
//!
//! Part of `client`. The generated client would hand over messages without the
//! bytes that they came in, which are what `decode` counts unknown fields by.

use bytes::Buf;
use http::uri::PathAndQuery;
use prost::Message;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Status, Streaming,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    transport::Channel,
};
use weft_proto::v1::WatchRequest;

use crate::control::{
    decode::{self, Response},
    dial::Unreachable,
};

/// Of one message of the control plane.
const LARGEST_MESSAGE: usize = 16 << 20;

/// `weft.v1.Discovery.Watch`.
pub(super) async fn watch(
    channel: Channel,
    requests: ReceiverStream<WatchRequest>,
) -> Result<Streaming<Response>, Unreachable> {
    let mut client = Grpc::new(channel).max_decoding_message_size(LARGEST_MESSAGE);
    client.ready().await?;
    let path = PathAndQuery::from_static("/weft.v1.Discovery/Watch");
    let request = tonic::Request::new(requests);
    Ok(client.streaming(request, path, Both).await?.into_inner())
}

/// Requests out, validated responses in.
#[derive(Clone, Copy)]
struct Both;

impl Codec for Both {
    type Encode = WatchRequest;
    type Decode = Response;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for Both {
    type Item = WatchRequest;
    type Error = Status;

    fn encode(&mut self, request: WatchRequest, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        request
            .encode(to)
            .map_err(|error| Status::internal(error.to_string()))
    }
}

impl Decoder for Both {
    type Item = Response;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Response>, Status> {
        let bytes = from.copy_to_bytes(from.remaining());
        match decode::received(&bytes) {
            Ok(response) => Ok(Some(response)),
            Err(error) => Err(Status::internal(error.to_string())),
        }
    }
}

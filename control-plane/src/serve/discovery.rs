//! `Discovery.Watch`: from the first message to a session.
//!
//! After `accept` and `tls`, which proved who calls; checks that the pod named
//! in `Hello` is in the mesh and runs as the certificate's identity, then
//! starts its `session`. Not the generated service, because that would encode
//! every response anew: resources come encoded from `shelf` and are shared.

use std::{
    collections::HashMap,
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context as TaskContext, Poll, ready},
    time::Duration,
};

use bytes::{Buf, BufMut};
use prost::{Message as _, encoding::encode_varint};
use tokio::sync::{Notify, mpsc};
use tokio_stream::Stream;
use tonic::{
    Request, Status, Streaming,
    body::Body,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    server::{Grpc, NamedService, StreamingService},
};
use weft_proto::v1::{Hello, WatchRequest, watch_request::Message};
use weft_proxy::decide;

use crate::{
    model::Name,
    runtime::{self, Task},
    serve::{
        accept::Peer,
        hub::Stranger,
        metrics::Metrics,
        resource::ResourceName,
        session::{Context, Response, Session},
        stream::Caller,
    },
};

/// The first message names at most what a proxy may hold.
const LONGEST_REQUEST: usize = 4 * 1024 * 1024;
const HELLO_DEADLINE: Duration = Duration::from_secs(10);
const PATH: &str = "/weft.v1.Discovery/Watch";

#[derive(Clone, Debug)]
pub(crate) struct Discovery(pub(crate) Context);

impl NamedService for Discovery {
    const NAME: &'static str = weft_proto::v1::discovery_server::SERVICE_NAME;
}

impl tower::Service<http::Request<Body>> for Discovery {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut TaskContext<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        if request.uri().path() != PATH {
            return Box::pin(async { Ok(Status::unimplemented("no such method").into_http()) });
        }
        let watch = Watch(self.0.clone());
        Box::pin(async move {
            let codec = WatchCodec(watch.0.metrics.clone());
            let mut grpc =
                Grpc::new(codec).apply_max_message_size_config(Some(LONGEST_REQUEST), None);
            Ok(grpc.streaming(watch, request).await)
        })
    }
}

struct Watch(Context);

impl StreamingService<WatchRequest> for Watch {
    type Response = Response;
    type ResponseStream = Responses;
    type Future = Pin<Box<dyn Future<Output = Result<tonic::Response<Responses>, Status>> + Send>>;

    fn call(&mut self, request: Request<Streaming<WatchRequest>>) -> Self::Future {
        let context = self.0.clone();
        Box::pin(async move {
            let metrics = context.metrics.clone();
            watch(context, request).await.map(tonic::Response::new).inspect_err(|status| {
                metrics.streams_refused.inc();
                tracing::warn!(code = ?status.code(), detail = status.message(), "a stream was refused");
            })
        })
    }
}

/// The session's task lives as long as the response is wanted.
pub(crate) struct Responses {
    incoming: mpsc::Receiver<Result<Response, Status>>,
    _session: Task,
}

impl Stream for Responses {
    type Item = Result<Response, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Option<Self::Item>> {
        Poll::Ready(ready!(self.incoming.poll_recv(cx)))
    }
}

async fn watch(
    context: Context,
    request: Request<Streaming<WatchRequest>>,
) -> Result<Responses, Status> {
    let peer = request
        .extensions()
        .get::<Peer>()
        .cloned()
        .ok_or_else(|| Status::internal("no peer"))?;
    let verified = peer
        .verified
        .clone()
        .ok_or_else(|| Status::unauthenticated("a client certificate is required"))?;
    let mut requests = request.into_inner();
    let first = tokio::time::timeout(HELLO_DEADLINE, requests.message())
        .await
        .map_err(|_| Status::deadline_exceeded("no hello"))??;
    let Some(Message::Hello(hello)) = first.and_then(|it| it.message) else {
        return Err(Status::invalid_argument("the first message is not a hello"));
    };
    let wake = Arc::new(Notify::new());
    let (identity, joined) = (verified.identity.clone(), wake.clone());
    let (signed, expires) = (verified.signed, verified.expires);
    let id = context
        .hub
        .ask(move |state| {
            let service_account = account_of(&identity, &state.trust_domain, &hello.namespace)?;
            let pod = Name::new(&hello.namespace, &hello.pod);
            state
                .recognize(&pod, &hello.pod_uid, &service_account)
                .map_err(|error| refusal(&error))?;
            let held = held(&hello);
            let Hello {
                pod_uid: uid,
                proxy_version: version,
                mut features,
                ..
            } = hello;
            features.truncate(MOST_FEATURES);
            features.retain(|it| it.len() <= LONGEST_FEATURE);
            let caller = Caller {
                pod,
                uid,
                service_account,
                identity,
                version,
                features,
                signed,
                expires,
            };
            tracing::info!(pod = %caller.pod, version = %caller.version, "a proxy watches");
            Ok::<_, Status>(state.join(caller, &joined, held))
        })
        .await
        .map_err(|stopping| Status::unavailable(stopping.to_string()))??;
    let session = Session::new(context, id, wake, peer, verified);
    let (outgoing, incoming) = mpsc::channel(1);
    let session = runtime::spawn(session.run(requests, outgoing));
    Ok(Responses {
        incoming,
        _session: session,
    })
}

const MOST_FEATURES: usize = 64;
const LONGEST_FEATURE: usize = 64;

/// The certificate's identity is of the pod's namespace and this account.
fn account_of(identity: &str, trust_domain: &str, namespace: &str) -> Result<String, Status> {
    identity
        .strip_prefix(&format!("spiffe://{trust_domain}/ns/{namespace}/sa/"))
        .map(str::to_owned)
        .ok_or_else(|| {
            Status::permission_denied("the certificate is of another namespace than the pod")
        })
}

pub(crate) fn refusal(error: &Stranger) -> Status {
    match error {
        Stranger::NotReady => Status::unavailable(error.to_string()),
        Stranger::Pod(_) => Status::not_found(error.to_string()),
        Stranger::Uid | Stranger::Account => Status::permission_denied(error.to_string()),
    }
}

fn held(hello: &Hello) -> HashMap<ResourceName, u64> {
    let named = hello
        .held
        .iter()
        .filter_map(|it| Some((ResourceName::parse(it.name.as_ref()?).ok()?, it.version)));
    named.collect()
}

/// Writes responses whose fields are already encoded, and counts what requests
/// say beyond our knowledge.
#[derive(Clone, Debug)]
pub(crate) struct WatchCodec(pub(crate) Metrics);

impl Codec for WatchCodec {
    type Encode = Response;
    type Decode = WatchRequest;
    type Encoder = ResponseEncoder;
    type Decoder = Self;

    fn encoder(&mut self) -> ResponseEncoder {
        ResponseEncoder
    }

    fn decoder(&mut self) -> Self {
        self.clone()
    }
}

impl Decoder for WatchCodec {
    type Item = WatchRequest;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<WatchRequest>, Status> {
        let bytes = from.copy_to_bytes(from.remaining());
        let request = WatchRequest::decode(bytes.clone())
            .map_err(|error| Status::internal(error.to_string()))?;
        let unknown = decide::unknown_fields(&bytes, &request);
        self.0.unknown_fields.inc_by(unknown);
        Ok(Some(request))
    }
}

#[derive(Debug)]
pub(crate) struct ResponseEncoder;

impl Encoder for ResponseEncoder {
    type Item = Response;
    type Error = Status;

    fn encode(&mut self, response: Response, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.reserve(response.parts.iter().map(bytes::Bytes::len).sum::<usize>() + 11);
        // Field 1, a varint.
        to.put_u8(0x08);
        encode_varint(response.nonce, to);
        for part in response.parts {
            to.put(part);
        }
        Ok(())
    }
}

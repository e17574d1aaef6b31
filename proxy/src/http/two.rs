//! HTTP/2 as an exchange sees it, over the `h2` crate on both legs.
//!
//! Streams keep their back-pressure: a window is released when the bytes went
//! on, not when they came. Resets that the application made are passed on with
//! their code. Fields go through unchanged but for the mesh's own.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Poll, ready},
};

use bytes::{Bytes, BytesMut};
use h2::{RecvStream, SendStream, client::ResponseFuture, server::SendResponse};
use http::{
    HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header, request::Parts as RequestParts,
    response::Parts as ResponseParts, uri::PathAndQuery,
};

use crate::{
    discovery::{Backend, Endpoint},
    outcome::{Fault, Reason},
    request,
    upstream::pool::{Pool, Stream},
};

use super::{
    answer::{self, ATTEMPT, FAULT},
    h1::Limits,
    message::{self, Break, Broken, Chunk, Edit},
};

#[derive(Debug)]
pub(crate) enum Two {}

impl message::Version for Two {
    type Request = Request;
    type Response = Response;
    type Trailers = HeaderMap;
    type Incoming = Incoming;
    type Answer = Answer;
    type Upstream = Upstream;
    type Outgoing = Outgoing;
    type Responding = Responding;

    async fn tunnel(
        _: &mut Incoming,
        _: &mut Outgoing,
        _: &mut Responding,
        answer: &mut Answer,
    ) -> Result<(), Break> {
        // RFC 9113 §8.6: HTTP/2 has no 101.
        message::Answer::abort(answer, Some(h2::Reason::PROTOCOL_ERROR));
        Err(Break::Gone)
    }
}

// ── the caller's side ───────────────────────────────────────────────────────

#[derive(Debug)]
pub(crate) struct Request(pub(super) RequestParts);

impl Request {
    pub(super) fn is_grpc(&self) -> bool {
        let kind = self.0.headers.get(header::CONTENT_TYPE);
        kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
    }

    /// RFC 9113 §6.5.2: what SETTINGS_MAX_HEADER_LIST_SIZE counts.
    pub(super) fn header_bytes(&self) -> usize {
        let fields = self
            .0
            .headers
            .iter()
            .map(|(name, value)| name.as_str().len() + value.len() + 32);
        fields.sum::<usize>() + self.target_bytes()
    }

    pub(super) fn target_bytes(&self) -> usize {
        self.0
            .uri
            .path_and_query()
            .map_or(0, |target| target.as_str().len())
    }
}

impl request::Request for Request {
    fn method(&self) -> &str {
        self.0.method.as_str()
    }

    fn path(&self) -> &[u8] {
        self.0.uri.path().as_bytes()
    }

    fn header<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        let host = (name == "host").then(|| self.0.uri.authority()).flatten();
        let host = host.map(|authority| authority.as_str().as_bytes());
        host.into_iter().chain(
            self.0
                .headers
                .get_all(name)
                .into_iter()
                .map(HeaderValue::as_bytes),
        )
    }
}

#[derive(Debug)]
pub(crate) struct Incoming {
    stream: RecvStream,
    /// Handed out and not yet released.
    unreleased: usize,
}

impl Incoming {
    pub(super) fn new(stream: RecvStream) -> Self {
        Self {
            stream,
            unreleased: 0,
        }
    }

    async fn chunk(&mut self) -> Result<Chunk<HeaderMap>, h2::Error> {
        if self.unreleased > 0 {
            self.stream
                .flow_control()
                .release_capacity(self.unreleased)?;
            self.unreleased = 0;
        }
        if let Some(data) = self.stream.data().await {
            let data = data?;
            self.unreleased = data.len();
            return Ok(Chunk::Data(data));
        }
        Ok(match self.stream.trailers().await? {
            Some(trailers) => Chunk::Trailers(trailers),
            None => Chunk::End,
        })
    }
}

impl message::Incoming<HeaderMap> for Incoming {
    fn is_end(&self) -> bool {
        self.stream.is_end_stream()
    }

    async fn next(&mut self) -> Result<Chunk<HeaderMap>, Break> {
        self.chunk().await.map_err(|error| break_of(&error))
    }
}

#[derive(Debug)]
pub(crate) struct Answer {
    respond: SendResponse<Bytes>,
    stream: Option<SendStream<Bytes>>,
    is_grpc: bool,
    /// The caller is a peer proxy: it may be told our faults.
    is_mesh: bool,
}

impl Answer {
    pub(super) fn new(respond: SendResponse<Bytes>, is_grpc: bool, is_mesh: bool) -> Self {
        Self {
            respond,
            stream: None,
            is_grpc,
            is_mesh,
        }
    }
}

impl message::Answer<Response, HeaderMap> for Answer {
    fn is_started(&self) -> bool {
        self.stream.is_some()
    }

    async fn informational(&mut self, head: Response) -> Result<(), Break> {
        let head = http::Response::from_parts(head.parts, ());
        self.respond
            .send_informational(head)
            .map_err(|error| break_of(&error))
    }

    async fn head(&mut self, mut head: Response, last: bool) -> Result<(), Break> {
        if !self.is_mesh {
            answer::strip(&mut head.parts.headers);
        }
        let head = http::Response::from_parts(head.parts, ());
        self.stream = Some(
            self.respond
                .send_response(head, last)
                .map_err(|error| break_of(&error))?,
        );
        Ok(())
    }

    async fn data(&mut self, data: Bytes) -> Result<(), Break> {
        let stream = self.stream.as_mut().ok_or(Break::Gone)?;
        send(stream, data).await.map_err(|error| break_of(&error))
    }

    async fn flush(&mut self) -> Result<(), Break> {
        Ok(())
    }

    async fn end(&mut self, trailers: Option<HeaderMap>) -> Result<(), Break> {
        let stream = self.stream.as_mut().ok_or(Break::Gone)?;
        finish(stream, trailers).map_err(|error| break_of(&error))
    }

    async fn fault(&mut self, fault: Fault, detail: &str) -> Result<(), Break> {
        let mut head = http::Response::new(());
        let fields = head.headers_mut();
        fields.insert(PROXY_STATUS, value(&fault.proxy_status()));
        if self.is_mesh {
            fields.insert(HeaderName::from_static(FAULT), value(&answer::told(fault)));
        }
        if self.is_grpc {
            // gRPC over HTTP/2, "Responses": Trailers-Only.
            fields.insert(
                header::CONTENT_TYPE,
                HeaderValue::from_static("application/grpc"),
            );
            fields.insert(
                GRPC_STATUS,
                HeaderValue::from(u16::from(fault.reason.grpc_status())),
            );
            fields.insert(GRPC_MESSAGE, value(&fault.grpc_message()));
            return self
                .head(
                    Response {
                        parts: head.into_parts().0,
                        is_end: true,
                    },
                    true,
                )
                .await;
        }
        let text = answer::text(fault, detail);
        fields.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("text/plain; charset=utf-8"),
        );
        fields.insert(header::CONTENT_LENGTH, HeaderValue::from(text.len()));
        *head.status_mut() =
            StatusCode::from_u16(fault.reason.http_status()).unwrap_or(StatusCode::BAD_GATEWAY);
        self.head(
            Response {
                parts: head.into_parts().0,
                is_end: false,
            },
            false,
        )
        .await?;
        self.data(text.into()).await?;
        self.end(None).await
    }

    fn abort(&mut self, reset: Option<h2::Reason>) {
        let reset = reset.unwrap_or(h2::Reason::INTERNAL_ERROR);
        match &mut self.stream {
            Some(stream) => stream.send_reset(reset),
            None => self.respond.send_reset(reset),
        }
    }

    async fn cancelled(&mut self) {
        let reset = match &mut self.stream {
            Some(stream) => poll_fn(|cx| stream.poll_reset(cx)).await,
            None => poll_fn(|cx| self.respond.poll_reset(cx)).await,
        };
        // NO_ERROR asks only that the rest of the body not be sent (RFC 9113 §8.1).
        if matches!(reset, Ok(h2::Reason::NO_ERROR)) {
            std::future::pending::<()>().await;
        }
    }
}

const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static("weft"))
}

// ── the endpoint's side ─────────────────────────────────────────────────────

#[derive(Debug)]
pub(crate) struct Response {
    parts: ResponseParts,
    is_end: bool,
}

impl message::Response for Response {
    fn status(&self) -> u16 {
        self.parts.status.as_u16()
    }

    fn field(&self, name: &str) -> Option<&[u8]> {
        self.parts.headers.get(name).map(HeaderValue::as_bytes)
    }

    fn is_end(&self) -> bool {
        self.is_end
    }
}

impl message::Trailers for HeaderMap {
    fn field(&self, name: &str) -> Option<&[u8]> {
        self.get(name).map(HeaderValue::as_bytes)
    }
}

pub(crate) struct Upstream {
    sender: h2::client::SendRequest<Bytes>,
    stream: Stream,
}

impl message::Upstream<Request> for Upstream {
    type Outgoing = Outgoing;
    type Responding = Responding;

    async fn open(
        pool: &Rc<Pool>,
        backend: &Backend,
        endpoint: &Arc<Endpoint>,
        _: &Limits,
    ) -> Result<Self, Reason> {
        let (sender, stream) = pool.http2(backend, endpoint).await?;
        Ok(Self { sender, stream })
    }

    fn is_reused(&self) -> bool {
        // A stream on a closing connection is refused by number: never in doubt.
        false
    }

    async fn send(
        mut self,
        request: &Request,
        edit: Edit<'_>,
        last: bool,
    ) -> Result<(Outgoing, Responding), Broken> {
        let mut head = http::Request::new(());
        *head.method_mut() = request.0.method.clone();
        *head.uri_mut() = request.0.uri.clone();
        *head.version_mut() = http::Version::HTTP_2;
        *head.headers_mut() = request.0.headers.clone();
        if let Some(path) = edit.path {
            *head.uri_mut() = with_path(&request.0.uri, path);
        }
        answer::strip(head.headers_mut());
        if edit.mesh && edit.attempt > 1 {
            head.headers_mut().insert(
                HeaderName::from_static(ATTEMPT),
                HeaderValue::from(edit.attempt),
            );
        }
        match self.sender.send_request(head, last) {
            Ok((response, stream)) => {
                let responding = Responding {
                    response: Some(response),
                    body: None,
                    place: self.stream,
                };
                Ok((Outgoing(stream), responding))
            }
            Err(error) => Err(broken(&error, &self.stream)),
        }
    }

    fn release(_pool: &Pool, _outgoing: Outgoing, _responding: Responding) {
        // Its stream is over; the connection never left the pool.
    }
}

/// The same target with another path; the query stays.
fn with_path(uri: &Uri, path: &[u8]) -> Uri {
    let mut target = BytesMut::from(path);
    if let Some(query) = uri.query() {
        target.extend_from_slice(b"?");
        target.extend_from_slice(query.as_bytes());
    }
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = PathAndQuery::from_maybe_shared(target.freeze()).ok();
    // A canonical path is a valid one; the request's own is as valid.
    Uri::from_parts(parts).unwrap_or_else(|_| uri.clone())
}

#[derive(Debug)]
pub(crate) struct Outgoing(SendStream<Bytes>);

impl message::Outgoing<HeaderMap> for Outgoing {
    async fn data(&mut self, data: Bytes) -> Result<(), Broken> {
        send(&mut self.0, data).await.map_err(|error| cut(&error))
    }

    async fn flush(&mut self) -> Result<(), Broken> {
        Ok(())
    }

    async fn end(&mut self, trailers: Option<&HeaderMap>) -> Result<(), Broken> {
        finish(&mut self.0, trailers.cloned()).map_err(|error| cut(&error))
    }
}

#[derive(Debug)]
pub(crate) struct Responding {
    response: Option<ResponseFuture>,
    body: Option<Incoming>,
    place: Stream,
}

impl message::Responding<Response, HeaderMap> for Responding {
    async fn head(&mut self) -> Result<Response, Broken> {
        let Some(future) = &mut self.response else {
            return Err(Broken::new(Reason::MalformedResponse));
        };
        let head = poll_fn(|cx| {
            if let Poll::Ready(Some(interim)) = future.poll_informational(cx) {
                return Poll::Ready(interim.map(|head| (head.into_parts().0, None)));
            }
            let (parts, body) = ready!(Pin::new(&mut *future).poll(cx))?.into_parts();
            Poll::Ready(Ok((parts, Some(body))))
        })
        .await;
        match head {
            Ok((parts, None)) => Ok(Response {
                parts,
                is_end: false,
            }),
            Ok((parts, Some(body))) => {
                self.response = None;
                let is_end = body.is_end_stream();
                self.body = Some(Incoming::new(body));
                Ok(Response { parts, is_end })
            }
            Err(error) => Err(broken(&error, &self.place)),
        }
    }

    async fn next(&mut self) -> Result<Chunk<HeaderMap>, Broken> {
        let Some(body) = &mut self.body else {
            return Ok(Chunk::End);
        };
        body.chunk()
            .await
            .map_err(|error| broken(&error, &self.place))
    }

    fn is_closing(&self) -> bool {
        true
    }
}

// ── both ────────────────────────────────────────────────────────────────────

/// Sends all of `data` as fast as flow control lets it.
async fn send(stream: &mut SendStream<Bytes>, mut data: Bytes) -> Result<(), h2::Error> {
    while !data.is_empty() {
        stream.reserve_capacity(data.len());
        let mut room = stream.capacity();
        while room == 0 {
            match poll_fn(|cx| stream.poll_capacity(cx)).await {
                Some(capacity) => room = capacity?,
                None => return Err(h2::Reason::CANCEL.into()),
            }
        }
        stream.send_data(data.split_to(room.min(data.len())), false)?;
    }
    Ok(())
}

fn finish(stream: &mut SendStream<Bytes>, trailers: Option<HeaderMap>) -> Result<(), h2::Error> {
    match trailers {
        Some(trailers) => stream.send_trailers(trailers),
        None => stream.send_data(Bytes::new(), true),
    }
}

fn break_of(error: &h2::Error) -> Break {
    match error.reason() {
        Some(h2::Reason::PROTOCOL_ERROR) if !error.is_remote() => {
            Break::Bad(Reason::MalformedRequest)
        }
        _ => Break::Gone,
    }
}

fn cut(error: &h2::Error) -> Broken {
    match error
        .reason()
        .filter(|_| error.is_reset() && error.is_remote())
    {
        Some(h2::Reason::REFUSED_STREAM) => Broken::unread(Reason::StreamRefused),
        reset => Broken {
            reset,
            ..Broken::new(Reason::UpstreamReset)
        },
    }
}

/// What a failed stream means for its request.
fn broken(error: &h2::Error, place: &Stream) -> Broken {
    if let Some(reason) = place.refusal() {
        return Broken::unread(reason);
    }
    // GOAWAY without error above our stream: RFC 9113 §6.8, not processed.
    if error.is_go_away() && error.is_remote() {
        return match error.reason() {
            Some(h2::Reason::NO_ERROR) => Broken::unread(Reason::StreamRefused),
            _ => Broken::new(Reason::UpstreamReset),
        };
    }
    let is_malformed = !error.is_remote() && error.reason() == Some(h2::Reason::PROTOCOL_ERROR);
    if is_malformed {
        return Broken::new(Reason::MalformedResponse);
    }
    cut(error)
}

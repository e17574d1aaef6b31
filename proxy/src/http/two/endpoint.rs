//! The endpoint's side of HTTP/2: the request on its way out, and the response.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Poll, ready},
};

use bytes::{Bytes, BytesMut};
use h2::{SendStream, client::ResponseFuture};
use http::{
    HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header,
    response::Parts as ResponseParts,
    uri::{Authority, PathAndQuery, Scheme},
};

use crate::{
    discovery::{Backend, Endpoint},
    http::{
        answer::{self, ATTEMPT},
        h1::Limits,
        message::{self, Broken, Chunk, Edit},
    },
    outcome::Reason,
    upstream::pool::{Pool, Stream, Wanted},
};

use super::{
    caller::{Incoming, Request},
    finish, send,
};

#[derive(Debug)]
pub(crate) struct Response {
    pub(super) parts: ResponseParts,
    pub(super) is_end: bool,
    pub(super) is_switch: bool,
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

    fn is_switch(&self) -> bool {
        self.is_switch
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
        wanted: Wanted,
        _: &Limits,
    ) -> Result<Self, Reason> {
        let (sender, stream) = pool.http2(backend, endpoint, wanted).await?;
        Ok(Self { sender, stream })
    }

    fn is_reused(&self) -> bool {
        self.stream.is_reused
    }

    async fn send(
        mut self,
        request: &Request,
        edit: Edit<'_>,
        last: bool,
    ) -> Result<(Outgoing, Responding), Broken> {
        let is_websocket = request.is_websocket();
        if is_websocket && !edit.mesh {
            let taken = self.stream.takes_websockets(&self.sender).await;
            taken.map_err(Broken::unread)?;
        }
        // A tunnel's end is told in it.
        let last = last && !is_websocket;
        match self.sender.send_request(head(request, edit), last) {
            Ok((response, stream)) => {
                let responding = Responding {
                    response: Some(response),
                    body: None,
                    place: self.stream,
                    is_websocket,
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

fn head(request: &Request, edit: Edit<'_>) -> http::Request<()> {
    let mut head = http::Request::new(());
    *head.method_mut() = request.0.method.clone();
    *head.uri_mut() = request.0.uri.clone();
    *head.version_mut() = http::Version::HTTP_2;
    *head.headers_mut() = request.0.headers.clone();
    if let Some(protocol) = request.protocol() {
        head.extensions_mut().insert(protocol.clone());
    }
    let host = edit.filters.and_then(|filters| filters.host.as_ref());
    if edit.path.is_some() || host.is_some() {
        *head.uri_mut() = with(&request.0.uri, edit.path, host);
    }
    if let Some(filters) = edit.filters {
        super::edit(head.headers_mut(), &filters.fields);
    }
    if host.is_some() {
        // The target names it now.
        head.headers_mut().remove(header::HOST);
    }
    answer::strip(head.headers_mut());
    if edit.mesh && edit.attempt > 1 {
        head.headers_mut().insert(
            HeaderName::from_static(ATTEMPT),
            HeaderValue::from(edit.attempt),
        );
    }
    head
}

/// The same target with another path or host; the query stays.
fn with(uri: &Uri, path: Option<&[u8]>, host: Option<&HeaderValue>) -> Uri {
    let mut parts = uri.clone().into_parts();
    if let Some(path) = path {
        let mut target = BytesMut::from(path);
        if let Some(query) = uri.query() {
            target.extend_from_slice(b"?");
            target.extend_from_slice(query.as_bytes());
        }
        parts.path_and_query = PathAndQuery::from_maybe_shared(target.freeze()).ok();
    }
    if let Some(host) = host {
        parts.authority = Authority::try_from(host.as_bytes()).ok();
        parts.scheme.get_or_insert(Scheme::HTTP);
    }
    // A canonical path and a host name are valid; the request's own are as valid.
    Uri::from_parts(parts).unwrap_or_else(|_| uri.clone())
}

#[derive(Debug)]
pub(crate) struct Outgoing(pub(super) SendStream<Bytes>);

impl message::Outgoing<HeaderMap> for Outgoing {
    async fn data(&mut self, data: Bytes) -> Result<(), Broken> {
        send(&mut self.0, data).await.map_err(|error| cut(&error))
    }

    async fn flush(&mut self) -> Result<(), Broken> {
        Ok(())
    }

    async fn end(&mut self, trailers: Option<&HeaderMap>) -> Result<(), Broken> {
        let mut trailers = trailers.cloned();
        if let Some(trailers) = &mut trailers {
            answer::strip(trailers);
        }
        finish(&mut self.0, trailers).map_err(|error| cut(&error))
    }
}

#[derive(Debug)]
pub(crate) struct Responding {
    response: Option<ResponseFuture>,
    pub(super) body: Option<Incoming>,
    place: Stream,
    /// A success switches.
    is_websocket: bool,
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
            // RFC 9113 §8.6: HTTP/2 has no 101.
            Ok((parts, None)) if parts.status == StatusCode::SWITCHING_PROTOCOLS => {
                Err(Broken::new(Reason::MalformedResponse))
            }
            Ok((parts, None)) => Ok(Response {
                parts,
                is_end: false,
                is_switch: false,
            }),
            Ok((parts, Some(body))) => {
                self.response = None;
                let is_switch = self.is_websocket && parts.status.is_success();
                let is_end = body.is_end_stream() && !is_switch;
                self.body = Some(Incoming::new(body));
                Ok(Response {
                    parts,
                    is_end,
                    is_switch,
                })
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

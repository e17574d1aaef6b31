//! The caller's side of HTTP/2: its request, and the answer to it.

use std::{future::poll_fn, sync::Arc};

use bytes::Bytes;
use h2::{RecvStream, SendStream, server::SendResponse};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header, request::Parts as RequestParts,
};

use crate::{
    discovery::FieldEdits,
    http::{
        answer::{self, FAULT},
        filter::Reply,
        message::{self, Break, Chunk},
    },
    outcome::{Fault, Reason},
    request,
};

use super::{edit, endpoint::Response, finish, send};

#[derive(Debug)]
pub(crate) struct Request(pub(in crate::http) RequestParts);

impl Request {
    pub(in crate::http) fn is_grpc(&self) -> bool {
        let kind = self.0.headers.get(header::CONTENT_TYPE);
        kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
    }

    /// RFC 9113 §6.5.2: what SETTINGS_MAX_HEADER_LIST_SIZE counts.
    pub(in crate::http) fn header_bytes(&self) -> usize {
        let fields = self
            .0
            .headers
            .iter()
            .map(|(name, value)| name.as_str().len() + value.len() + 32);
        fields.sum::<usize>() + self.target_bytes()
    }

    /// `:authority` and Host name the same (RFC 9113 §8.3.1), or only one is there.
    pub(in crate::http) fn is_unambiguous(&self) -> bool {
        let mut hosts = self.0.headers.get_all(header::HOST).iter();
        match (self.0.uri.authority(), hosts.next()) {
            (_, None) => true,
            (None, Some(_)) => hosts.next().is_none(),
            (Some(authority), Some(host)) => {
                hosts.next().is_none() && authority.as_str().as_bytes() == host.as_bytes()
            }
        }
    }

    pub(in crate::http) fn target_bytes(&self) -> usize {
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

    fn query(&self) -> Option<&[u8]> {
        self.0.uri.query().map(str::as_bytes)
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
    pub(in crate::http) fn new(stream: RecvStream) -> Self {
        Self {
            stream,
            unreleased: 0,
        }
    }

    pub(super) async fn chunk(&mut self) -> Result<Chunk<HeaderMap>, h2::Error> {
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
    /// What the final head gets.
    edits: Option<Arc<FieldEdits>>,
    is_grpc: bool,
    is_head: bool,
    /// The caller is a peer proxy: it may be told our faults.
    is_mesh: bool,
}

impl Answer {
    pub(in crate::http) fn new(
        respond: SendResponse<Bytes>,
        request: &Request,
        is_mesh: bool,
    ) -> Self {
        Self {
            respond,
            stream: None,
            edits: None,
            is_grpc: request.is_grpc(),
            is_head: request.0.method == Method::HEAD,
            is_mesh,
        }
    }

    fn start(&mut self, head: http::Response<()>, last: bool) -> Result<(), Break> {
        let started = self.respond.send_response(head, last);
        self.stream = Some(started.map_err(|error| break_of(&error))?);
        Ok(())
    }
}

impl message::Answer<Response, HeaderMap> for Answer {
    fn is_started(&self) -> bool {
        self.stream.is_some()
    }

    async fn informational(&mut self, mut head: Response) -> Result<(), Break> {
        answer::strip(&mut head.parts.headers);
        let head = http::Response::from_parts(head.parts, ());
        self.respond
            .send_informational(head)
            .map_err(|error| break_of(&error))
    }

    async fn head(&mut self, mut head: Response, last: bool) -> Result<(), Break> {
        // Whoever is answered for can't speak for a proxy.
        answer::strip(&mut head.parts.headers);
        if let Some(edits) = &self.edits {
            edit(&mut head.parts.headers, edits);
        }
        self.start(http::Response::from_parts(head.parts, ()), last)
    }

    async fn data(&mut self, data: Bytes) -> Result<(), Break> {
        let stream = self.stream.as_mut().ok_or(Break::Gone)?;
        send(stream, data).await.map_err(|error| break_of(&error))
    }

    async fn flush(&mut self) -> Result<(), Break> {
        Ok(())
    }

    async fn end(&mut self, mut trailers: Option<HeaderMap>) -> Result<(), Break> {
        if let Some(trailers) = &mut trailers {
            answer::strip(trailers);
        }
        let stream = self.stream.as_mut().ok_or(Break::Gone)?;
        finish(stream, trailers).map_err(|error| break_of(&error))
    }

    fn edit(&mut self, fields: Arc<FieldEdits>) {
        self.edits = Some(fields);
    }

    async fn reply(&mut self, reply: Reply) -> Result<(), Break> {
        let mut head = http::Response::new(());
        *head.status_mut() = reply.status;
        for (name, value) in reply.fields {
            head.headers_mut().append(name, value);
        }
        self.start(head, true)
    }

    fn retract(&mut self) -> bool {
        false
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
            let status = HeaderValue::from(u16::from(fault.reason.grpc_status()));
            fields.insert(
                header::CONTENT_TYPE,
                HeaderValue::from_static("application/grpc"),
            );
            fields.insert(GRPC_STATUS, status);
            fields.insert(GRPC_MESSAGE, value(&fault.grpc_message()));
            return self.start(head, true);
        }
        let text = answer::text(fault, detail);
        let plain = HeaderValue::from_static("text/plain; charset=utf-8");
        fields.insert(header::CONTENT_TYPE, plain);
        fields.insert(header::CONTENT_LENGTH, HeaderValue::from(text.len()));
        *head.status_mut() =
            StatusCode::from_u16(fault.reason.http_status()).unwrap_or(StatusCode::BAD_GATEWAY);
        self.start(head, self.is_head)?;
        if self.is_head {
            return Ok(());
        }
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

fn break_of(error: &h2::Error) -> Break {
    match error.reason() {
        Some(h2::Reason::PROTOCOL_ERROR) if !error.is_remote() => {
            Break::Bad(Reason::MalformedRequest)
        }
        _ => Break::Gone,
    }
}

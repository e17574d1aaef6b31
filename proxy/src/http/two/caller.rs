//! The caller's side of HTTP/2: its request, and the answer to it.

use std::{future::poll_fn, sync::Arc};

use bytes::Bytes;
use h2::{RecvStream, SendStream, ext::Protocol, server::SendResponse};
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
        // To CONNECT the 200 of a gRPC answer would open a tunnel.
        !self.is_connect()
            && kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
    }

    pub(in crate::http) fn is_connect(&self) -> bool {
        self.0.method == Method::CONNECT
    }

    /// RFC 8441 §4. What an application may open with `:protocol`, and nothing else.
    pub(in crate::http) fn is_websocket(&self) -> bool {
        let protocol = self.protocol().map(Protocol::as_str);
        self.is_connect() && protocol.is_some_and(|it| it.eq_ignore_ascii_case("websocket"))
    }

    pub(in crate::http) fn protocol(&self) -> Option<&Protocol> {
        self.0.extensions.get()
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

    /// Takes Host away where it only repeats `:authority`, as gateways from HTTP/1
    /// have it: policies, routes and the application shall see one host.
    ///
    /// # Errors
    /// When they name different ones, or there is more than one Host: malformed
    /// (RFC 9113 §8.3.1).
    pub(in crate::http) fn settle_host(&mut self) -> Result<(), Reason> {
        let mut hosts = self.0.headers.get_all(header::HOST).iter();
        let (host, more) = (hosts.next(), hosts.next());
        match (self.0.uri.authority(), host, more) {
            (_, _, Some(_)) => Err(Reason::MalformedRequest),
            (_, None, None) | (None, Some(_), None) => Ok(()),
            (Some(authority), Some(host), None) => {
                let scheme = self.0.uri.scheme_str();
                if !is_same_host(authority.as_str().as_bytes(), host.as_bytes(), scheme) {
                    return Err(Reason::MalformedRequest);
                }
                self.0.headers.remove(header::HOST);
                Ok(())
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

/// RFC 3986 §6.2.2.1 and §6.2.3: neither case nor the scheme's own port matters.
fn is_same_host(one: &[u8], other: &[u8], scheme: Option<&str>) -> bool {
    let port: &[u8] = match scheme {
        Some("https") => b":443",
        _ => b":80",
    };
    let bare = |host: &'_ [u8]| {
        let ports = [port, b":"];
        let end = ports.iter().find(|port| host.ends_with(port));
        host.len() - end.map_or(0, |port| port.len())
    };
    let (one, other) = (one.get(..bare(one)), other.get(..bare(other)));
    one.zip(other)
        .is_some_and(|(one, other)| one.eq_ignore_ascii_case(other))
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
    is_tunnel: bool,
}

impl Incoming {
    pub(in crate::http) fn new(stream: RecvStream) -> Self {
        Self {
            stream,
            unreleased: 0,
            is_tunnel: false,
        }
    }

    /// Its bytes wait until the tunnel is there: an attempt sends none of them.
    pub(in crate::http) fn of_tunnel(stream: RecvStream) -> Self {
        Self {
            is_tunnel: true,
            ..Self::new(stream)
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
        self.is_tunnel || self.stream.is_end_stream()
    }

    async fn next(&mut self) -> Result<Chunk<HeaderMap>, Break> {
        self.chunk().await.map_err(|error| break_of(&error))
    }
}

#[derive(Debug)]
pub(crate) struct Answer {
    respond: SendResponse<Bytes>,
    pub(super) stream: Option<SendStream<Bytes>>,
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

#[cfg(test)]
mod tests {
    use super::*;
    use request::Request as _;

    fn request(uri: &str, hosts: &[&str]) -> Request {
        let mut request = http::Request::get(uri);
        for host in hosts {
            request = request.header(header::HOST, *host);
        }
        Request(request.body(()).unwrap().into_parts().0)
    }

    #[test]
    fn a_host_that_repeats_the_authority_is_one_host() {
        for (uri, host) in [
            ("http://cart/", "cart"),
            ("http://Cart.shop/", "cart.Shop"),
            ("http://cart/", "cart:80"),
            ("http://cart:80/", "cart"),
            ("https://cart/", "cart:443"),
            ("http://[fd00::80]/", "[fd00::80]"),
        ] {
            let mut request = request(uri, &[host]);
            assert_eq!(request.settle_host(), Ok(()), "{uri} {host}");
            assert_eq!(request.header("host").count(), 1, "{uri} {host}");
            assert!(!request.0.headers.contains_key(header::HOST));
        }
    }

    #[test]
    fn a_host_of_its_own_stays() {
        for (uri, hosts) in [("/", &["cart"][..]), ("http://cart/", &[]), ("/", &[])] {
            let mut request = request(uri, hosts);
            assert_eq!(request.settle_host(), Ok(()));
            let has_host = request.0.headers.contains_key(header::HOST);
            assert_eq!(has_host, !hosts.is_empty());
        }
    }

    #[test]
    fn two_hosts_are_malformed() {
        for (uri, hosts) in [
            ("http://cart/", &["stock"][..]),
            ("http://cart/", &["cart:8080"]),
            ("https://cart/", &["cart:80"]),
            ("http://cart/", &["cart", "cart"]),
            ("/", &["cart", "cart"]),
            ("http://cart/", &[""]),
        ] {
            let settled = request(uri, hosts).settle_host();
            assert_eq!(settled, Err(Reason::MalformedRequest), "{uri} {hosts:?}");
        }
    }
}

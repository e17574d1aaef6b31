//! HTTP/2 of `traffic`, both sides.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream::FuturesUnordered};
use h2::{
    RecvStream,
    client::{self, SendRequest},
    server,
};
use http::{HeaderMap, Request, Response, StatusCode};
use tokio::{net::TcpStream, time::sleep};

use super::application::{Asked, Shared, header_map};

pub(super) async fn serve(
    stream: TcpStream,
    shared: &Shared,
    number: u64,
) -> Result<(), h2::Error> {
    let mut connection = server::handshake(stream).await?;
    let mut streams = FuturesUnordered::new();
    loop {
        tokio::select! {
            Some(_) = streams.next(), if !streams.is_empty() => {}
            next = connection.accept() => match next {
                Some(request) => {
                    let (request, respond) = request?;
                    streams.push(stream_of(request, respond, shared, number));
                }
                None => return Ok(()),
            },
        }
    }
}

async fn stream_of(
    request: Request<RecvStream>,
    mut respond: server::SendResponse<Bytes>,
    shared: &Shared,
    connection: u64,
) -> Result<(), h2::Error> {
    let (parts, body) = request.into_parts();
    let (body, _) = whole(body).await?;
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let asked = Asked {
        method: parts.method.to_string(),
        path: parts
            .uri
            .path_and_query()
            .map_or_else(String::new, ToString::to_string),
        fields: parts
            .headers
            .iter()
            .map(|(name, value)| (name.to_string(), text(value)))
            .collect(),
        body: body.len(),
        connection,
    };
    let answer = shared.answer(&asked);
    sleep(answer.after).await;
    if answer.is_cut {
        respond.send_reset(h2::Reason::INTERNAL_ERROR);
        return Ok(());
    }
    let mut head = Response::new(());
    *head.status_mut() = StatusCode::from_u16(answer.status).unwrap_or_default();
    *head.headers_mut() = header_map(&answer.fields);
    let is_head_alone = answer.body.is_empty() && answer.trailers.is_none();
    let mut sender = respond.send_response(head, is_head_alone)?;
    if is_head_alone {
        return Ok(());
    }
    if answer.pause > Duration::ZERO {
        sleep(answer.pause).await;
    }
    sender.send_data(answer.body, answer.trailers.is_none())?;
    if let Some(trailers) = &answer.trailers {
        sender.send_trailers(header_map(trailers))?;
    }
    Ok(())
}

async fn whole(mut body: RecvStream) -> Result<(Vec<u8>, Option<HeaderMap>), h2::Error> {
    let mut all = Vec::new();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        all.extend(&data);
    }
    Ok((all, body.trailers().await?))
}

/// What came back of a call.
#[derive(Clone, Debug)]
pub struct Called {
    pub status: u16,
    pub fields: HeaderMap,
    pub body: Vec<u8>,
    pub trailers: Option<HeaderMap>,
}

impl Called {
    /// In the trailers, or in the head where that is all.
    #[must_use]
    pub fn grpc_status(&self) -> Option<u8> {
        let of = |fields: &HeaderMap| fields.get("grpc-status")?.to_str().ok()?.parse().ok();
        self.trailers
            .as_ref()
            .and_then(of)
            .or_else(|| of(&self.fields))
    }
}

/// One HTTP/2 connection of a caller; `drive` must run beside its calls.
#[derive(Clone, Debug)]
pub struct Two(SendRequest<Bytes>);

impl Two {
    /// # Errors
    /// When the connection breaks in its first moment.
    pub async fn open(stream: TcpStream) -> Result<(Self, impl Future<Output = ()>), h2::Error> {
        let (sender, connection) = client::handshake(stream).await?;
        // How it ended its streams tell.
        let drive = async move { drop(connection.await) };
        Ok((Self(sender), drive))
    }

    /// # Errors
    /// When the stream or its connection broke; a stream that was not even
    /// opened says so by `is_go_away` or `is_io`.
    pub async fn call(
        &self,
        path: &str,
        fields: &[(&'static str, String)],
        body: Option<Bytes>,
    ) -> Result<Called, h2::Error> {
        let mut sender = self.0.clone().ready().await?;
        let mut request = Request::new(());
        *request.method_mut() = if body.is_some() {
            http::Method::POST
        } else {
            http::Method::GET
        };
        *request.uri_mut() = format!("http://app{path}").parse().unwrap_or_default();
        *request.headers_mut() = header_map(fields);
        let (response, mut out) = sender.send_request(request, body.is_none())?;
        if let Some(body) = body {
            out.send_data(body, true)?;
        }
        let (parts, body) = response.await?.into_parts();
        let (body, trailers) = whole(body).await?;
        Ok(Called {
            status: parts.status.as_u16(),
            fields: parts.headers,
            body,
            trailers,
        })
    }
}

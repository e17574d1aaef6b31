//! An HTTP/1.1 client with one connection, which it keeps.
//!
//! Under the demo's callers and `front`. It never tries anything twice: what
//! the mesh gets wrong must show.

use std::time::Duration;

use bytes::Bytes;
use http::{
    Method, Request, Response, Uri,
    header::{HOST, HeaderName},
};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::timeout};

use crate::runtime::{self, Task};

/// In answers of the shop's own services.
pub(crate) const SERVED_BY: HeaderName = HeaderName::from_static("x-served-by");

const DEADLINE: Duration = Duration::from_secs(10);
const LARGEST: usize = 4 * 1024 * 1024;

#[derive(Debug, Default)]
pub(crate) struct Client {
    connection: Option<(String, SendRequest<Full<Bytes>>, Task)>,
}

impl Client {
    /// # Errors
    /// Without a whole answer: what happened, in a word.
    pub(crate) async fn send(
        &mut self,
        method: Method,
        url: &str,
        body: Bytes,
    ) -> Result<Response<Bytes>, &'static str> {
        let url: Uri = url.parse().map_err(|_| "url")?;
        let host = url.authority().ok_or("url")?.as_str().to_owned();
        let path = url.path_and_query().map_or("/", |it| it.as_str());
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, &host)
            .body(Full::new(body))
            .map_err(|_| "url")?;
        let answered = timeout(DEADLINE, self.exchange(&host, request)).await;
        let answered = answered.unwrap_or(Err("timeout"));
        if answered.is_err() {
            self.connection = None;
        }
        answered
    }

    async fn exchange(
        &mut self,
        host: &str,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Bytes>, &'static str> {
        let sender = self.connected(host).await?;
        let response = sender.send_request(request).await.map_err(|error| {
            match error.is_incomplete_message() || error.is_canceled() || error.is_closed() {
                true => "closed",
                false => "broken",
            }
        })?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, LARGEST).collect().await;
        let body = body.map_err(|_| "truncated")?.to_bytes();
        Ok(Response::from_parts(head, body))
    }

    /// A connection that its server closed after an answer is replaced, as
    /// every client does.
    async fn connected(
        &mut self,
        host: &str,
    ) -> Result<&mut SendRequest<Full<Bytes>>, &'static str> {
        let usable = match &mut self.connection {
            Some((to, sender, _)) => to.as_str() == host && sender.ready().await.is_ok(),
            None => false,
        };
        if !usable {
            let address = match host.contains(':') {
                true => host.to_owned(),
                false => format!("{host}:80"),
            };
            let stream = TcpStream::connect(address).await.map_err(|_| "connect")?;
            stream.set_nodelay(true).map_err(|_| "connect")?;
            let (sender, connection) = http1::handshake(TokioIo::new(stream))
                .await
                .map_err(|_| "connect")?;
            let task = runtime::spawn(async {
                // Its end shows where a request waits for it.
                let _ = connection.await;
            });
            self.connection = Some((host.to_owned(), sender, task));
        }
        let (_, sender, _) = self.connection.as_mut().ok_or("connect")?;
        Ok(sender)
    }
}

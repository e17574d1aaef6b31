//! The kubelet's httpGet: headers, redirects and TLS as it does them
//! (pkg/probe/http).

use std::{future::pending, io};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, header,
    uri::Authority,
};
use http_body_util::{BodyExt, Empty};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncWrite};

use super::From;
use crate::unverified;

#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct HttpGet {
    port: u16,
    #[serde(default)]
    path: String,
    #[serde(default)]
    scheme: Scheme,
    #[serde(default)]
    http_headers: Vec<Field>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
enum Scheme {
    #[default]
    Http,
    Https,
}

#[derive(Clone, PartialEq, Debug, Deserialize)]
struct Field {
    name: String,
    #[serde(default)]
    value: String,
}

/// Where the next request goes.
#[derive(Clone, PartialEq, Debug)]
struct Target {
    scheme: Scheme,
    port: u16,
    /// Path and query.
    path: String,
    /// Reached by a name or port of its own: a Host that was asked for is over.
    is_absolute: bool,
}

/// Go's client follows so many.
const REDIRECTS: usize = 10;

/// The kubelet reads so much of an answer, and closes.
const LONGEST_BODY: usize = 10 * 1024;

impl HttpGet {
    pub(super) async fn ask(&self, from: &From) -> io::Result<StatusCode> {
        let mut target = Target {
            scheme: self.scheme,
            port: self.port,
            path: rooted(&self.path),
            is_absolute: false,
        };
        for _ in 0..=REDIRECTS {
            // Boxed: TLS and its buffers are large, and probes are rare.
            let (status, headers) = Box::pin(self.once(&target, from)).await?;
            let location = headers
                .get(header::LOCATION)
                .filter(|_| is_redirect(status));
            match location.and_then(|it| target.redirected(it, from)) {
                Some(next) => target = next,
                // To another host, or to nowhere: the kubelet is content.
                None => return Ok(status),
            }
        }
        Err(io::Error::other("stopped after 10 redirects"))
    }

    async fn once(&self, target: &Target, from: &From) -> io::Result<(StatusCode, HeaderMap)> {
        let request = self.request(target, from)?;
        let stream = from.connect(target.port).await?;
        match target.scheme {
            Scheme::Http => exchange(stream, request).await,
            Scheme::Https => {
                let stream = unverified::connect(stream, from.address).await?;
                Box::pin(exchange(stream, request)).await
            }
        }
    }

    fn request(&self, target: &Target, from: &From) -> io::Result<Request<Empty<Bytes>>> {
        let mut headers = HeaderMap::new();
        for field in &self.http_headers {
            let name = HeaderName::try_from(&field.name).map_err(io::Error::other)?;
            let value = HeaderValue::try_from(&field.value).map_err(io::Error::other)?;
            headers.append(name, value);
        }
        let address = std::net::SocketAddr::new(from.address, target.port);
        let own = HeaderValue::try_from(address.to_string()).map_err(io::Error::other)?;
        if target.is_absolute || !headers.contains_key(header::HOST) {
            headers.insert(header::HOST, own);
        }
        for (name, value) in [
            (header::USER_AGENT, from.agent.clone()),
            (header::ACCEPT, HeaderValue::from_static("*/*")),
        ] {
            // Asked for as empty, it is not sent at all.
            if headers.get(&name).is_some_and(HeaderValue::is_empty) {
                headers.remove(&name);
            } else {
                headers.entry(name).or_insert(value);
            }
        }
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        let mut request = Request::new(Empty::new());
        *request.method_mut() = Method::GET;
        *request.uri_mut() = Uri::try_from(&target.path).map_err(io::Error::other)?;
        *request.headers_mut() = headers;
        Ok(request)
    }
}

/// As Go writes a URL: from the root, without its fragment.
fn rooted(path: &str) -> String {
    let path = path.split('#').next().unwrap_or_default();
    match path.starts_with('/') {
        true => path.to_owned(),
        false => format!("/{path}"),
    }
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

impl Target {
    /// Where `location` leads, if that is the same host.
    fn redirected(&self, location: &HeaderValue, from: &From) -> Option<Self> {
        let location = location.to_str().ok()?;
        let location = location.split('#').next()?;
        let uri: Uri = match location.strip_prefix("//") {
            // The same scheme (RFC 3986 §4.2).
            Some(rest) => format!("{}://{rest}", self.scheme.as_str()).parse().ok()?,
            // A scheme comes before anything else (RFC 3986 §4.1).
            None if has_scheme(location) => location.parse().ok()?,
            None => return Some(self.relative(location)),
        };
        let scheme = match uri.scheme_str() {
            Some("http") => Scheme::Http,
            Some("https") => Scheme::Https,
            _ => return None,
        };
        let host = uri.host()?.trim_matches(['[', ']']);
        (host.parse() == Ok(from.address)).then(|| Self {
            scheme,
            port: uri
                .authority()
                .and_then(Authority::port_u16)
                .unwrap_or_else(|| scheme.port()),
            path: rooted(uri.path_and_query().map_or("/", |it| it.as_str())),
            is_absolute: true,
        })
    }

    /// RFC 3986 §5.3, without dot segments: servers resolve those.
    fn relative(&self, location: &str) -> Self {
        let own = self.path.split('?').next().unwrap_or_default();
        let path = if location.starts_with('/') {
            location.to_owned()
        } else if location.starts_with('?') || location.is_empty() {
            format!("{own}{location}")
        } else {
            let folder = own.rsplit_once('/').map_or("", |(folder, _)| folder);
            format!("{folder}/{location}")
        };
        Self {
            path,
            ..self.clone()
        }
    }
}

impl Scheme {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    const fn port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    request: Request<Empty<Bytes>>,
) -> io::Result<(StatusCode, HeaderMap)> {
    let (mut sender, connection) = http1::Builder::new()
        // As Go writes them; some servers know no other form.
        .title_case_headers(true)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(io::Error::other)?;
    let answer = async {
        let response = sender
            .send_request(request)
            .await
            .map_err(io::Error::other)?;
        let (status, headers) = (response.status(), response.headers().clone());
        read(response).await?;
        Ok((status, headers))
    };
    let carried = async {
        // What it read still has to be taken: the answer ends, not this.
        let _ended = connection.await;
        pending().await
    };
    tokio::select! {
        answer = answer => answer,
        never = carried => never,
    }
}

/// An answer that breaks off is none.
async fn read(response: Response<Incoming>) -> io::Result<()> {
    let mut body = response.into_body();
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(io::Error::other)?;
        length += frame.data_ref().map_or(0, Bytes::len);
        if length > LONGEST_BODY {
            break;
        }
    }
    Ok(())
}

fn has_scheme(location: &str) -> bool {
    let before = location.split(['/', '?']).next();
    before.is_some_and(|it| it.ends_with(':'))
}

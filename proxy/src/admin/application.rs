//! The application's own metrics, fetched from inside the pod for a scraper that
//! has no identity.
//!
//! `weft.dev/application-metrics` of the pod opens this one page and no other:
//! asked from 127.0.0.6 or ::6, it meets neither redirection nor policy. The
//! scraper's own path and query go nowhere. Passed on as it comes, never held
//! whole; bounded in time by the connection and in bytes here.

use std::{
    error::Error,
    io,
    net::SocketAddr,
    pin::Pin,
    str::FromStr,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Uri, header};
use http_body_util::{Empty, Limited};
use hyper::{
    body::{Body, Frame, Incoming, SizeHint},
    client::conn::http1,
};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::timeout};

use super::probe::From;

/// Where the metrics port serves it.
pub(super) const PATH: &str = "/application/metrics";

/// So long until the answer begins: a scraper gives up after ten seconds.
const PATIENCE: Duration = Duration::from_secs(8);

/// Prometheus takes 10 MB and a hundred thousand samples for a large page.
const LONGEST: usize = 64 * 1024 * 1024;

/// What a scraper says of the form that it takes.
const PASSED_ON: [HeaderName; 3] = [
    header::ACCEPT,
    header::ACCEPT_ENCODING,
    HeaderName::from_static("x-prometheus-scrape-timeout-seconds"),
];

/// What says in which form it comes.
const PASSED_BACK: [HeaderName; 2] = [header::CONTENT_TYPE, header::CONTENT_ENCODING];

/// Ours: to ask ourselves would have no end.
const OWN_PORTS: [u16; 5] = [15001, 15006, 15020, 15021, 15022];

/// What `WEFT_APPLICATION_METRICS` says; nothing is opened without it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct ApplicationMetrics(Option<Page>);

#[derive(Clone, PartialEq, Eq, Debug)]
struct Page {
    port: u16,
    /// Path and query.
    path: String,
}

/// No page.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NoPage;

impl FromStr for ApplicationMetrics {
    type Err = NoPage;

    /// `9090/metrics`.
    fn from_str(text: &str) -> Result<Self, NoPage> {
        if text.is_empty() {
            return Ok(Self(None));
        }
        let (port, path) = text.split_once('/').ok_or(NoPage)?;
        let port: u16 = port.parse().map_err(|_| NoPage)?;
        let path = format!("/{path}");
        let is_path = path.bytes().all(|it| it.is_ascii_graphic() && it != b'#');
        match port > 0 && !OWN_PORTS.contains(&port) && is_path && path.parse::<Uri>().is_ok() {
            true => Ok(Self(Some(Page { port, path }))),
            false => Err(NoPage),
        }
    }
}

/// A page on its way.
pub(super) struct Passing {
    carrier: Carrier,
    body: Limited<Incoming>,
}

type Connection = http1::Connection<TokioIo<TcpStream>, Empty<Bytes>>;

/// The connection that the page comes over; it moves only while it is polled.
struct Carrier(Option<Pin<Box<Connection>>>);

impl Carrier {
    fn carry(&mut self, cx: &mut Context<'_>) {
        let connection = self.0.as_mut();
        // How it ended, the page tells.
        if connection.is_some_and(|it| it.as_mut().poll(cx).is_ready()) {
            self.0 = None;
        }
    }
}

impl Body for Passing {
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = self.get_mut();
        this.carrier.carry(cx);
        Pin::new(&mut this.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl ApplicationMetrics {
    /// `None`: there is no page here.
    pub(super) async fn fetch(
        &self,
        path: &str,
        headers: &HeaderMap,
        from: &From,
    ) -> Option<Result<Response<Passing>, (StatusCode, String)>> {
        let page = self.0.as_ref().filter(|_| path == PATH)?;
        let asked = timeout(PATIENCE, Box::pin(page.ask(headers, from, LONGEST))).await;
        Some(match asked {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => {
                let why = format!(
                    "the application's port {} gave no page: {error}\n",
                    page.port
                );
                Err((StatusCode::BAD_GATEWAY, why))
            }
            Err(_) => {
                let why = format!("no answer of the application within {PATIENCE:?}\n");
                Err((StatusCode::GATEWAY_TIMEOUT, why))
            }
        })
    }
}

impl Page {
    async fn ask(
        &self,
        headers: &HeaderMap,
        from: &From,
        longest: usize,
    ) -> io::Result<Response<Passing>> {
        let request = self.request(headers, from)?;
        let stream = from.connect(self.port).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(io::Error::other)?;
        let mut carrier = Carrier(Some(Box::pin(connection)));
        let mut sent = Box::pin(sender.send_request(request));
        let answered = std::future::poll_fn(|cx| {
            carrier.carry(cx);
            sent.as_mut().poll(cx)
        });
        let (parts, body) = answered.await.map_err(io::Error::other)?.into_parts();
        let body = Limited::new(body, longest);
        let mut answer = Response::new(Passing { carrier, body });
        *answer.status_mut() = parts.status;
        copy(&PASSED_BACK, &parts.headers, answer.headers_mut());
        Ok(answer)
    }

    fn request(&self, headers: &HeaderMap, from: &From) -> io::Result<Request<Empty<Bytes>>> {
        let own = SocketAddr::new(from.address, self.port).to_string();
        let own = HeaderValue::try_from(own).map_err(io::Error::other)?;
        let mut request = Request::new(Empty::new());
        *request.uri_mut() = Uri::try_from(&self.path).map_err(io::Error::other)?;
        let to = request.headers_mut();
        to.insert(header::HOST, own);
        to.insert(header::USER_AGENT, from.agent.clone());
        to.insert(header::CONNECTION, HeaderValue::from_static("close"));
        copy(&PASSED_ON, headers, to);
        Ok(request)
    }
}

fn copy(names: &[HeaderName], from: &HeaderMap, to: &mut HeaderMap) {
    for name in names {
        for value in from.get_all(name) {
            to.append(name, value.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use http_body_util::BodyExt as _;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;

    const OWN: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn from() -> From {
        From {
            address: OWN,
            mark: None,
            agent: HeaderValue::from_static("Prometheus/3"),
        }
    }

    /// Answers one connection and tells what was asked.
    async fn application(listener: &TcpListener, answer: &str) -> String {
        let (mut stream, caller) = listener.accept().await.unwrap();
        assert_eq!(caller.ip(), IpAddr::V4(Ipv4Addr::new(127, 0, 0, 6)));
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            request.push(stream.read_u8().await.unwrap());
        }
        stream.write_all(answer.as_bytes()).await.unwrap();
        String::from_utf8(request).unwrap()
    }

    async fn listener() -> (TcpListener, u16) {
        let listener = TcpListener::bind((OWN, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        (listener, port)
    }

    fn metrics(text: &str) -> ApplicationMetrics {
        text.parse().unwrap()
    }

    #[tokio::test]
    async fn the_page_is_asked_for_by_name_and_comes_as_it_was_written() {
        let (listener, port) = listener().await;
        let metrics = metrics(&format!("{port}/all/metrics?name=web"));
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, HeaderValue::from_static("text/plain"));
        headers.insert(header::AUTHORIZATION, HeaderValue::from_static("secret"));
        let answer = "HTTP/1.1 200 OK\r\ncontent-type: text/plain; version=0.0.4\r\n\
                      set-cookie: a=b\r\ntransfer-encoding: chunked\r\n\r\n\
                      5\r\nup 1\n\r\n0\r\n\r\n";
        let scrape = async {
            let answer = metrics
                .fetch(PATH, &headers, &from())
                .await
                .unwrap()
                .unwrap();
            let (parts, body) = answer.into_parts();
            (parts, body.collect().await.unwrap().to_bytes())
        };
        let ((parts, body), asked) = tokio::join!(scrape, application(&listener, answer));
        assert_eq!(parts.status, StatusCode::OK);
        assert_eq!(
            parts.headers[header::CONTENT_TYPE],
            "text/plain; version=0.0.4"
        );
        assert_eq!(parts.headers.len(), 1, "{parts:?}");
        assert_eq!(body, "up 1\n");
        assert!(
            asked.starts_with("GET /all/metrics?name=web HTTP/1.1\r\n"),
            "{asked}"
        );
        assert!(
            asked.contains("accept: text/plain\r\n") && !asked.contains("secret"),
            "{asked}"
        );
    }

    #[tokio::test]
    async fn what_is_no_page_is_not_asked_for() {
        let metrics = metrics("1/metrics");
        for path in ["/", "/metrics", "/application", "/application/metrics/x"] {
            assert!(
                metrics
                    .fetch(path, &HeaderMap::new(), &from())
                    .await
                    .is_none()
            );
        }
        let none = ApplicationMetrics::default();
        assert!(none.fetch(PATH, &HeaderMap::new(), &from()).await.is_none());
    }

    async fn refused(metrics: &ApplicationMetrics) -> StatusCode {
        let answer = metrics.fetch(PATH, &HeaderMap::new(), &from()).await;
        answer.unwrap().err().unwrap().0
    }

    #[tokio::test(start_paused = true)]
    async fn an_application_that_is_away_or_silent_is_told_from_one_that_answers() {
        let (listener, port) = listener().await;
        let silent = metrics(&format!("{port}/metrics"));
        assert_eq!(refused(&silent).await, StatusCode::GATEWAY_TIMEOUT);
        drop(listener);
        // Nothing listens on port 1.
        assert_eq!(
            refused(&metrics("1/metrics")).await,
            StatusCode::BAD_GATEWAY
        );
    }

    #[tokio::test]
    async fn a_page_without_end_breaks_off_and_never_looks_whole() {
        let (listener, port) = listener().await;
        let page = metrics(&format!("{port}/metrics")).0.unwrap();
        let answer = "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n123456789";
        let scrape = async {
            let answer = page.ask(&HeaderMap::new(), &from(), 8).await.unwrap();
            answer.into_body().collect().await
        };
        let (body, _) = tokio::join!(scrape, application(&listener, answer));
        assert!(body.is_err());
    }

    #[test]
    fn a_port_and_a_path_make_a_page() {
        for text in ["9090/metrics", "1/", "65535/a/b?c=d&e"] {
            assert!(text.parse::<ApplicationMetrics>().is_ok(), "{text}");
        }
        for text in [
            "9090",
            "/metrics",
            "0/metrics",
            "65536/metrics",
            "15020/application/metrics",
            "15021/ready",
            "80/a b",
            "80/a#b",
            "80/ä",
            "http://a/b",
        ] {
            assert!(text.parse::<ApplicationMetrics>().is_err(), "{text}");
        }
    }
}

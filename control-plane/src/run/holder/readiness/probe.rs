//! One probe: a connection that is accepted, or a GET that is answered with 200
//! to 399 (Kubernetes: "Configure Liveness, Readiness and Startup Probes").

use std::{
    fs::File,
    io,
    net::{SocketAddr, TcpStream},
    thread,
    time::Duration,
};

use nix::sched::{CloneFlags, setns};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    sync::oneshot,
    time::timeout,
};

/// Of the answer's first line; more is none.
const LONGEST_LINE: u64 = 8 * 1024;

#[derive(Debug)]
pub(super) struct Probe {
    pub(super) how: How,
    pub(super) at: SocketAddr,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum How {
    Connect,
    /// The request.
    Get(String),
}

impl How {
    /// With its port.
    ///
    /// # Errors
    /// Why it can't be made, for people.
    pub(super) fn of(probe: &Value, containers: &[&Value]) -> Result<(Self, u16), String> {
        if let Some(tcp) = probe.get("tcpSocket") {
            return Ok((Self::Connect, port(tcp, containers)?));
        }
        let Some(get) = probe.get("httpGet") else {
            let kind = ["exec", "grpc"]
                .into_iter()
                .find(|it| probe.get(it).is_some());
            let kind = kind.unwrap_or("of this kind");
            return Err(format!("a readinessProbe {kind} is not made here"));
        };
        let text = |field: &str| get.get(field).and_then(Value::as_str);
        if text("scheme").is_some_and(|it| it != "HTTP") {
            return Err("a readinessProbe httpGet over HTTPS is not made here".to_owned());
        }
        let headers = get.get("httpHeaders").and_then(Value::as_array);
        let headers = headers.into_iter().flatten().filter_map(|it| {
            let part = |field: &str| it.get(field)?.as_str();
            Some((part("name")?, part("value")?))
        });
        let mut request = format!("GET {} HTTP/1.1\r\n", text("path").unwrap_or("/"));
        let (mut lines, mut has_host) = (String::new(), false);
        for (name, value) in headers {
            has_host |= name.eq_ignore_ascii_case("host");
            lines += &format!("{name}: {value}\r\n");
        }
        if !has_host {
            request += &format!("Host: {}\r\n", text("host").unwrap_or("localhost"));
        }
        request += &lines;
        request += "User-Agent: weft-probe\r\nAccept: */*\r\nConnection: close\r\n\r\n";
        Ok((Self::Get(request), port(get, containers)?))
    }
}

/// A number, or the name of a container's port.
fn port(of: &Value, containers: &[&Value]) -> Result<u16, String> {
    let port = of.get("port").unwrap_or(&Value::Null);
    let number = match port.as_str() {
        None => port.as_u64(),
        Some(name) => containers
            .iter()
            .filter_map(|it| it.get("ports")?.as_array())
            .flatten()
            .find(|it| it.get("name").and_then(Value::as_str) == Some(name))
            .and_then(|it| it.get("containerPort")?.as_u64()),
    };
    number
        .and_then(|it| u16::try_from(it).ok())
        .filter(|it| *it != 0)
        .ok_or_else(|| format!("a readinessProbe names port {port}, which is none"))
}

impl Probe {
    /// Is it passed, in time?
    pub(super) async fn make(&self, network: &File, within: Duration) -> bool {
        let answer = async {
            let stream = connect(network, self.at, within).await?;
            match &self.how {
                How::Connect => Ok(true),
                How::Get(request) => get(stream, request).await,
            }
        };
        match timeout(within, answer).await {
            Ok(Ok(passed)) => passed,
            Ok(Err(error)) => {
                tracing::debug!(at = %self.at, %error, "readiness probe failed");
                false
            }
            Err(_) => false,
        }
    }
}

/// From within that network: sockets stay where they were made.
async fn connect(
    network: &File,
    to: SocketAddr,
    within: Duration,
) -> io::Result<tokio::net::TcpStream> {
    let network = network.try_clone()?;
    let (tell, told) = oneshot::channel();
    // A thread of its own: what it enters it never leaves.
    thread::Builder::new()
        .name("probe".to_owned())
        .spawn(move || {
            let connected = setns(network, CloneFlags::CLONE_NEWNET)
                .map_err(io::Error::from)
                .and_then(|()| TcpStream::connect_timeout(&to, within));
            // Whoever asked may have stopped waiting.
            let _ = tell.send(connected);
        })?;
    let stream = told.await.map_err(io::Error::other)??;
    stream.set_nonblocking(true)?;
    tokio::net::TcpStream::from_std(stream)
}

async fn get(mut stream: tokio::net::TcpStream, request: &str) -> io::Result<bool> {
    stream.write_all(request.as_bytes()).await?;
    let mut line = Vec::new();
    let mut answer = BufReader::new(stream.take(LONGEST_LINE));
    answer.read_until(b'\n', &mut line).await?;
    let line = String::from_utf8_lossy(&line);
    let mut words = line.split_ascii_whitespace();
    let is_http = words.next().is_some_and(|it| it.starts_with("HTTP/1."));
    let status = words.next().and_then(|it| it.parse::<u16>().ok());
    Ok(is_http && status.is_some_and(|it| (200..400).contains(&it)))
}

//! One probe: a connection that is accepted, a GET that is answered with 200 to
//! 399, a service that says it serves, or a command that ends well (Kubernetes:
//! "Configure Liveness, Readiness and Startup Probes").

use std::{
    fs::File,
    io,
    net::{IpAddr, SocketAddr, TcpStream},
    process::Stdio,
    thread,
    time::Duration,
};

use nix::sched::{CloneFlags, setns};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader},
    process::Command,
    sync::oneshot,
    time::timeout,
};
use weft_proxy::unverified;

use super::{Place, grpc};
use crate::run::{holder::processes, own_stage};

/// Of the answer's first line; more is none.
const LONGEST_LINE: u64 = 8 * 1024;

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Probe {
    Connect(SocketAddr),
    Get {
        at: SocketAddr,
        is_tls: bool,
        request: String,
    },
    Grpc {
        at: SocketAddr,
        service: String,
    },
    Exec(Vec<String>),
}

impl Probe {
    /// Of a pod with this address.
    ///
    /// # Errors
    /// Why it can't be made, for people.
    pub(super) fn of(
        probe: &Value,
        containers: &[&Value],
        address: IpAddr,
    ) -> Result<Self, String> {
        let at = |action| Ok::<_, String>((address, port(action, containers)?).into());
        if let Some(tcp) = probe.get("tcpSocket") {
            return Ok(Self::Connect(at(tcp)?));
        }
        if let Some(grpc) = probe.get("grpc") {
            let service = grpc.get("service").and_then(Value::as_str);
            let service = service.unwrap_or_default().to_owned();
            return Ok(Self::Grpc {
                at: at(grpc)?,
                service,
            });
        }
        if let Some(exec) = probe.get("exec") {
            let words = exec.get("command").and_then(Value::as_array);
            let words = words.into_iter().flatten().map(Value::as_str);
            let command: Option<Vec<String>> = words.map(|it| it.map(str::to_owned)).collect();
            return match command {
                Some(command) if !command.is_empty() => Ok(Self::Exec(command)),
                _ => Err("a readinessProbe exec has no command".to_owned()),
            };
        }
        let Some(get) = probe.get("httpGet") else {
            return Err("a readinessProbe is of no kind that is known here".to_owned());
        };
        Ok(Self::Get {
            at: at(get)?,
            is_tls: is_tls(get)?,
            request: request(get),
        })
    }
}

fn is_tls(get: &Value) -> Result<bool, String> {
    match get.get("scheme").and_then(Value::as_str) {
        None | Some("HTTP") => Ok(false),
        Some("HTTPS") => Ok(true),
        Some(other) => Err(format!(
            "a readinessProbe httpGet over {other} is not made here"
        )),
    }
}

fn request(get: &Value) -> String {
    let text = |field: &str| get.get(field).and_then(Value::as_str);
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
    request + "User-Agent: weft-probe\r\nAccept: */*\r\nConnection: close\r\n\r\n"
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
    pub(super) async fn make(&self, place: Place<'_>, within: Duration) -> bool {
        let connect = |at: &SocketAddr| connect(place.network, *at, within);
        let answer = async {
            match self {
                Self::Connect(at) => connect(at).await.map(|_| true),
                Self::Get {
                    at,
                    is_tls: false,
                    request,
                } => get(connect(at).await?, request).await,
                Self::Get {
                    at,
                    is_tls: true,
                    request,
                } => {
                    let stream = connect(at).await?;
                    get(unverified::connect(stream, at.ip()).await?, request).await
                }
                Self::Grpc { at, service } => grpc::check(connect(at).await?, service).await,
                Self::Exec(command) => exec(place, command).await,
            }
        };
        match timeout(within, Box::pin(answer)).await {
            Ok(Ok(passed)) => passed,
            Ok(Err(error)) => {
                tracing::debug!(probe = ?self, %error, "readiness probe failed");
                false
            }
            Err(_) => false,
        }
    }
}

/// Beside the program, as it sees the world; killed when nobody waits any more.
async fn exec(place: Place<'_>, command: &[String]) -> io::Result<bool> {
    let program = processes::first(place.network, place.proxy)?;
    let program = program.ok_or_else(|| io::Error::other("the program has ended"))?;
    let mut stage = own_stage("beside");
    let parent = std::process::id().to_string();
    stage.args(["--parent", &parent, "--process", &program.to_string(), "--"]);
    stage.args(command).stdin(Stdio::null());
    stage.stdout(Stdio::null()).stderr(Stdio::null());
    let status = Command::from(stage).kill_on_drop(true).status().await?;
    Ok(status.success())
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

async fn get<S>(mut stream: S, request: &str) -> io::Result<bool>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    stream.write_all(request.as_bytes()).await?;
    stream.flush().await?;
    let mut line = Vec::new();
    let mut answer = BufReader::new(stream.take(LONGEST_LINE));
    answer.read_until(b'\n', &mut line).await?;
    let line = String::from_utf8_lossy(&line);
    let mut words = line.split_ascii_whitespace();
    let is_http = words.next().is_some_and(|it| it.starts_with("HTTP/1."));
    let status = words.next().and_then(|it| it.parse::<u16>().ok());
    Ok(is_http && status.is_some_and(|it| (200..400).contains(&it)))
}

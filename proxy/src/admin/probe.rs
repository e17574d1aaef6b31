//! Probes and hooks of the application, carried out from inside the pod.
//!
//! The injector sends the kubelet's probes to our health port, which nothing
//! redirects, and tells us in `WEFT_PROBES` what each was. We ask the
//! application from 127.0.0.6 or ::6, so that the question meets neither
//! redirection nor policy, and judge as the kubelet does (pkg/probe).
//!
//! Only who brings the token of the pod's own specification is answered:
//! otherwise anyone in the network could ask what policy forbids, or run a hook.

mod grpc;
mod http_get;

use std::{collections::HashMap, io, net::IpAddr, str::FromStr, time::Duration};

use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::Deserialize;
use tokio::{net::TcpStream, time::timeout};

use crate::sock::{self, Liveness, Source};

/// What `WEFT_PROBES` says; the control plane's `admission` writes it.
#[derive(Clone, PartialEq, Debug, Default, Deserialize)]
pub(crate) struct Probes {
    token: String,
    /// By `<container>/<kind>`.
    probes: HashMap<String, Probe>,
}

#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Probe {
    timeout_seconds: u32,
    #[serde(flatten)]
    handler: Handler,
}

#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Handler {
    HttpGet(http_get::HttpGet),
    TcpSocket(TcpSocket),
    Grpc(grpc::Grpc),
}

#[derive(Clone, PartialEq, Debug, Deserialize)]
struct TcpSocket {
    port: u16,
}

/// How the application answered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Answered {
    /// As HTTP has it.
    Status(StatusCode),
    /// Where a connection, or the word SERVING, is all that counts.
    Well,
    /// Not at all, or not well: why.
    Badly(String),
    /// A hook that came to nothing: the kubelet takes any answer for success,
    /// so it must not get one.
    Nothing,
}

impl FromStr for Probes {
    type Err = serde_json::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "" => Ok(Self::default()),
            text => serde_json::from_str(text),
        }
    }
}

/// From where an application is asked.
#[derive(Clone, Debug)]
pub(super) struct From {
    /// What the kubelet called: the pod's address.
    pub(super) address: IpAddr,
    pub(super) mark: Option<u32>,
    /// The kubelet's own name and version.
    pub(super) agent: HeaderValue,
}

impl Probes {
    /// How long the slowest of them may take.
    pub(super) fn longest(&self) -> Duration {
        let longest = self.probes.values().map(|it| it.timeout_seconds).max();
        Duration::from_secs(longest.unwrap_or_default().into())
    }

    /// `None`: there is no such probe, for this caller at least.
    pub(super) async fn carry_out(
        &self,
        path: &str,
        headers: &HeaderMap,
        address: IpAddr,
        mark: Option<u32>,
    ) -> Option<Answered> {
        let key = path.strip_prefix("/probe/")?;
        let probe = self.probes.get(key)?;
        let token = headers.get(TOKEN).map_or(&[][..], HeaderValue::as_bytes);
        if !is_same(token, self.token.as_bytes()) {
            return None;
        }
        let agent = headers.get(header::USER_AGENT).cloned();
        let from = From {
            address,
            mark,
            agent: agent.unwrap_or(HeaderValue::from_static("kube-probe")),
        };
        let limit = Duration::from_secs(probe.timeout_seconds.into());
        let answered = timeout(limit, probe.handler.ask(&from)).await;
        let answered = answered.unwrap_or_else(|_| {
            let why = format!("no answer within {} s", probe.timeout_seconds);
            Err(io::Error::new(io::ErrorKind::TimedOut, why))
        });
        Some(match answered {
            Ok(answered) => answered,
            Err(error) => {
                tracing::debug!(probe = key, %error, "the application didn't answer");
                match key.ends_with("/post-start") || key.ends_with("/pre-stop") {
                    true => Answered::Nothing,
                    false => Answered::Badly(error.to_string()),
                }
            }
        })
    }
}

/// Brought by the kubelet, since the pod's specification says so.
const TOKEN: &str = "weft-probe";

/// In a time that tells nothing of where they differ.
fn is_same(one: &[u8], other: &[u8]) -> bool {
    let difference = one
        .iter()
        .zip(other)
        .fold(0, |all, (one, other)| all | (one ^ other));
    !other.is_empty() && one.len() == other.len() && difference == 0
}

impl Handler {
    async fn ask(&self, from: &From) -> io::Result<Answered> {
        match self {
            Self::HttpGet(get) => get.ask(from).await.map(Answered::Status),
            Self::TcpSocket(tcp) => from.connect(tcp.port).await.map(|_| Answered::Well),
            Self::Grpc(grpc) => grpc.ask(from).await,
        }
    }
}

impl From {
    pub(super) async fn connect(&self, port: u16) -> io::Result<TcpStream> {
        let source = Source {
            inbound: true,
            mark: self.mark,
        };
        sock::connect((self.address, port).into(), source, &Liveness::default()).await
    }
}

#[cfg(test)]
mod tests;

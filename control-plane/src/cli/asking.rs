//! Asks a running control plane what it knows, and prints.
//!
//! For the subcommands that look: `status`, `explain`, `check`. A mesh of
//! `weft run` is asked through its socket, one in a cluster through the API
//! server (`cluster`), each replica by itself; `merge` makes one answer of
//! theirs. Reads only.

mod cluster;
mod merge;

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, bail};
use bytes::Bytes;
use clap::ValueEnum;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::UnixStream,
    time::timeout,
};

use crate::{cli::kubeconfig, report::Report, run::mesh::Mesh};

const DEADLINE: Duration = Duration::from_secs(10);
const LONGEST: usize = 256 * 1024 * 1024;

/// Which control plane. Without a word of it: the mesh that `weft run` has
/// started, if it runs, else the cluster of the kubeconfig.
#[derive(Debug, clap::Args)]
pub(super) struct Whom {
    /// Directory of a mesh that `weft run` has started; default: as `weft run`, if that runs
    #[arg(long, value_name = "DIR", conflicts_with_all = IN_A_CLUSTER)]
    mesh: Option<PathBuf>,
    /// The control plane's status socket, instead of a mesh's directory
    #[arg(long, value_name = "PATH", conflicts_with = "mesh", conflicts_with_all = IN_A_CLUSTER)]
    status_socket: Option<PathBuf>,
    #[command(flatten)]
    cluster: cluster::Where,
}

/// What names a control plane on the command line.
pub(super) const NAMES: [&str; 5] = [
    "mesh",
    "status_socket",
    "context",
    "kubeconfig",
    "namespace",
];

/// Those of them that name one in a cluster.
const IN_A_CLUSTER: [&str; 3] = ["context", "kubeconfig", "namespace"];

/// Where the question goes.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    Socket(PathBuf),
    Cluster,
}

impl Whom {
    async fn place(&self) -> Place {
        if let Some(socket) = &self.status_socket {
            return Place::Socket(socket.clone());
        }
        if let Some(directory) = &self.mesh {
            return Place::Socket(Mesh::at(directory).status_socket());
        }
        if self.cluster.is_named() {
            return Place::Cluster;
        }
        let socket = Mesh::at(&Mesh::default_directory()).status_socket();
        let runs = UnixStream::connect(&socket).await.is_ok();
        match !runs && kubeconfig::is_known() {
            true => Place::Cluster,
            false => Place::Socket(socket),
        }
    }

    /// The answer of one replica; any of them has it.
    ///
    /// # Errors
    /// Without a control plane that answers.
    pub(super) async fn ask<T: DeserializeOwned>(&self, target: &str) -> anyhow::Result<T> {
        match self.place().await {
            Place::Socket(socket) => fetch(&socket, target).await,
            Place::Cluster => {
                let answers = self.cluster.ask::<T>(target).await?;
                merge::first(answers.into_iter().map(|(_, answer)| answer))
            }
        }
    }

    /// What all replicas say together, and whether they are in a cluster.
    ///
    /// # Errors
    /// Without a control plane that answers.
    pub(super) async fn report(&self) -> anyhow::Result<(Report, bool)> {
        match self.place().await {
            Place::Socket(socket) => Ok((fetch(&socket, "/status").await?, false)),
            Place::Cluster => {
                let answers = self.cluster.ask("/status").await?;
                Ok((merge::reports(answers)?, true))
            }
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Output {
    Table,
    Json,
}

/// # Errors
/// What the future says.
pub(super) fn block_on<T>(asking: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(asking)
}

/// # Errors
/// When nobody reads any more.
pub(super) fn print(text: &str) -> anyhow::Result<ExitCode> {
    std::io::stdout()
        .write_all(text.as_bytes())
        .context("standard output")?;
    Ok(ExitCode::SUCCESS)
}

/// # Errors
/// Without a control plane that answers on its status socket.
pub(crate) async fn fetch<T: DeserializeOwned>(socket: &Path, target: &str) -> anyhow::Result<T> {
    let asked = async {
        let stream = UnixStream::connect(socket).await;
        let stream = stream
            .with_context(|| format!("{}: is the control plane running?", socket.display()))?;
        ask(stream, target).await
    };
    read(timeout(DEADLINE, asked).await)
}

fn read<T: DeserializeOwned>(
    answer: Result<anyhow::Result<Bytes>, tokio::time::error::Elapsed>,
) -> anyhow::Result<T> {
    let body = answer.context("no answer in time")??;
    serde_json::from_slice(&body).context("the answer can't be read")
}

pub(super) async fn ask(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    target: &str,
) -> anyhow::Result<Bytes> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::get(target)
        .header(http::header::HOST, "weft")
        .body(Empty::<Bytes>::new())?;
    let answer = async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), LONGEST)
            .collect()
            .await
            .map_err(anyhow::Error::from_boxed)?
            .to_bytes();
        let text = String::from_utf8_lossy(&body);
        match status {
            StatusCode::OK => Ok(body),
            // The question is about something that there isn't: its own words.
            StatusCode::NOT_FOUND => bail!("{}", text.trim()),
            status => bail!("the control plane answered {status}: {}", text.trim()),
        }
    };
    tokio::pin!(answer, connection);
    tokio::select! {
        body = &mut answer => body,
        _ended = &mut connection => answer.await,
    }
}

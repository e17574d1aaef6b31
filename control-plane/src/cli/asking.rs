//! Asks a running control plane what it knows, and prints.
//!
//! For the subcommands that look: `status`, `explain`. Reads only.

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
use tokio::{net::UnixStream, time::timeout};

use crate::run::mesh::Mesh;

const DEADLINE: Duration = Duration::from_secs(10);
const LONGEST: usize = 256 * 1024 * 1024;

/// Which control plane.
#[derive(Debug, clap::Args)]
pub(super) struct Whom {
    /// Directory of a mesh that `weft run` has started; default: as `weft run`
    #[arg(long, value_name = "DIR")]
    mesh: Option<PathBuf>,
    /// The control plane's status socket, instead of a mesh's directory
    #[arg(long, value_name = "PATH", conflicts_with = "mesh")]
    status_socket: Option<PathBuf>,
}

impl Whom {
    /// # Errors
    /// Without a control plane that answers on its status socket.
    pub(super) async fn ask<T: DeserializeOwned>(&self, target: &str) -> anyhow::Result<T> {
        let of_mesh = |directory: Option<&PathBuf>| {
            let directory = directory.cloned().unwrap_or_else(Mesh::default_directory);
            Mesh::at(&directory).status_socket()
        };
        let socket = self.status_socket.clone();
        let socket = socket.unwrap_or_else(|| of_mesh(self.mesh.as_ref()));
        fetch(&socket, target).await
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
    let body = timeout(DEADLINE, ask(socket, target))
        .await
        .context("no answer in time")??;
    serde_json::from_slice(&body).context("the answer can't be read")
}

async fn ask(socket: &Path, target: &str) -> anyhow::Result<Bytes> {
    let stream = UnixStream::connect(socket)
        .await
        .with_context(|| format!("{}: is the control plane running?", socket.display()))?;
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

//! The unix socket that takes commands, and the client of `weft-proxy drain`.
//!
//! One line in, one line out. Guarded by file permissions (0600). The only
//! command is `drain`: keep serving, retire connections.

use std::{
    fs, io,
    io::{Read as _, Write as _},
    os::unix::{fs::PermissionsExt as _, net::UnixStream as Client},
    path::Path,
    sync::Arc,
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{UnixListener, UnixStream},
    time,
};

use crate::drain::{self, Phase};

const PATIENCE: Duration = Duration::from_secs(5);
const LONGEST_COMMAND: u64 = 64;

#[derive(Debug)]
pub(super) struct Listener(UnixListener);

impl Listener {
    /// Replaces a socket that an earlier proxy left behind.
    pub(super) fn bind(path: &Path) -> io::Result<Self> {
        let named = |error: io::Error| {
            io::Error::new(
                error.kind(),
                format!("admin socket {}: {error}", path.display()),
            )
        };
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(named(error)),
            _ => {}
        }
        let listener = UnixListener::bind(path).map_err(named)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(named)?;
        Ok(Self(listener))
    }

    /// One caller after the other: commands are rare and short.
    pub(super) async fn serve(self, control: Arc<drain::Control>) {
        loop {
            let served = match self.0.accept().await {
                Ok((stream, _)) => time::timeout(PATIENCE, obey(stream, &control)).await,
                Err(error) => Ok(Err(error)),
            };
            if let Ok(Err(error)) = served {
                tracing::debug!(%error, "admin command broke");
                time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn obey(mut stream: UnixStream, control: &drain::Control) -> io::Result<()> {
    let (read, mut write) = stream.split();
    let mut line = String::new();
    BufReader::new(read.take(LONGEST_COMMAND))
        .read_line(&mut line)
        .await?;
    let answer = match line.trim_end() {
        "drain" => {
            tracing::info!("drain begins by command");
            control.advance(Phase::Draining);
            "draining\n"
        }
        _ => "error: the only command is drain\n",
    };
    write.write_all(answer.as_bytes()).await
}

/// Tells the proxy behind `socket` to retire its connections while it serves.
///
/// # Errors
/// When no proxy answers there, or it refuses.
pub(crate) fn drain(socket: &Path) -> io::Result<()> {
    let named =
        |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", socket.display()));
    command(socket, "drain").map(drop).map_err(named)
}

/// Sends `command` and returns its answer.
pub(super) fn command(socket: &Path, command: &str) -> io::Result<String> {
    let mut client = Client::connect(socket)?;
    client.set_read_timeout(Some(PATIENCE))?;
    client.write_all(format!("{command}\n").as_bytes())?;
    let mut answer = String::new();
    client.read_to_string(&mut answer)?;
    let answer = answer.trim_end().to_owned();
    match answer.strip_prefix("error: ") {
        Some(error) => Err(io::Error::other(error.to_owned())),
        None => Ok(answer),
    }
}

//! Process shell of the control plane: knobs, log, runtime, `app::run`.

use std::{io, process::ExitCode};

use clap::Parser;
use tracing_subscriber::EnvFilter;
use weft_control_plane::{app, config::Config};

fn main() -> ExitCode {
    let config = Config::parse();
    let filter = EnvFilter::try_new(&config.log).unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .json()
        .with_writer(io::stderr)
        .with_env_filter(filter)
        .init();
    let answer = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(app::run(config)));
    match answer {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "the control plane ends");
            ExitCode::FAILURE
        }
    }
}

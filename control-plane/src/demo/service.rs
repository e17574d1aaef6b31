//! `weft demo-service`: the shop's own programs. They know nothing of a mesh.
//!
//! Started by `demo::shop` under `weft run`, one process per pod; `caller` is
//! the one that calls the others. Small on purpose: no framework, and failures
//! exactly as told.

use std::{future::Future, process::ExitCode};

use anyhow::Context;
use clap::Subcommand;
use tokio::net::{TcpListener, TcpStream};

use crate::runtime::Tasks;

mod caller;
mod cart;
mod client;
mod front;
mod payment;
mod web;

#[derive(Debug, Subcommand)]
pub(crate) enum Role {
    /// HTTP: says the same to everybody, and who said it
    Web(web::Web),
    /// HTTP: keeps a cart in Redis
    Cart(cart::Cart),
    /// HTTP: passes requests on by path, where there is no nginx
    Front(front::Front),
    /// gRPC: charges cards
    Payment(payment::Payment),
    /// Calls the others as told on standard input
    Caller,
}

pub(crate) fn run(role: &Role) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        match role {
            Role::Web(web) => web::run(web).await,
            Role::Cart(cart) => cart::run(cart).await,
            Role::Front(front) => front::run(front).await,
            Role::Payment(payment) => payment::run(payment).await,
            Role::Caller => caller::run().await,
        }
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Gives each connection to `handle`. IPv4 callers come to the same socket.
async fn serve<F>(port: u16, handle: impl Fn(TcpStream) -> F) -> anyhow::Result<()>
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind(("::", port))
        .await
        .with_context(|| format!("port {port}"))?;
    let mut connections = Tasks::new();
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        connections.spawn(handle(stream));
    }
}

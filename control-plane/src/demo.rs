//! `weft demo`: a small shop of real programs in a mesh of its own, shown and
//! checked.
//!
//! Everything is done as anybody could by hand: programs under `weft run`,
//! manifests that are edited, a control plane that is killed. `shop` holds what
//! runs, `steps` are what is shown in turn, `board` shows it, `service` are the
//! shop's own programs. It ends within its limit, and leaves nothing behind.

use std::{
    io::{IsTerminal, Write},
    process::ExitCode,
    time::Duration,
};

use anyhow::Context;
use clap::ValueEnum;
use tokio::{
    signal::unix::{SignalKind, signal},
    time::{Instant, timeout_at},
};

use self::{
    board::{Board, Mode},
    shop::Shop,
    steps::Step,
    summary::Summary,
};

mod board;
mod caller;
mod finding;
mod job;
mod program;
mod service;
mod shop;
mod steps;
mod summary;

pub(crate) use service::{Role, run as service};

/// In all; what remains after the steps is for closing.
const LIMIT: Duration = Duration::from_secs(90);
const CLOSING: Duration = Duration::from_secs(10);

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Keeps the shop open at the end, to play with from another shell
    #[arg(long)]
    hold: bool,
    /// What is on standard output: the story and its summary, or the summary alone
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    Text,
    Json,
}

/// # Errors
/// When not even its beginning or its end is possible.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let summary = runtime.block_on(Box::pin(story(arguments)))?;
    let text = summary::text(&summary)?;
    std::io::stdout()
        .write_all(text.as_bytes())
        .context("standard output")?;
    Ok(match (summary.ok, summary.stopped_by_signal) {
        (true, _) => ExitCode::SUCCESS,
        // As shells say of SIGINT.
        (false, true) => ExitCode::from(130),
        (false, false) => ExitCode::FAILURE,
    })
}

async fn story(arguments: &Arguments) -> anyhow::Result<Summary> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    let stopped = async {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hang_up.recv() => {}
        }
    };
    tokio::pin!(stopped);

    let began = Instant::now();
    let board = Board::new(match arguments.output {
        Output::Json => Mode::Aside,
        Output::Text if std::io::stdout().is_terminal() => Mode::Table,
        Output::Text => Mode::Lines,
    });
    let mut shop = Shop::open()?;
    let mut summary = Summary::new(&shop);
    let shown = async {
        show(&mut shop, &board, &mut summary, began + LIMIT - CLOSING).await;
        if arguments.hold {
            board.hold(shop.directory());
            std::future::pending::<()>().await;
        }
    };
    let interrupted = tokio::select! {
        () = shown => false,
        () = board.tick() => false,
        () = &mut stopped => true,
    };
    // A shop that was held is ended by a signal, and that is as it should be.
    summary.stopped_by_signal = interrupted && !summary.is_whole();
    board.closing();
    // Who is impatient now finds the directory in the way next time, and no process.
    let closed = tokio::select! {
        closed = shop.close() => closed,
        () = &mut stopped, if !interrupted => Err(anyhow::anyhow!("interrupted while closing")),
    };
    board.end();
    summary.finish(began.elapsed(), closed);
    Ok(summary)
}

/// Each step in turn. One that can't be completed ends the story, since the
/// next ones build on it; one that found something wrong does not.
async fn show(shop: &mut Shop, board: &Board, summary: &mut Summary, until: Instant) {
    for step in Step::ALL {
        let began = Instant::now();
        board.begin(step);
        let found = timeout_at(until, Box::pin(step.show(shop, board))).await;
        let found = found.unwrap_or_else(|_| Err(anyhow::anyhow!("no time left")));
        let can_go_on = found.is_ok();
        let outcome = summary.add(step, began.elapsed(), found);
        board.finish(step, outcome);
        if !can_go_on {
            return;
        }
    }
}

//! A launcher's connection, as the holder sees it.

use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
};

use crate::run::protocol::{self, Ask, Tell};

#[derive(Debug)]
pub(crate) struct Connection {
    asks: Asks,
    answers: Answers,
}

#[derive(Debug)]
pub(crate) struct Asks(Lines<BufReader<OwnedReadHalf>>);

#[derive(Debug)]
pub(crate) struct Answers(OwnedWriteHalf);

impl Connection {
    pub(crate) fn new(stream: UnixStream) -> Self {
        let (read, write) = stream.into_split();
        Self {
            asks: Asks(BufReader::new(read).lines()),
            answers: Answers(write),
        }
    }

    /// Can be dropped at any await. `None` once the launcher has gone.
    pub(crate) async fn next(&mut self) -> Option<Ask> {
        self.asks.next().await
    }

    pub(crate) async fn say(&mut self, what: &Tell) {
        self.answers.say(what).await;
    }

    pub(crate) fn split(&mut self) -> (&mut Asks, &mut Answers) {
        (&mut self.asks, &mut self.answers)
    }
}

impl Asks {
    async fn next(&mut self) -> Option<Ask> {
        let line = self.0.next_line().await.ok()??;
        serde_json::from_str(&line)
            .inspect_err(|error| tracing::error!(%error, "launcher not understood"))
            .ok()
    }

    /// Until the launcher has gone, whatever it says before.
    pub(crate) async fn gone(&mut self) {
        while self.next().await.is_some() {}
    }
}

impl Answers {
    /// That nobody is left to hear it shows where we listen.
    async fn say(&mut self, what: &Tell) {
        let _ = self.0.write_all(&protocol::line(what)).await;
    }

    /// Progress: left out rather than waited for.
    pub(crate) fn try_say(&mut self, what: &Tell) {
        let _ = self.0.try_write(&protocol::line(what));
    }
}

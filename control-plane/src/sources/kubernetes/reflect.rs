//! One kind's loop: read everything, follow the changes, and take it up again
//! whenever that ends.
//!
//! Asks `wire`, feeds `told`. A watch that ends is gone on with from the version
//! that it had reached; one that is too old, or says nothing for too long, is
//! read anew. An API server may leave bookmarks out for minutes, but ends a watch
//! when asked to: silence beyond that means that nobody is there.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use kube::Client;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, timeout},
};

use super::{
    kinds::{WATCHED, Watched},
    metrics::{Health, Metrics},
    told::{News, Told},
    wire::{self, Fault, Line, Lines},
};

/// A watch is over by then, were the API server and the way to it alive.
pub(super) const SILENCE: Duration = Duration::from_secs(wire::LIFE.as_secs() + 30);
/// Until a kind that isn't there is looked for again.
pub(super) const LOOK_AGAIN: Duration = Duration::from_secs(30);
/// A watch that ends sooner has failed, whatever it says.
const SHORT: Duration = Duration::from_secs(5);
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// News of one message while everything is read.
const PART: usize = 500;

pub(super) struct Reflector {
    client: Client,
    watched: &'static Watched,
    news: mpsc::Sender<News>,
    metrics: Metrics,
    at: usize,
    /// The API server streams what there is; found out by whoever asks first.
    streams: Arc<AtomicBool>,
    told: Told,
    /// From which a watch can go on.
    version: Option<String>,
    was_whole: bool,
}

impl Reflector {
    /// A loop for each row.
    pub(super) fn all(client: &Client, metrics: &Metrics, news: &mpsc::Sender<News>) -> Vec<Self> {
        let streams = Arc::new(AtomicBool::new(true));
        let rows = WATCHED.iter().enumerate();
        rows.map(|(at, watched)| Self {
            client: client.clone(),
            watched,
            news: news.clone(),
            metrics: metrics.clone(),
            at,
            streams: streams.clone(),
            told: Told::new(at, watched),
            version: None,
            was_whole: false,
        })
        .collect()
    }

    /// Until nobody hears the news.
    pub(super) async fn run(mut self) {
        let mut failures = 0u32;
        loop {
            let since = Instant::now();
            let fault = match self.turn().await {
                Ok(()) => None,
                Err(Fault::Stopping) => return,
                Err(Fault::Absent) => {
                    self.version = None;
                    if self.wait_until_served().await.is_err() {
                        return;
                    }
                    continue;
                }
                Err(fault) => Some(fault),
            };
            if since.elapsed() >= SHORT {
                failures = 0;
            }
            let Some(fault) = fault else {
                if since.elapsed() < SHORT {
                    sleep(pause(failures)).await;
                    failures = failures.saturating_add(1);
                }
                continue;
            };
            // What was refused would be refused again.
            if matches!(fault, Fault::Expired | Fault::Silent(_) | Fault::Refused(_)) {
                self.version = None;
            }
            self.health().fail();
            tracing::warn!(kind = self.watched.label, error = %fault, "a watch has ended and is taken up again");
            sleep(pause(failures)).await;
            failures = failures.saturating_add(1);
        }
    }

    /// From the last end to the next.
    async fn turn(&mut self) -> Result<(), Fault> {
        let mut lines = match &self.version {
            Some(version) => wire::watch(&self.client, self.watched, Some(version)).await?,
            None => self.read_all().await?,
        };
        self.health().hear();
        loop {
            let line = heard(&mut lines).await?;
            self.health().hear();
            match line {
                None => return Ok(()),
                Some(Line::Mark { version, .. }) => self.version = Some(version),
                Some(line) => {
                    let mut news = self.told.news();
                    let version = self.see(line, &mut news);
                    self.tell(&mut news).await?;
                    self.version = Some(version);
                }
            }
        }
    }

    /// Everything, and then the lines of what changes.
    async fn read_all(&mut self) -> Result<Lines, Fault> {
        if self.watched.is_optional && !wire::is_served(&self.client, self.watched).await? {
            return Err(Fault::Absent);
        }
        self.health().read();
        if self.streams.load(Ordering::Relaxed) {
            match self.stream_all().await {
                Err(Fault::Refused(why)) => {
                    tracing::debug!(why, "the API server does not stream lists: they are paged");
                    self.streams.store(false, Ordering::Relaxed);
                }
                other => return other,
            }
        }
        self.page_all().await
    }

    async fn stream_all(&mut self) -> Result<Lines, Fault> {
        let mut lines = wire::watch(&self.client, self.watched, None).await?;
        let mut news = self.told.news();
        self.told.begin();
        loop {
            match heard(&mut lines).await? {
                Some(Line::Mark {
                    version,
                    is_whole: true,
                }) => {
                    self.end(version, news).await?;
                    return Ok(lines);
                }
                Some(Line::Mark { .. }) => {}
                Some(line) => {
                    self.see(line, &mut news);
                    if news.len() >= PART {
                        self.tell(&mut news).await?;
                    }
                }
                None => {
                    let cut = "the watch ended before all was told";
                    return Err(Fault::Failed(cut.to_owned()));
                }
            }
        }
    }

    async fn page_all(&mut self) -> Result<Lines, Fault> {
        let mut news = self.told.news();
        self.told.begin();
        let mut next = String::new();
        loop {
            let page = wire::page(&self.client, self.watched, &next).await?;
            for object in page.objects {
                self.told.apply(object, &mut news);
            }
            next = page.next;
            if next.is_empty() {
                self.end(page.version.clone(), news).await?;
                return wire::watch(&self.client, self.watched, Some(&page.version)).await;
            }
            self.tell(&mut news).await?;
        }
    }

    /// Everything that there was has been seen.
    async fn end(&mut self, version: String, mut news: News) -> Result<(), Fault> {
        self.told.end(&mut news);
        self.version = Some(version);
        self.whole(news).await
    }

    async fn whole(&mut self, mut news: News) -> Result<(), Fault> {
        news.is_whole = true;
        self.was_whole = true;
        self.count();
        self.health().is_whole();
        self.news.send(news).await.map_err(|_| Fault::Stopping)
    }

    /// The version that the object has.
    fn see(&mut self, line: Line, news: &mut News) -> String {
        let (object, is_gone) = match line {
            Line::Applied(object) => (object, false),
            Line::Deleted(object) => (object, true),
            Line::Mark { version, .. } => return version,
        };
        let version = super::kinds::text(&object, "/metadata/resourceVersion").to_owned();
        match is_gone {
            true => self.told.delete(&object, news),
            false => self.told.apply(object, news),
        }
        version
    }

    async fn tell(&mut self, news: &mut News) -> Result<(), Fault> {
        self.count();
        if news.len() == 0 {
            return Ok(());
        }
        let news = std::mem::replace(news, self.told.news());
        self.news.send(news).await.map_err(|_| Fault::Stopping)
    }

    /// A kind that was there and is not any more is believed at the second look:
    /// an API server that starts doesn't know all of its kinds at once.
    async fn wait_until_served(&mut self) -> Result<(), Fault> {
        let kind = self.watched.label;
        let mut absent = 0u32;
        loop {
            match wire::is_served(&self.client, self.watched).await {
                Ok(true) => return Ok(()),
                Ok(false) => absent = absent.saturating_add(1),
                Err(error) => {
                    tracing::debug!(kind, %error, "the API server does not say what it has")
                }
            }
            if absent == 1 && !self.was_whole {
                tracing::info!(
                    kind,
                    "the API server has no such kind yet: the mesh works without"
                );
                self.whole(self.told.news()).await?;
            }
            if absent == 2 && self.told.len() > 0 {
                tracing::warn!(kind, "the API server has no such kind any more");
                let mut news = self.told.news();
                self.told.begin();
                self.told.end(&mut news);
                self.tell(&mut news).await?;
            }
            if absent >= 1 {
                self.health().absent();
            }
            tokio::select! {
                () = sleep(LOOK_AGAIN) => {}
                () = self.news.closed() => return Err(Fault::Stopping),
            }
        }
    }

    fn count(&self) {
        self.health().count(self.told.len(), self.told.refused());
    }

    fn health(&self) -> &Health {
        self.metrics.of(self.at)
    }
}

/// The next line, unless it is silent for too long.
async fn heard(lines: &mut Lines) -> Result<Option<Line>, Fault> {
    let line = timeout(SILENCE, lines.next()).await;
    line.map_err(|_| Fault::Silent(SILENCE))?
}

/// Twice as long each time, and never for all kinds at once.
fn pause(failures: u32) -> Duration {
    let longest = FIRST_PAUSE
        .saturating_mul(1u32 << failures.min(6))
        .min(LONGEST_PAUSE);
    longest.mul_f64(0.5 + fastrand::f64() / 2.0)
}

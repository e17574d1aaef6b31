//! Somebody in a pod who calls the shop: told what to call, heard what came.
//!
//! Between the steps and `demo::service::caller`, which does the calling under
//! `weft run`.

use std::{cell::Cell, collections::BTreeMap, time::Duration};

use anyhow::{Context, bail};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::{ChildStdin, ChildStdout},
    sync::{mpsc, watch},
    time::{Instant, interval, timeout},
};

use super::{
    job::{Answer, Ask, Job, Report, Target},
    program::{Plan, Program},
};
use crate::runtime::{self, Task};

/// For a job that is not endless; each call has ten seconds.
const LIMIT: Duration = Duration::from_secs(25);
/// Between two looks at what nobody announces.
pub(crate) const LOOK: Duration = Duration::from_millis(20);

/// The newest report of every job.
pub(crate) type Reports = BTreeMap<u64, Report>;

#[derive(Debug)]
pub(crate) struct Caller {
    program: Program,
    asks: mpsc::Sender<Ask>,
    reports: watch::Receiver<Reports>,
    next: Cell<u64>,
    _talk: [Task; 2],
}

/// A job that goes on until it is stopped.
#[derive(Debug)]
pub(crate) struct Load(u64);

impl Load {
    pub(crate) const fn id(&self) -> u64 {
        self.0
    }
}

impl Caller {
    pub(crate) fn start(plan: &Plan) -> anyhow::Result<Self> {
        let mut program = Program::start(plan, true)?;
        let stdin = program.child.stdin.take().context("pipe")?;
        let stdout = program.child.stdout.take().context("pipe")?;
        let (asks, asked) = mpsc::channel(16);
        let (tell, reports) = watch::channel(Reports::new());
        Ok(Self {
            program,
            asks,
            reports,
            next: Cell::new(1),
            _talk: [
                runtime::spawn(ask(stdin, asked)),
                runtime::spawn(hear(stdout, tell)),
            ],
        })
    }

    pub(crate) fn reports(&self) -> watch::Receiver<Reports> {
        self.reports.clone()
    }

    pub(crate) async fn end(mut self) {
        self.program.end().await;
    }

    /// One call.
    ///
    /// # Errors
    /// Without an answer.
    pub(crate) async fn call(&mut self, target: Target) -> anyhow::Result<Answer> {
        let report = self.calls(target, 1, 1).await?;
        match report.last {
            Some(answer) => Ok(answer),
            None => bail!("no answer: {}", report.failed_of()),
        }
    }

    /// So many calls over so many lanes, as fast as answers come.
    pub(crate) async fn calls(
        &mut self,
        target: Target,
        requests: u64,
        lanes: u32,
    ) -> anyhow::Result<Report> {
        let job = self.job(target, lanes);
        let id = job.id;
        self.say(Ask::Start(Job {
            requests: Some(requests),
            ..job
        }))
        .await?;
        self.ended(id).await
    }

    /// Calls until somebody answers well.
    pub(crate) async fn until_ok(&mut self, target: Target) -> anyhow::Result<Answer> {
        let mut last = String::from("nothing");
        let mut look = interval(LOOK);
        let until = Instant::now() + LIMIT;
        while Instant::now() < until {
            look.tick().await;
            let report = self.calls(target.clone(), 1, 1).await?;
            match report.last {
                Some(answer) if answer.is_ok() => return Ok(answer),
                Some(answer) => last = format!("{} {}", answer.status, answer.body.trim()),
                None => last = report.failed_of(),
            }
        }
        bail!("{target:?}: {last} after {} s", LIMIT.as_secs())
    }

    /// Goes on beside whatever else happens.
    pub(crate) async fn load(
        &mut self,
        target: Target,
        lanes: u32,
        per_second: u32,
    ) -> anyhow::Result<Load> {
        let job = self.job(target, lanes);
        let id = job.id;
        self.say(Ask::Start(Job {
            per_second: Some(per_second),
            ..job
        }))
        .await?;
        Ok(Load(id))
    }

    pub(crate) async fn stop(&mut self, load: Load) -> anyhow::Result<Report> {
        self.say(Ask::Stop(load.0)).await?;
        self.ended(load.0).await
    }

    fn job(&self, target: Target, lanes: u32) -> Job {
        let id = self.next.get();
        self.next.set(id + 1);
        Job {
            id,
            target,
            lanes,
            requests: None,
            per_second: None,
        }
    }

    async fn say(&mut self, what: Ask) -> anyhow::Result<()> {
        if self.asks.send(what).await.is_err() {
            self.program.check()?;
            bail!("a caller no longer listens");
        }
        Ok(())
    }

    async fn ended(&mut self, id: u64) -> anyhow::Result<Report> {
        let ended = |reports: &Reports| reports.get(&id).is_some_and(|it| it.ended);
        let came = timeout(LIMIT, self.reports.wait_for(ended)).await;
        match came {
            Ok(Ok(reports)) => Ok(reports.get(&id).cloned().unwrap_or_default()),
            Ok(Err(_)) => {
                // Its output is closed; its end is not far.
                let _ = timeout(Duration::from_secs(2), self.program.child.wait()).await;
                self.program.check()?;
                bail!("a caller no longer speaks")
            }
            Err(_) => bail!("calls did not end within {} s", LIMIT.as_secs()),
        }
    }
}

async fn ask(mut to: ChildStdin, mut asked: mpsc::Receiver<Ask>) {
    while let Some(what) = asked.recv().await {
        let mut line = serde_json::to_vec(&what).expect("plain data with string keys");
        line.push(b'\n');
        if to.write_all(&line).await.is_err() {
            return;
        }
    }
}

async fn hear(from: ChildStdout, tell: watch::Sender<Reports>) {
    let mut lines = BufReader::new(from).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        if let Ok(report) = serde_json::from_str::<Report>(&line) {
            tell.send_modify(|reports| {
                reports.insert(report.id, report);
            });
        }
    }
}
